"""What can be done with FSMs, as plans: generators that yield requests and are given their replies.

A plan knows what to ask, in which order, and what the replies mean; it carries nothing itself. `Client` carries plans
over a blocking connection; an asyncio client carries the same plans, so there is no second copy of any of this.

Who calls this: the client. It may import `fsm.store`, `fsm.engine`, `fsm.machine`.
"""

from fsm.verbs.looking import (
    Place,
    allowed,
    counts,
    exists,
    list_from,
    list_names,
    list_page,
    log_end,
    log_page,
    machines,
    read_log,
    state,
    states,
)
from fsm.verbs.plans import Plan
from fsm.verbs.sending import Sending, Verdict, announce, purge, send_many, sending, start_many
from fsm.verbs.waiting import JobView, ended, standing, view, wait

__all__ = [
    "JobView",
    "Place",
    "Plan",
    "Sending",
    "Verdict",
    "allowed",
    "announce",
    "counts",
    "ended",
    "exists",
    "list_from",
    "list_names",
    "list_page",
    "log_end",
    "log_page",
    "machines",
    "purge",
    "read_log",
    "send_many",
    "sending",
    "standing",
    "start_many",
    "state",
    "states",
    "view",
    "wait",
]
