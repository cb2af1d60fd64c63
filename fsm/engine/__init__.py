"""One step of one FSM: (behaviour, life, event) -> decision.

Reading order: `outcomes` (what a handler may answer), `effects` (what it may enqueue), `mail` (what it may send),
`arming` and `timers` (what it may arm, and what is armed), `transition` (what it sees), `life` (the FSM between claim
and commit), `behaviour` (a machine ready to run), `around` (the application's own context), `faults` (what user code
raised), `inside` (whether user code runs just now), `step`, `chain`, `migrating` (an FSM that an older definition wrote
last), `driving` (a coroutine driven to its end).

Who calls this: workers and the test kit. PURE: imports neither redis nor rq.
"""

from fsm.engine.behaviour import Behaviour
from fsm.engine.chain import LONGEST_CHAIN, break_circle, follow_up, run_chain
from fsm.engine.driving import drive
from fsm.engine.effects import Effect
from fsm.engine.life import Decision, Event, Life
from fsm.engine.mail import Mail, NewFSM, checked_event, checked_host, checked_name, derived_id, due_of, encode_payload
from fsm.engine.migrating import Migration, is_outdated, migrate, put_off, strangeness
from fsm.engine.outcomes import Goto, HandlerTimeout, Outcome, Reject, Retry, Stay
from fsm.engine.step import abandon, give_up, step
from fsm.engine.transition import Transition

__all__ = [
    "LONGEST_CHAIN",
    "Behaviour",
    "Decision",
    "Effect",
    "Event",
    "Goto",
    "HandlerTimeout",
    "Life",
    "Mail",
    "Migration",
    "NewFSM",
    "Outcome",
    "Reject",
    "Retry",
    "Stay",
    "Transition",
    "abandon",
    "break_circle",
    "checked_event",
    "checked_host",
    "checked_name",
    "derived_id",
    "drive",
    "due_of",
    "encode_payload",
    "follow_up",
    "give_up",
    "is_outdated",
    "migrate",
    "put_off",
    "run_chain",
    "step",
    "strangeness",
]
