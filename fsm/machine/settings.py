"""Settings of a machine and its retry policy: frozen, checked when made, inherited field by field.

Who calls this: users in the body of a machine; the machine merges them with those of its bases; engine, store and
workers read them. PURE: imports `fsm.errors` and its neighbours in this room only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, final, get_args

from fsm.errors import ConfigError, PayloadError
from fsm.machine.durations import Duration, duration_ms

__all__ = [
    "AUDIT_LENGTH",
    "EFFECTS_QUEUE",
    "OTHERS",
    "PAYLOAD_LIMIT",
    "UNSET",
    "RetryPolicy",
    "Settings",
    "Unset",
    "check_size",
]

# The RQ queue of effects that name no other.
EFFECTS_QUEUE = "fsm-effects"


@final
class Unset:
    """The type of `UNSET`, which says that a setting was not given and is inherited."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()

# In a time-out for each event: all that are not named. No event can have this name.
OTHERS = "*"

Refusal: TypeAlias = Literal["error", "ignore"]
Overdue: TypeAlias = Literal["fire", "skip", "restart"]
Placement: TypeAlias = Literal["any", "ring"]

_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_FORBIDDEN_QUEUES = {
    "default": "RQ's own queue of that name carries other jobs",
    EFFECTS_QUEUE: "that queue carries effects, which would hold up transitions",
}
_MINUTE_MS = 60_000
# `payload_limit` where no machine is at hand that says another one.
PAYLOAD_LIMIT = 1_048_576
# Of how many events `Settings(audit=True)` keeps what became of them.
AUDIT_LENGTH = 10_000
# What a Redis string can hold at most.
_LARGEST_PAYLOAD = 512 * 1024 * 1024
_LONGEST_MACHINE_NAME = 200


def check_size(raw: bytes, what: str, limit: int = PAYLOAD_LIMIT) -> bytes:
    """Give back JSON that is small enough to be kept.

    Args:
        raw: The JSON.
        what: What it is, with its verb, as in "the payload has".
        limit: `payload_limit` of the machine; without one at hand the default.

    Raises:
        PayloadError: It is larger.
    """
    if len(raw) > limit:
        problem = f"{what} {len(raw)} bytes, and Settings(payload_limit=…) allows {limit}"
        raise PayloadError(problem)
    return raw


@dataclass(frozen=True)
class RetryPolicy:
    """How often and when what failed is tried again: events by `Settings(retry=…)`, effects by `t.enqueue(retry=…)`.

    While an event waits to be tried again, the mail of its FSM waits behind it; other FSMs do not notice.

    Args:
        attempts: Runs in all, the first included: 1 is no retry.
        delay: Wait before the second run.
        factor: Each further wait is so many times the one before, at least 1.
        max_delay: No wait is longer, chance aside.
        jitter: Each wait is by chance up to this part shorter or longer, 0 to 1.
        on: Exceptions after which it is tried again, `TimeoutError` (or `OSError`, its base) for the time-out of a
            handler; all others fail at once, and so do answers that the diagram does not allow.

    Raises:
        ConfigError: A value is not allowed.
    """

    attempts: int = 5
    delay: Duration = "1s"
    factor: float = 2.0
    max_delay: Duration = "5m"
    jitter: float = 0.1
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        _whole("RetryPolicy(attempts)", self.attempts, 1, 1_000_000)
        _number("RetryPolicy(factor)", self.factor, 1, 1_000)
        _number("RetryPolicy(jitter)", self.jitter, 0, 1)
        if self.max_delay_ms < self.delay_ms:
            problem = f"{self.max_delay!r} is shorter than delay={self.delay!r}: raise it or lower the delay"
            raise ConfigError("RetryPolicy(max_delay)", problem)
        kinds: Any = self.on
        is_tuple = isinstance(kinds, tuple) and bool(kinds)
        if not is_tuple or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise ConfigError("RetryPolicy(on)", f"{self.on!r} is not a tuple of exception classes such as (OSError,)")

    @property
    def delay_ms(self) -> int:
        """Wait before the second run."""
        return duration_ms(self.delay, "RetryPolicy(delay)")

    @property
    def max_delay_ms(self) -> int:
        """Longest wait."""
        return duration_ms(self.max_delay, "RetryPolicy(max_delay)")


