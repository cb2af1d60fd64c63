"""Faults that a test orders for a real worker process: where in its work, and what is to happen there.

A `FaultPoint` says it, an environment variable carries it to the process, and `workers.points` obeys. Whoever starts a
worker by other means than `fsm_worker` gives it that variable:

>>> FaultPoint("before commit", "kill").environment()
{'FSM_FAULTS': '[{"point":"before commit","action":"kill"}]'}

Who calls this: tests; and a worker that finds the variable when it starts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import orjson

from fsm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["VARIABLE", "Action", "FaultPoint", "Point", "ordered"]

VARIABLE = "FSM_FAULTS"
Point = Literal[
    "after claim",
    "before handler",
    "after handler",
    "before commit",
    "after store",
    "after commit sent",
    "after commit",
]
Action = Literal["kill", "stop", "delay"]


@dataclass(frozen=True, slots=True)
class FaultPoint:
    """One fault of a worker process: at a named point of its work it is killed, stopped or delayed.

    `after claim`: Redis has locked FSMs for it, and it knows. `before handler`, `after handler`: around each event,
    hard ones too. `before commit`: nothing of what was done is sent. `after store`: the machines' storages have it, and
    Redis does not; without a storage nobody comes there. `after commit sent`: Redis has it too, and the worker does not
    know what became of it. (A commit of what was done beside a slow handler is not sent ahead of its reply: there the
    reply has come, and was not looked at.) `after commit`: it knows.

    Args:
        point: Where.
        action: `kill` is SIGKILL. `stop` is SIGSTOP, and the test sends SIGCONT when it likes. `delay` is a sleep of
            the thread that is there: locks are renewed meanwhile.
        seconds: How long a delay is.
        nth: It happens when this process comes there for the nth time, and not again.
        name: Only work on this FSM counts; a claim or a commit of several counts if it is among them.
        once: Path of a file that is made when it happens, and keeps it from happening again: in a worker that is
            started anew, or in another one.

    Raises:
        ConfigError: There is no such point or action, or a value is not allowed.
    """

    point: Point
    action: Action
    seconds: float = 0.0
    nth: int = 1
    name: str | None = None
    once: str | Path | None = None

    def __post_init__(self) -> None:
        for what, given, known in (("point", self.point, get_args(Point)), ("action", self.action, get_args(Action))):
            if given not in known:
                raise _wrong(what, f"{given!r} is none of {', '.join(known)}")
        if type(self.nth) is not int or self.nth < 1:
            raise _wrong("nth", f"{self.nth!r} is not a whole number from 1 on")
        is_time = type(self.seconds) in (int, float) and 0 <= self.seconds <= 86_400  # noqa: PLR2004 - a day
        if not is_time or (self.action == "delay") != (self.seconds > 0):
            how = "more than 0 and at most 86400 for a delay, and 0 else: who stops a process lets it go on as well"
            raise _wrong("seconds", f"{self.seconds!r} must be {how}")
        if not isinstance(self.name, str | None):
            raise _wrong("name", f"{self.name!r} is no name of an FSM")
        if not isinstance(self.once, str | Path | None):
            raise _wrong("once", f"{self.once!r} is no path of a file")

    def environment(self) -> dict[str, str]:
        """Give what is to be added to the environment of a worker process."""
        return self.environment_of([self])

    @staticmethod
    def environment_of(faults: Iterable[FaultPoint]) -> dict[str, str]:
        """Give what is to be added to the environment of a process with several faults."""
        return {VARIABLE: orjson.dumps([fault._given() for fault in faults]).decode()}  # noqa: SLF001 - our own

    def _given(self) -> dict[str, Any]:
        """Say what is not as it is by itself, as JSON has it."""
        given = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                given[field.name] = str(value) if isinstance(value, Path) else value
        return given


def ordered(text: str) -> list[FaultPoint]:
    """Read what the variable says.

    Raises:
        ConfigError: It is not what `FaultPoint.environment` writes.
    """
    try:
        found = orjson.loads(text)
    except ValueError as error:
        raise ConfigError(VARIABLE, f"is no JSON ({error}): let FaultPoint.environment() write it") from error
    if not isinstance(found, list):
        raise ConfigError(VARIABLE, "must be a list of faults: let FaultPoint.environment() write it")
    known = {field.name for field in fields(FaultPoint)}
    faults = []
    for one in found:
        if not isinstance(one, dict) or not {"point", "action"} <= set(one) <= known:
            what = f"{one!r} is no fault: it has point and action, and may have {', '.join(sorted(known))}"
            raise ConfigError(VARIABLE, what)
        faults.append(FaultPoint(**one))
    return faults


def _wrong(what: str, problem: str) -> ConfigError:
    return ConfigError(f"FaultPoint({what})", problem)
