"""Every error that this project raises, in one tree.

Who calls this: everyone. What it may import: nothing of ours.

Each message names the thing and what to do about it. Fields go to `Exception.__init__` and the text is built in
`__str__`, so that every error survives `pickle` and `copy` with its fields. Exceptions of redis and rq cross our
border only as `__cause__`.

    FSMError
      ConfigError
      DefinitionError
        DiagramError
        ValidationError
      UnknownMachineError   (LookupError)
      UnknownFSMError       (LookupError)
      UnknownHostError      (LookupError)
      FSMExistsError
      FSMFinishedError
      MailboxFullError
      KeyConflictError
      PayloadError          (ValueError)
      TransitionError
        RefusedError
          NotAllowedError
          RejectedError
          StaleVersionError
          InvalidDataError
        FailedError
          HandlerError
          HandlerTimeoutError
          AbandonedError
      CallTimeoutError      (TimeoutError)
      StaleLockError
      StoreError
      BackupError
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

__all__ = [
    "AbandonedError",
    "BackupError",
    "CallTimeoutError",
    "ConfigError",
    "DefinitionError",
    "DiagramError",
    "FSMError",
    "FSMExistsError",
    "FSMFinishedError",
    "FailedError",
    "HandlerError",
    "HandlerTimeoutError",
    "InvalidDataError",
    "KeyConflictError",
    "MailboxFullError",
    "NotAllowedError",
    "PayloadError",
    "RefusedError",
    "RejectedError",
    "StaleLockError",
    "StaleVersionError",
    "StoreError",
    "TransitionError",
    "UnknownFSMError",
    "UnknownHostError",
    "UnknownMachineError",
    "ValidationError",
]


class FSMError(Exception):
    """Root of all errors of this project: catch it to catch them all."""


class ConfigError(FSMError):
    """A setting, option or URL is wrong.

    Args:
        setting: What is wrong: the name of the option, variable or setting.
        problem: What is wrong with it and what is allowed.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(setting, problem)
        self.setting = setting
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.setting}: {self.problem}"


class DefinitionError(FSMError):
    """A machine is defined wrongly: its diagram, its handlers or its settings."""


class DiagramError(DefinitionError):
    """The text of a diagram cannot be read.

    Args:
        problem: What is wrong and what to write instead.
        line: Line number in the diagram, from 1.
        column: Column in that line, from 1.
        text: The line itself.
    """

    def __init__(self, problem: str, line: int = 0, column: int = 0, text: str = "") -> None:
        super().__init__(problem, line, column, text)
        self.problem = problem
        self.line = line
        self.column = column
        self.text = text

    def __str__(self) -> str:
        if not self.line:
            return self.problem
        return f"line {self.line}, column {self.column}: {self.problem}\n    {self.text.strip()}"


class ValidationError(DefinitionError):
    """A definition can be read but cannot work; all problems are reported together.

    Args:
        machine: Name of the machine, or "" for a bare diagram.
        problems: One sentence each: line, text and remedy.
    """

    def __init__(self, machine: str, problems: tuple[str, ...]) -> None:
        super().__init__(machine, problems)
        self.machine = machine
        self.problems = problems

    def __str__(self) -> str:
        of = f"machine {self.machine!r}" if self.machine else "diagram"
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n".join([f"{of} has {count}:", *(f"  - {problem}" for problem in self.problems)])