@dataclass(frozen=True, init=False)
class Settings:
    """Settings of a machine. Each that is not given comes from the machine's bases, else it is the default.

    Args:
        name: Name of the machine, in keys and on the command line; by default the class's. It is not inherited.
        queue: RQ queue of its transitions; None is the queue of the namespace.
        timeout: Longest run of one handler, of all events or one by one: `{"report": "10m", "*": "30s"}`, where "*" is
            all others.
        retry: When events that failed are tried again: a policy for all of them, or one per event; None is never.
        max_attempts: How many workers may die on one event before it is abandoned.
        endless: Its FSMs need not reach an end: the check for one is left out.
        history: How many last states a snapshot keeps.
        payload_limit: Largest payload as JSON, in bytes; likewise the data of an event, a reply, the arguments of an
            effect and what it returns.
        max_mailbox: Most events that may wait for one FSM.
        result_ttl: How long the record of a done event is kept; at least 60 s.
        failure_ttl: How long the record of a failed event is kept; at least 60 s.
        dedup: How long the `key=` of a send is remembered.
        refused: Event -> "error", or "ignore" for events whose refusal is nothing to complain of.
        timer: Interval of `on_timer`, from the end of one to the next; None is never.
        overdue: What becomes of a timer that was due while no worker was there: "fire" at once, "skip" it, or "restart"
            it with its whole length.
        placement: "any" worker takes an FSM, or those of the host that the "ring" names take it first.
        definition_version: Yours to raise when payloads change their shape.
        keep_finished: How long an FSM that has finished is kept, at least 60 s; None is until somebody purges it.
        audit: What became of each event is kept with its FSM: of the last 10,000, or of so many as are said here.

    Raises:
        ConfigError: A value is not allowed; the text names the setting, the value and what is allowed.
    """

    name: str
    queue: str | None
    timeout: Duration | Mapping[str, Duration]
    retry: RetryPolicy | Mapping[str, RetryPolicy] | None
    max_attempts: int
    endless: bool
    history: int
    payload_limit: int
    max_mailbox: int
    result_ttl: Duration
    failure_ttl: Duration
    dedup: Duration
    refused: Mapping[str, Refusal]
    timer: Duration | None
    overdue: Overdue
    placement: Placement
    definition_version: int
    keep_finished: Duration | None
    audit: bool | int

    def __init__(  # noqa: PLR0913 - one keyword a setting: that is what users write
        self,
        *,
        name: str | Unset = UNSET,
        queue: str | Unset | None = UNSET,
        timeout: Duration | Mapping[str, Duration] | Unset = UNSET,
        retry: RetryPolicy | Mapping[str, RetryPolicy] | Unset | None = UNSET,
        max_attempts: int | Unset = UNSET,
        endless: bool | Unset = UNSET,
        history: int | Unset = UNSET,
        payload_limit: int | Unset = UNSET,
        max_mailbox: int | Unset = UNSET,
        result_ttl: Duration | Unset = UNSET,
        failure_ttl: Duration | Unset = UNSET,
        dedup: Duration | Unset = UNSET,
        refused: Mapping[str, Refusal] | Unset = UNSET,
        timer: Duration | Unset | None = UNSET,
        overdue: Overdue | Unset = UNSET,
        placement: Placement | Unset = UNSET,
        definition_version: int | Unset = UNSET,
        keep_finished: Duration | Unset | None = UNSET,
        audit: bool | int | Unset = UNSET,
    ) -> None:
        arguments: dict[str, Any] = {
            "name": name,
            "queue": queue,
            "timeout": timeout,
            "retry": retry,
            "max_attempts": max_attempts,
            "endless": endless,
            "history": history,
            "payload_limit": payload_limit,
            "max_mailbox": max_mailbox,
            "result_ttl": result_ttl,
            "failure_ttl": failure_ttl,
            "dedup": dedup,
            "refused": refused,
            "timer": timer,
            "overdue": overdue,
            "placement": placement,
            "definition_version": definition_version,
            "keep_finished": keep_finished,
            "audit": audit,
        }
        given = {key: value for key, value in arguments.items() if value is not UNSET}
        for key in ("timeout", "retry", "refused"):
            # A mapping of the caller's may change later; frozen settings must not.
            if isinstance(given.get(key), Mapping):
                given[key] = MappingProxyType(dict(given[key]))
        for key, value in {**_DEFAULTS, **given}.items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "_given", given)
        self._check()

    def inherit(self, base: Settings) -> Settings:
        """Give these settings with those of `base` where nothing was given here; the name is not inherited."""
        theirs = {key: value for key, value in base.given.items() if key != "name"}
        return Settings(**{**theirs, **self.given})

    @property
    def given(self) -> Mapping[str, Any]:
        """What was given, as opposed to what is default."""
        given: dict[str, Any] = self.__dict__["_given"]
        return given

    @cached_property
    def timeout_ms(self) -> int:
        """Longest run of the handler of an event that has no time-out of its own."""
        others = self.timeout.get(OTHERS, _DEFAULTS["timeout"]) if isinstance(self.timeout, Mapping) else self.timeout
        return duration_ms(others, "Settings(timeout)")

    @cached_property
    def _timeouts(self) -> dict[str, int]:
        """Those events that have one of their own, each with its longest run in ms."""
        own = self.timeout if isinstance(self.timeout, Mapping) else {}
        return {event: duration_ms(time, "Settings(timeout)") for event, time in own.items() if event != OTHERS}

    @cached_property
    def longest_timeout_ms(self) -> int:
        """Longest run of any handler."""
        return max((self.timeout_ms, *self._timeouts.values()))

    @cached_property
    def result_ttl_ms(self) -> int:
        """How long the record of a done event is kept."""
        return duration_ms(self.result_ttl, "Settings(result_ttl)")

    @cached_property
    def failure_ttl_ms(self) -> int:
        """How long the record of a failed event is kept."""
        return duration_ms(self.failure_ttl, "Settings(failure_ttl)")

    @cached_property
    def dedup_ms(self) -> int:
        """How long the `key=` of a send is remembered."""
        return duration_ms(self.dedup, "Settings(dedup)")

    @cached_property
    def timer_ms(self) -> int | None:
        """Interval of `on_timer`; None is never."""
        return None if self.timer is None else duration_ms(self.timer, "Settings(timer)")

    @cached_property
    def keep_finished_ms(self) -> int | None:
        """How long an FSM that has finished is kept; None is until somebody purges it."""
        return None if self.keep_finished is None else duration_ms(self.keep_finished, "Settings(keep_finished)")

    @cached_property
    def audit_length(self) -> int:
        """Of how many events it is kept with an FSM what became of them; 0 where that is not wanted."""
        return AUDIT_LENGTH if self.audit is True else int(self.audit)

    def timeout_for(self, event: str) -> int:
        """Give the longest run of the handler of one event, in ms."""
        return self._timeouts.get(event, self.timeout_ms)

    def retry_for(self, event: str) -> RetryPolicy | None:
        """Give the policy of one event; `None` where it is not tried again by itself."""
        return self.retry.get(event) if isinstance(self.retry, Mapping) else self.retry

    def _check(self) -> None:
        if "name" in self.given:
            _check_name(self.name)
        _check_queue(self.queue)
        for time in self.timeout.values() if isinstance(self.timeout, Mapping) else (self.timeout,):
            _positive("Settings(timeout)", time, 1)
        _positive("Settings(result_ttl)", self.result_ttl, _MINUTE_MS)
        _positive("Settings(failure_ttl)", self.failure_ttl, _MINUTE_MS)
        _positive("Settings(dedup)", self.dedup, 1)
        if self.timer is not None:
            _positive("Settings(timer)", self.timer, 1)
        if self.keep_finished is not None:
            _positive("Settings(keep_finished)", self.keep_finished, _MINUTE_MS)
        _whole("Settings(max_attempts)", self.max_attempts, 1, 1_000_000)
        _whole("Settings(history)", self.history, 0, 10_000)
        _whole("Settings(payload_limit)", self.payload_limit, 2, _LARGEST_PAYLOAD)
        _whole("Settings(max_mailbox)", self.max_mailbox, 1, 1_000_000_000)
        _whole("Settings(definition_version)", self.definition_version, 1, 2**53)
        if not isinstance(self.endless, bool):
            raise ConfigError("Settings(endless)", f"{self.endless!r} is not allowed: use True or False")
        if not isinstance(self.audit, bool):
            _whole("Settings(audit)", self.audit, 1, 1_000_000_000)
        _check_retry(self.retry)
        _check_refused(self.refused)
        _one_of("Settings(overdue)", self.overdue, get_args(Overdue))
        _one_of("Settings(placement)", self.placement, get_args(Placement))


