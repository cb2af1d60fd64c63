"""What both web applications say in HTTP: errors as status codes, an FSM as JSON, and what they check at the door.

One table for all errors, looked up along their tree: a class that is not in it is answered as its base is. The whole of
it, with what to do about each, is docs/errors.md.

Who calls this: `fastapi_app` and `django_app`. It knows neither of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from examples.onboarding.machine import Customer, Onboarding
from fsm import (
    CallTimeoutError,
    FSMError,
    FSMExistsError,
    FSMFinishedError,
    InvalidDataError,
    KeyConflictError,
    MailboxFullError,
    NotAllowedError,
    PayloadError,
    RefusedError,
    RejectedError,
    StaleVersionError,
    StoreError,
    TransitionError,
    UnknownFSMError,
)

if TYPE_CHECKING:
    from fsm import Outcome, Snapshot

__all__ = [
    "DECISIONS",
    "STATUS",
    "Answer",
    "account_in",
    "answer_to",
    "decision_in",
    "etag",
    "location",
    "shown",
    "status_of",
    "told",
    "version_in",
]

STATUS: dict[type[FSMError], int] = {
    FSMError: 500,  # FailedError and all its kinds, and mistakes of the program: ConfigError, DefinitionError, …
    UnknownFSMError: 404,
    FSMExistsError: 409,
    FSMFinishedError: 409,
    RefusedError: 409,
    NotAllowedError: 409,
    StaleVersionError: 412,
    PayloadError: 422,
    InvalidDataError: 422,
    RejectedError: 422,
    KeyConflictError: 422,  # draft-ietf-httpapi-idempotency-key-header, 2.7
    MailboxFullError: 429,
    StoreError: 503,
    CallTimeoutError: 504,  # 202 where it speaks of an event: that one is kept, and will be applied
}
# What a reviewer may send: the address takes no other event.
DECISIONS = ("approve", "decline")
_AGAIN_S = {429: "1", 503: "1", 504: "1"}
_ACCEPTED, _SERVER_ERRORS = 202, 500
_ACCOUNT = re.compile(r"[a-z][a-z0-9-]{1,31}")
_ETAG = re.compile(r'"(\d{1,15})"')


@dataclass(frozen=True)
class Answer:
    """An answer of HTTP, for whichever framework."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def status_of(error: FSMError) -> int:
    """Give the status code for an error: that of its class, or of the nearest base in the table."""
    if isinstance(error, CallTimeoutError) and error.job_id:
        return _ACCEPTED
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def answer_to(error: FSMError) -> Answer:
    """Answer an error, as RFC 9457 has it: with what the sender can use, and nothing that is only ours to know."""
    status = status_of(error)
    if isinstance(error, CallTimeoutError) and status == _ACCEPTED:
        return Answer(status, {"name": error.name, "job": error.job_id}, {"Location": location(error.name)})
    body: dict[str, Any] = {"title": type(error).__name__, "status": status}
    if status < _SERVER_ERRORS:
        body["detail"] = str(error)
    if isinstance(error, RefusedError):
        body |= {"detail": error.reason, "state": error.state}
    if isinstance(error, NotAllowedError):
        body["allowed"] = list(error.allowed)
    elif isinstance(error, RefusedError):
        body["details"] = error.details
    if isinstance(error, PayloadError):
        body["path"] = error.path
    if isinstance(error, TransitionError):
        # With it, whoever operates this finds the event and its traceback: rq's tools, or `fsm log`.
        body["job"] = error.job_id
    headers = {"Retry-After": _AGAIN_S[status]} if status in _AGAIN_S else {}
    return Answer(status, body, headers, "application/problem+json")


def account_in(body: dict[str, Any]) -> str:
    """Read the account that a sign-up asks for: it becomes the name of the FSM, and a part of addresses.

    Raises:
        PayloadError: It is no name of an account.
    """
    account = body.get("account")
    if not isinstance(account, str) or not _ACCOUNT.fullmatch(account):
        problem = f"an account is 2 to 32 of a-z, 0-9 and -, beginning with a letter, not {account!r}"
        raise PayloadError(problem, "account")
    return account


def decision_in(body: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Read what a reviewer decided: the event and its data.

    Raises:
        PayloadError: It is no decision.
    """
    decision = body.get("decision")
    if decision not in DECISIONS:
        problem = f"a decision is {' or '.join(DECISIONS)}, not {decision!r}"
        raise PayloadError(problem, "decision")
    return decision, None if decision == "approve" else {"reason": body.get("reason", "")}


def version_in(if_match: str | None) -> int:
    """Read `If-Match`: the version of the snapshot that was looked at.

    Raises:
        PayloadError: It is not there, or no `ETag` of ours.
    """
    found = _ETAG.fullmatch(if_match or "")
    if found is None:
        problem = f'If-Match is the ETag of what was looked at, such as "5", not {if_match!r}'
        raise PayloadError(problem, "If-Match")
    return int(found[1])


def etag(snapshot: Snapshot) -> str:
    """Give the version as HTTP writes it."""
    return f'"{snapshot.version}"'


def location(name: str) -> str:
    """Give the address of a sign-up."""
    return f"/signups/{quote(name, safe='')}"


def told(outcome: Outcome) -> dict[str, Any]:
    """Tell how an event ended."""
    return {"name": outcome.name, "state": outcome.state, "version": outcome.version}


def shown(snapshot: Snapshot) -> dict[str, Any]:
    """Show a sign-up, without what proves that a mail was read."""
    customer: Customer = snapshot.payload
    return {
        "name": snapshot.name,
        "state": snapshot.state,
        "version": snapshot.version,
        "allowed": list(Onboarding.graph.allowed(snapshot.state)),
        "email": customer.email,
        "profile": customer.profile and vars(customer.profile),
        "problem": customer.problem,
        "reviewer": customer.reviewer,
    }