class UnknownMachineError(FSMError, LookupError):
    """No machine of this name is known here.

    Args:
        machine: The name asked for.
        known: The names that are known.
    """

    def __init__(self, machine: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(machine, known)
        self.machine = machine
        self.known = known

    def __str__(self) -> str:
        known = f"known are {', '.join(self.known)}" if self.known else "none are known"
        return f"unknown machine {self.machine!r}: {known}; pass the class, or name its module with --app or FSM_APP"


class UnknownFSMError(FSMError, LookupError):
    """No FSM of this name lives in this namespace.

    Args:
        name: The FSM's name.
        namespace: Where it was looked for.
        born: The life of the name that was meant; "" for whichever there is.
    """

    def __init__(self, name: str, namespace: str = "default", born: str = "") -> None:
        super().__init__(name, namespace, born)
        self.name = name
        self.namespace = namespace
        self.born = born

    def __str__(self) -> str:
        where = f"FSM {self.name!r} in namespace {self.namespace!r}"
        if self.born:
            return f"{where} is not the one born {self.born} any more: look at it again, it was purged or started anew"
        return f"no {where}: start it first, or check name and namespace"


class UnknownHostError(FSMError, LookupError):
    """No worker of a host of this name is alive.

    Args:
        host: The name asked for.
        alive: The hosts that are.
    """

    def __init__(self, host: str, alive: tuple[str, ...] = ()) -> None:
        super().__init__(host, alive)
        self.host = host
        self.alive = alive

    def __str__(self) -> str:
        close = get_close_matches(self.host, self.alive, n=1)
        meant = f", did you mean {close[0]!r}?" if close else ":"
        alive = f"alive are {', '.join(self.alive)}" if self.alive else "no host is alive"
        return f"no worker of host {self.host!r} is alive{meant} {alive}"


class FSMExistsError(FSMError):
    """An FSM of this name exists already, also when it has finished.

    Args:
        name: The FSM's name.
        namespace: Where it exists.
        machine: Its machine, or "" where that is not known.
    """

    def __init__(self, name: str, namespace: str = "default", machine: str = "") -> None:
        super().__init__(name, namespace, machine)
        self.name = name
        self.namespace = namespace
        self.machine = machine

    def __str__(self) -> str:
        of = f", of machine {self.machine!r}" if self.machine else ""
        return (
            f"FSM {self.name!r} exists already in namespace {self.namespace!r}{of}: use another name, or purge it first"
        )


class FSMFinishedError(FSMError):
    """The FSM has reached its end and takes no more events.

    Args:
        name: The FSM's name.
        state: Its last state, or "" where it is not known.
    """

    def __init__(self, name: str, state: str = "") -> None:
        super().__init__(name, state)
        self.name = name
        self.state = state

    def __str__(self) -> str:
        where = f" in state {self.state!r}" if self.state else ""
        return f"FSM {self.name!r} has finished{where} and takes no more events"


class MailboxFullError(FSMError):
    """The FSM's mailbox holds as many events as its machine allows.

    Args:
        name: The FSM's name.
        limit: `max_mailbox` of its machine.
    """

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit)
        self.name = name
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"mailbox of FSM {self.name!r} is full ({self.limit} events): "
            "wait for its workers, or raise Settings(max_mailbox=…)"
        )


class KeyConflictError(FSMError):
    """This key or job id was used before, for something else.

    Args:
        key: The key or job id.
        name: The FSM to which the present event was sent.
    """

    def __init__(self, key: str, name: str) -> None:
        super().__init__(key, name)
        self.key = key
        self.name = name

    def __str__(self) -> str:
        return (
            f"key {self.key!r} was used for another event than this one to {self.name!r}, or for other data: "
            "use a new key"
        )