_DEFAULTS: dict[str, Any] = {
    "name": "",
    "queue": None,
    "timeout": "180s",
    "retry": None,
    "max_attempts": 3,
    "endless": False,
    "history": 5,
    "payload_limit": PAYLOAD_LIMIT,
    "max_mailbox": 10_000,
    "result_ttl": "60s",
    "failure_ttl": "30d",
    "dedup": "1d",
    "refused": MappingProxyType({}),
    "timer": None,
    "overdue": "fire",
    "placement": "any",
    "definition_version": 1,
    "keep_finished": None,
    "audit": False,
}


def _check_name(name: Any) -> None:
    good = isinstance(name, str) and name == name.strip() and 0 < len(name) <= _LONGEST_MACHINE_NAME
    if not good or ":" in name or not name.isprintable():
        allowed = "use printable text of 1 to 200 characters without colons, which divide the keys of Redis"
        raise ConfigError("Settings(name)", f"{name!r} is no name for a machine: {allowed}")


def _check_queue(queue: Any) -> None:
    if queue is None:
        return
    if not isinstance(queue, str) or not _QUEUE.fullmatch(queue):
        allowed = "use 1 to 200 of the characters A-Z a-z 0-9 _ . -"
        raise ConfigError("Settings(queue)", f"{queue!r} is not allowed: {allowed}")
    if queue in _FORBIDDEN_QUEUES:
        raise ConfigError("Settings(queue)", f"{queue!r} is not allowed, {_FORBIDDEN_QUEUES[queue]}: use another name")


