"""What can be done with FSMs, as plans: generators that yield requests and are given their replies.

A plan knows what to ask, in which order, and what the replies mean; it carries nothing itself. `Client` carries plans
over a blocking connection; an asyncio client carries the same plans, so there is no second copy of any of this.

Who calls this: the client. It may import `fsm.store`, `fsm.engine`, `fsm.machine`.
"""

from fsm.verbs.agenda import Agenda, EffectView, EventView, agenda
from fsm.verbs.answering import fail, failure_data, note_of, run_again, succeed, success_data
from fsm.verbs.deploy import DeployCheck, Finding, check_deploy
from fsm.verbs.draining import Drained, drain
from fsm.verbs.filters import MOST_OF_QUERY, STATUSES, Filters, read_filters
from fsm.verbs.history import history
from fsm.verbs.looking import (
    allowed,
    counts,
    exists,
    indexed,
    log_back,
    log_end,
    log_page,
    machines,
    read_log,
    ready_queues,
    state,
    states,
)
from fsm.verbs.plans import Plan, carry
from fsm.verbs.purging import count_finished, purge, purge_finished
from fsm.verbs.query import Snapshots, query
from fsm.verbs.reaching import wait_for
from fsm.verbs.roll import MOST_OF_PAGE, Page, Running, any_name, count, page
from fsm.verbs.sending import Sending, send_many, sending, sendings
from fsm.verbs.starting import announce, blueprint, enlist, first_payload, start_many
from fsm.verbs.steering import Steered, steer
from fsm.verbs.synching import synch
from fsm.verbs.timetable import TimerView, Timetable, timers_of, timetable
from fsm.verbs.verdicts import Verdict
from fsm.verbs.visits import Visit, visits
from fsm.verbs.waiting import JobView, ended, settle, standing, view, wait
from fsm.verbs.why import why

__all__ = [
    "MOST_OF_PAGE",
    "MOST_OF_QUERY",
    "STATUSES",
    "Agenda",
    "DeployCheck",
    "Drained",
    "EffectView",
    "EventView",
    "Filters",
    "Finding",
    "JobView",
    "Page",
    "Plan",
    "Running",
    "Sending",
    "Snapshots",
    "Steered",
    "TimerView",
    "Timetable",
    "Verdict",
    "Visit",
    "agenda",
    "allowed",
    "announce",
    "any_name",
    "blueprint",
    "carry",
    "check_deploy",
    "count",
    "count_finished",
    "counts",
    "drain",
    "ended",
    "enlist",
    "exists",
    "fail",
    "failure_data",
    "first_payload",
    "history",
    "indexed",
    "log_back",
    "log_end",
    "log_page",
    "machines",
    "note_of",
    "page",
    "purge",
    "purge_finished",
    "query",
    "read_filters",
    "read_log",
    "ready_queues",
    "run_again",
    "send_many",
    "sending",
    "sendings",
    "settle",
    "standing",
    "start_many",
    "state",
    "states",
    "steer",
    "succeed",
    "success_data",
    "synch",
    "timers_of",
    "timetable",
    "view",
    "visits",
    "wait",
    "wait_for",
    "why",
]