class PayloadError(FSMError, ValueError):
    """A value is not JSON, not of its declared type, or too large.

    Args:
        problem: What is wrong and what is allowed.
        path: Where in the value, as in `$.items[2].price`; `$` is the whole value.
    """

    def __init__(self, problem: str, path: str = "$") -> None:
        super().__init__(problem, path)
        self.problem = problem
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class TransitionError(FSMError):
    """An event did not do what it was sent for.

    Args:
        name: The FSM's name.
        event: The event; "" where an operator's verb was refused, which is none.
        state: The FSM's state at that time.
        version: The FSM's version at that time.
        job_id: The RQ job of the event, or "" where there was none.
        reason: Why.
        details: More of it, by kind of error.
    """

    def __init__(  # noqa: PLR0913 - these are what every handler of the error is promised
        self,
        name: str,
        event: str,
        state: str = "",
        version: int = 0,
        job_id: str = "",
        reason: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        details = {} if details is None else details
        super().__init__(name, event, state, version, job_id, reason, details)
        self.name = name
        self.event = event
        self.state = state
        self.version = version
        self.job_id = job_id
        self.reason = reason
        self.details = details

    def __str__(self) -> str:
        where = f" in state {self.state!r}" if self.state else ""
        event = f"event {self.event!r} of " if self.event else ""
        return f"{event}FSM {self.name!r}{where}: {self.reason}"


class RefusedError(TransitionError):
    """The FSM refused the event and stays as it was: one `except` for every "4xx"."""


class NotAllowedError(RefusedError):
    """The event is not allowed in this state, or no guard holds; or its machine has no such event in any state."""

    @property
    def allowed(self) -> tuple[str, ...]:
        """Events that are allowed in this state; all events of the machine where `state` is ""."""
        return tuple(self.details.get("allowed", ()))

    def __str__(self) -> str:
        allowed = ", ".join(self.allowed) or "nothing"
        return f"{super().__str__()}; {'allowed here' if self.state else 'its events'}: {allowed}"


class RejectedError(RefusedError):
    """The handler said `Reject(reason, **details)`."""


class StaleVersionError(RefusedError):
    """It was sent, or asked for, with `if_version=`, and the FSM has moved on since; `details` has both versions."""


class InvalidDataError(RefusedError):
    """The event's data are not what its handler declares."""


class FailedError(TransitionError):
    """The event failed: one `except` for every "5xx"."""


class HandlerError(FailedError):
    """A handler, guard or hook raised, or decided something that the diagram does not allow."""

    @property
    def type(self) -> str:
        """Class name of what was raised."""
        return str(self.details.get("type", ""))

    @property
    def message(self) -> str:
        """Text of what was raised."""
        return str(self.details.get("message", ""))

    @property
    def traceback(self) -> str:
        """Traceback of what was raised, or "" where the fault was in the decision."""
        return str(self.details.get("traceback", ""))


class HandlerTimeoutError(FailedError):
    """The handler took longer than its machine's `timeout`."""


class AbandonedError(FailedError):
    """Workers died on this event more often than `max_attempts`."""


class CallTimeoutError(FSMError, TimeoutError):
    """Nobody answered in time; the event stays enqueued and may still be applied.

    Args:
        name: The FSM's name.
        event: The event; or what else was waited for, such as "state 'shipped'".
        job_id: The RQ job, with which one can go on waiting; "" where what was waited for is no event.
        seconds: How long was waited.
        why: What is known of the reason.
    """

    def __init__(self, name: str, event: str, job_id: str, seconds: float, why: str = "") -> None:
        super().__init__(name, event, job_id, seconds, why)
        self.name = name
        self.event = event
        self.job_id = job_id
        self.seconds = seconds
        self.why = why

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        if not self.job_id:
            return f"{self.event} of FSM {self.name!r} did not come about within {self.seconds:g} s{why}; call again"
        return (
            f"event {self.event!r} of FSM {self.name!r} was not applied within {self.seconds:g} s{why}; "
            f"it stays enqueued as job {self.job_id}"
        )


class StaleLockError(FSMError):
    """The lock of this FSM was lost before its commit: nothing was written.

    Args:
        name: The FSM's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the lock of FSM {self.name!r} was lost: nothing was written, another worker goes on with it"


class StoreError(FSMError):
    """Redis cannot be used: unreachable, too old, in cluster mode, full, read-only, or a key is not ours.

    Or a machine's storage cannot: no connection, a time-out, a table that is missing.

    Args:
        problem: What is wrong, with the URL (password masked) or the key, and what to try.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class BackupError(FSMError):
    """A backup cannot be written, or is not as it was written; nothing was touched.

    Args:
        path: Of the file or the directory.
        problem: What is wrong with it and what to do.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"backup {self.path}: {self.problem}"
