"""What left an FSM, as a test sees it.

Who calls this: the trial makes these of what the engine put into its outbox; tests compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.engine.effects import path_of
from fsm.errors import PayloadError
from fsm.machine.values import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from fsm.engine import Effect

__all__ = ["OpenEffect", "SentEvent", "StartedFSM", "find_open", "open_effect"]


class SentEvent(NamedTuple):
    """An event for another FSM, `t.send(name, event, data)`; a plain tuple is equal to it.

    Args:
        name: The other FSM.
        event: The event.
        data: Its data, as they come out of their JSON.
    """

    name: str
    event: str
    data: Any


class StartedFSM(NamedTuple):
    """Another FSM, `t.start_fsm(machine, name, payload)`; a plain tuple is equal to it.

    Args:
        machine: Name of its machine.
        name: Its name.
        payload: Of the type of its machine.
    """

    machine: str
    name: str
    payload: Any


@dataclass(frozen=True, slots=True)
class OpenEffect:
    """An effect that has not been answered yet, `t.enqueue(func, …)`.

    Args:
        job_id: RQ's id of its job.
        func: Dotted path of the function.
        args: Its arguments, as they come out of their JSON.
        kwargs: Its keyword arguments.
        queue: RQ queue.
        on_success: Event that brings back what it returned, or None.
        on_failure: Event that brings back its last failure, or None.
        retries: Seconds before each retry.
        timeout: RQ's time-out, in seconds.
        deadline: Seconds after which it counts as failed, or None.
    """

    job_id: str
    func: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    queue: str
    on_success: str | None
    on_failure: str | None
    retries: tuple[int, ...]
    timeout: int
    deadline: float | None = None


def open_effect(effect: Effect) -> OpenEffect:
    """Read an effect as the process that runs it will: out of its JSON."""
    path, _, args, kwargs = JSON.decode(effect.call)
    return OpenEffect(
        effect.job_id,
        path,
        tuple(args),
        kwargs,
        effect.queue,
        effect.on_success or None,
        effect.on_failure or None,
        effect.waits,
        effect.seconds,
        None if effect.deadline_ms is None else effect.deadline_ms / 1000,
    )


def find_open(
    effects: Sequence[OpenEffect], answered: Container[str], wanted: OpenEffect | str | Callable[..., Any]
) -> OpenEffect:
    """Find an open effect: itself, or by its function, where only one of that is open.

    Args:
        effects: Those that are open.
        answered: Ids of those that were.
        wanted: The effect, its function, or the dotted path of that.

    Raises:
        PayloadError: It is not open, or it is not clear which one is meant.
    """
    others = f"open are {', '.join(one.func for one in effects)}" if effects else "none is open"
    if isinstance(wanted, OpenEffect):
        if wanted in effects:
            return wanted
        was = "was answered before" if wanted.job_id in answered else "is none of this trial"
        problem = f"effect {wanted.func} ({wanted.job_id}) {was}; {others}"
        raise PayloadError(problem, "effect")
    path = path_of(wanted)
    found = [one for one in effects if one.func == path]
    if len(found) == 1:
        return found[0]
    problem = f"no effect of {path} is open; {others}"
    if found:
        problem = f"{len(found)} effects of {path} are open: pass the one that is meant, as in t.enqueued[0]"
    raise PayloadError(problem, "effect")