def _check_retry(retry: Any) -> None:
    policies = retry.values() if isinstance(retry, Mapping) else () if retry is None else (retry,)
    if not all(isinstance(policy, RetryPolicy) for policy in policies):
        allowed = 'use RetryPolicy(…), {"event": RetryPolicy(…)} or None'
        shown = dict(retry) if isinstance(retry, Mapping) else retry
        raise ConfigError("Settings(retry)", f"{shown!r} is not allowed: {allowed}")


def _check_refused(refused: Any) -> None:
    allowed = 'use {"event": "ignore"} or {"event": "error"}'
    if not isinstance(refused, Mapping) or not all(value in ("error", "ignore") for value in refused.values()):
        shown = dict(refused) if isinstance(refused, Mapping) else refused
        raise ConfigError("Settings(refused)", f"{shown!r} is not allowed: {allowed}")


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise ConfigError(what, f"{value!r} is not allowed: use {', '.join(others)} or {last}")


def _positive(what: str, value: Any, least_ms: int) -> None:
    if duration_ms(value, what) < least_ms:
        least = f"at least {least_ms // 1000} s" if least_ms >= _MINUTE_MS else "more than 0"
        raise ConfigError(what, f"{value!r} is too short: it must be {least}")


def _whole(what: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(what, f"{value!r} is not allowed: use a whole number from {least} to {most}")


def _number(what: str, value: Any, least: float, most: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if not is_number or not least <= value <= most:
        raise ConfigError(what, f"{value!r} is not allowed: use a number from {least} to {most}")
