"""Plans that wait for an event's end, and what its record says then.

Who calls this: the client, and jobs that stock RQ workers run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import Outcome, inside
from fsm.errors import (
    AbandonedError,
    CallTimeoutError,
    FailedError,
    FSMFinishedError,
    HandlerError,
    HandlerTimeoutError,
    InvalidDataError,
    NotAllowedError,
    RefusedError,
    RejectedError,
    StaleVersionError,
    StoreError,
)
from fsm.store.ahead import Ticket
from fsm.store.codec import text
from fsm.store.requests import Request
from fsm.verbs.why import why

if TYPE_CHECKING:
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["JobView", "ended", "settle", "standing", "view", "wait"]

# A waiter looks again after so long, whatever it hears: its mark may have come after the claim, and is not seen then.
_SLICE_MS = 1000
_LEAST_WAIT_S = 0.001


@dataclass(frozen=True, slots=True)
class JobView:
    """What is known of a job: a word, the newest result id, and the parts of its end."""

    word: str
    newest: str
    name: str
    event: str
    result: dict[str, Any]
    text: str
    status: str


def view(keys: Keys, job_id: str) -> Request[JobView]:
    """Ask how an event ended."""
    return Request(_read_view, "ask", (keys.job(job_id), keys.result(job_id)))


def _read_view(reply: list[Any]) -> JobView:
    try:
        result = orjson.loads(reply[4]) if reply[4] else {}
    except ValueError:
        result = {}
    return JobView(
        text(reply[0]),
        text(reply[1]),
        text(reply[2]),
        text(reply[3]),
        result if isinstance(result, dict) else {},
        text(reply[5]),
        text(reply[6]),
    )


def wait(  # noqa: PLR0913 - what is waited for, and how long
    keys: Keys, job_id: str, name: str, event: str, timeout: float | None, *, just_sent: bool = False
) -> Plan[Outcome]:
    """Wait until an event has ended; say how, or raise its error.

    Args:
        keys: Of the namespace.
        job_id: The job.
        name: Its FSM, for the error.
        event: Its event, for the error.
        timeout: Seconds; `None` waits for ever.
        just_sent: It was sent a moment ago, with word that somebody waits: nobody has to ask whether it has ended.
    """
    inside.refuse_to_wait(f"waiting for {event!r} of FSM {name!r}")
    seen = yield from _end_of(keys, job_id, name, event, timeout, time.monotonic(), just_sent=just_sent)
    return ended(job_id, seen, name, event)


def settle(  # noqa: PLR0913 - as above
    keys: Keys, job_id: str, name: str, event: str, timeout: float | None, *, just_sent: bool = False
) -> Plan[Outcome]:
    """Wait until an event has ended, and all hard events that follow from it; say where the FSM has come to rest.

    Returns:
        What was sent, and its reply, with the state and version at the end. Where one of them failed and the diagram
        has an edge for that, it is not ok, and the reason is that of the first failure.

    Raises:
        RefusedError: It, or a hard event, was refused.
        FailedError: It, or a hard event, failed, and no `fails` edge led on.
        CallTimeoutError: One of them has not ended in time; its job is named.
    """
    inside.refuse_to_wait(f"waiting for {event!r} of FSM {name!r}")
    begin = time.monotonic()
    link, link_event = job_id, event
    first: Outcome | None = None
    ok, reason = True, ""
    while True:
        seen = yield from _end_of(keys, link, name, link_event, timeout, begin, just_sent=just_sent)
        just_sent = False
        outcome = _outcome_of(link, seen, name, link_event)
        first = first or outcome
        ok, reason = ok and outcome.ok, reason or outcome.reason
        following = seen.result.get("next")
        if not isinstance(following, str):
            return Outcome(name, event, outcome.state, outcome.version, job_id, ok, first.reply, reason)
        link, link_event = following, "the hard event that follows"


def _outcome_of(job_id: str, seen: JobView, name: str, event: str) -> Outcome:
    """Give the outcome of one link of a chain: a failure for which the diagram has an edge is one as well."""
    try:
        return ended(job_id, seen, name, event)
    except FailedError as error:
        if "fails" not in seen.result:
            raise
        return Outcome(error.name, error.event, error.state, error.version, job_id, ok=False, reason=error.reason)


def _end_of(  # noqa: PLR0913 - what is waited for, and how long
    keys: Keys, job_id: str, name: str, event: str, timeout: float | None, begin: float, *, just_sent: bool
) -> Plan[JobView]:
    """Wait until an event has ended, so long from `begin`; what was `just_sent` has hardly ended yet."""
    seen: JobView | None = None
    if not just_sent or (timeout is not None and timeout < _LEAST_WAIT_S):
        seen = yield view(keys, job_id)
    while seen is None or (seen.word == "WAITING" and not is_cancelled(seen)):
        left_ms = _SLICE_MS
        if timeout is not None:
            left_ms = min(_SLICE_MS, int((timeout - (time.monotonic() - begin)) * 1000))
            if left_ms <= 0:
                reason = yield from why(keys, name, job_id)
                raise CallTimeoutError(name, event if seen is None else seen.event or event, job_id, timeout, reason)
        result = ("XREAD", "COUNT", 1, "BLOCK", left_ms, "STREAMS", keys.result(job_id), seen.newest if seen else "0")
        # One behind the other: Redis looks at the record as soon as the result is there, and both replies come at once.
        sleep = yield Request(lambda reply: reply, commands=[result], is_ahead=True)
        look = yield replace(view(keys, job_id), is_ahead=True)
        if isinstance(sleep, Ticket):
            yield sleep
        seen = (yield look) if isinstance(look, Ticket) else look
    return seen


_NOT_ALLOWED = ("not_allowed", "guard")
_REFUSALS: dict[str, type[RefusedError]] = {
    "not_allowed": NotAllowedError,
    "guard": NotAllowedError,
    "rejected": RejectedError,
    "stale_version": StaleVersionError,
    "invalid_data": InvalidDataError,
}
_FAILURES: dict[str, type[FailedError]] = {
    "handler": HandlerError,
    "timeout": HandlerTimeoutError,
    "abandoned": AbandonedError,
}


def ended(job_id: str, seen: JobView, name: str, event: str) -> Outcome:
    """Turn the record of an ended event into its outcome, or raise its error.

    Raises:
        RefusedError: It was refused; the class says why.
        FailedError: It failed; or it was taken away by an operator.
        FSMFinishedError: The FSM had ended before it.
        StoreError: The record was edited by hand, and does not say how it ended.
    """
    name, event, result = seen.name or name, seen.event or event, seen.result
    state, version = str(result.get("state", "")), result.get("version", 0)
    allowed, details = result.get("allowed", []), result.get("details", {})
    if not isinstance(version, int) or not isinstance(allowed, list) or not isinstance(details, dict):
        raise StoreError(f"the result in job {job_id} of FSM {name!r} cannot be read: was it edited by hand?")
    if seen.word in ("MISSING", "GONE") or is_cancelled(seen):
        reason = result.get("reason") or {
            "MISSING": "its job has no record: it was deleted, or ended longer ago than result_ttl",
        }.get(seen.word, "an operator took it away before it was applied")
        raise FailedError(name, event, state, version, job_id, reason)
    if "refused" in result and not result.get("soft"):
        kind = result["refused"]
        if kind == "finished":
            raise FSMFinishedError(name, state)
        details = {"allowed": allowed} if kind in _NOT_ALLOWED else details
        reason = str(result.get("reason", ""))
        raise _REFUSALS.get(str(kind), RefusedError)(name, event, state, version, job_id, reason, details)
    if ("failed" in result and not result.get("soft")) or seen.word == "FAILED":
        message = str(result.get("message", seen.text))
        details = {"type": result.get("type", ""), "message": message, "traceback": seen.text}
        kind = _FAILURES.get(str(result.get("failed")), FailedError)
        error = kind(name, event, state, version, job_id, message, details)
        if seen.text and seen.text != message:
            # Where it is shown as an error that nobody caught, the handler's own lines are what one looks for.
            error.add_note(f"in the worker:\n{seen.text.rstrip()}")
        raise error
    if "version" not in result:
        raise StoreError(f"job {job_id} of FSM {name!r} has ended and has no result of ours: was it edited by hand?")
    ok = "refused" not in result and "failed" not in result
    reason = "" if ok else str(result.get("reason") or result.get("message", ""))
    return Outcome(name, event, state, version, job_id, ok, result.get("reply"), reason)


def is_cancelled(seen: JobView) -> bool:
    """Tell whether it was taken back before its end; RQ's tools write this also over what had ended."""
    return seen.status == "canceled" and seen.word in ("WAITING", "GONE")


def standing(seen: JobView) -> str:
    """Say in a word where a job stands."""
    if is_cancelled(seen):
        return "cancelled"
    if seen.word == "DONE":
        if "refused" in seen.result:
            return "refused"
        return "failed" if "failed" in seen.result else "done"
    return {"WAITING": "waiting", "FAILED": "failed", "GONE": "gone"}.get(seen.word, "unknown")
