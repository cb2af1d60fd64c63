"""Plans that look: at FSMs, machines, lists and the log. They write nothing.

Who calls this: the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import checked_name, inside
from fsm.errors import StoreError, UnknownFSMError, UnknownMachineError
from fsm.store.codec import Snapshot, damaged, read_snapshot, text
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fsm.machine import Definition
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = [
    "all_pairs",
    "allowed",
    "counts",
    "exists",
    "indexed",
    "log_back",
    "log_end",
    "log_page",
    "machines",
    "read_log",
    "ready_queues",
    "state",
    "states",
]

_LOG_PAGE = 100


def state(keys: Keys, name: str) -> Plan[Snapshot]:
    """Read one FSM."""
    found = yield from states(keys, [name])
    if found[0] is None:
        raise UnknownFSMError(name, keys.namespace)
    return found[0]


def states(keys: Keys, names: Sequence[str], *, damaged_too: bool = False) -> Plan[list[Snapshot | None]]:
    """Read many FSMs in one round trip; `None` for a name that is not there.

    Args:
        keys: Of the namespace.
        names: The FSMs.
        damaged_too: Give one that cannot be read with status "damaged" and the reason as its `error`.

    Raises:
        StoreError: A snapshot was edited by hand and cannot be read.
    """
    if not names:
        return []
    commands = [("HGETALL", keys.snapshot(checked_name(name))) for name in names]
    try:
        replies = yield Request(lambda reply: reply, commands=commands)
    except StoreError as error:
        if len(names) == 1 and "WRONGTYPE" in error.problem:
            # Redis does not say of which key it speaks.
            problem = (
                f"key {keys.snapshot(names[0])} should be the snapshot of FSM {names[0]!r}, a hash: {error.problem}"
            )
            raise StoreError(problem) from error
        if damaged_too and "WRONGTYPE" in error.problem:
            return (yield from _one_by_one(keys, names))
        raise
    if len(commands) == 1:
        replies = [replies]
    found: list[Snapshot | None] = []
    for name, fields in zip(names, replies, strict=True):
        known = bool(fields) and fields.get(b"status") != b"purging"
        try:
            found.append(read_snapshot(name, fields, keys.default_queue) if known else None)
        except StoreError as error:
            if not damaged_too:
                raise
            found.append(damaged(name, fields, str(error)))
    return found


def _one_by_one(keys: Keys, names: Sequence[str]) -> Plan[list[Snapshot | None]]:
    """Read FSMs each by itself, where a key of one of them is of another type: so that the others can be told."""
    found: list[Snapshot | None] = []
    for name in names:
        try:
            found += yield from states(keys, [name])
        except StoreError as error:
            found.append(damaged(name, {}, str(error)))
    return found


def exists(keys: Keys, name: str) -> Request[bool]:
    """Ask whether an FSM of this name is there, finished ones included."""
    command = ("HMGET", keys.snapshot(checked_name(name)), "born", "status")
    return Request(lambda reply: reply[0] is not None and reply[1] != b"purging", commands=[command])


def machines(keys: Keys) -> Request[dict[str, dict[str, Any]]]:
    """Read the machines that workers and starters have announced."""

    def read(reply: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
        known = {}
        for name, about in sorted(reply.items()):
            try:
                known[text(name)] = _announced(orjson.loads(about))
            except ValueError as error:
                problem = f"machine {text(name)!r} in {keys.machines} cannot be read ({error}): a worker writes it anew"
                raise StoreError(problem) from error
        return known

    return Request(read, commands=[("HGETALL", keys.machines)])


def _announced(about: Any) -> dict[str, Any]:
    """Check what of an announcement is used without a further look.

    Raises:
        ValueError: It was edited by hand and is not of our form.
    """
    if not isinstance(about, dict):
        problem = "it is no object"
        raise ValueError(problem)  # noqa: TRY004 - as orjson's, for the one caller
    allowed, queue = about.get("allowed", {}), about.get("queue", "")
    events = list(allowed.values()) if isinstance(allowed, dict) else [None]
    lists = [about.get("states", []), *events]
    if not isinstance(queue, str) or not all(
        isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists
    ):
        problem = "it does not say which states there are, or which events they allow"
        raise ValueError(problem)
    return about


def indexed(keys: Keys) -> Request[list[tuple[str, str]]]:
    """Read which states any machine has ever had: pairs of machine and state, those of older diagrams too."""

    def read(reply: Iterable[bytes]) -> list[tuple[str, str]]:
        parts = (text(member).partition(":") for member in reply)
        return sorted((machine, state_name) for machine, _, state_name in parts)

    return Request(read, commands=[("SMEMBERS", keys.states)])


def all_pairs(keys: Keys, known: Mapping[str, Mapping[str, Any]]) -> Plan[list[tuple[str, str]]]:
    """Give all machines with their states, in the order of their diagrams; behind them states of older diagrams."""
    pairs = [(machine, name) for machine, about in known.items() for name in about.get("states", ())]
    older = yield indexed(keys)
    return list(dict.fromkeys([*pairs, *older]))


def counts(keys: Keys) -> Plan[dict[str, dict[str, int]]]:
    """Count the FSMs of each machine in each of its states, finished ones included."""
    known = yield machines(keys)
    pairs = yield from all_pairs(keys, known)
    if not pairs:
        return {}
    commands = [("ZCARD", key(*pair)) for pair in pairs for key in (keys.state, keys.finished_of)]
    replies = yield Request(lambda reply: reply, commands=commands, is_atomic=True)
    found: dict[str, dict[str, int]] = {machine: {} for machine in known}
    for at, (machine, name) in enumerate(pairs):
        count = int(replies[2 * at]) + int(replies[2 * at + 1])
        # States that no diagram has any more are of interest while FSMs are left in them.
        if count or name in known.get(machine, {}).get("states", ()):
            found.setdefault(machine, {})[name] = count
    return found


def log_page(
    keys: Keys, name: str | None, after: str, block_ms: int | None = None
) -> Plan[tuple[list[dict[str, Any]], str | None]]:
    """Read one page of the log, and say after which entry the next one begins.

    Args:
        keys: Of the namespace.
        name: Only this FSM.
        after: Id of an entry; "$" is the newest one.
        block_ms: Wait so long where there is nothing.

    Returns:
        Transitions, and the next `after`; `None` where nothing came and nobody waited.
    """
    if block_ms is not None:
        inside.refuse_to_wait("following the log")
    if after == "$":
        after = yield log_end(keys)
    lines = yield read_log(keys, after, block_ms)
    if not lines:
        return [], None if block_ms is None else after
    return [line for _, line in lines if name is None or line.get("name") == name], lines[-1][0]


def allowed(keys: Keys, name: str, definition: Definition | None) -> Plan[tuple[str, ...]]:
    """Say which events an FSM would take now; by the class, or by what was announced of its machine.

    Raises:
        UnknownFSMError: There is none of this name.
        UnknownMachineError: The class was not given, and its machine was never announced.
    """
    snapshot = yield from state(keys, name)
    if snapshot.status == "finished":
        return ()
    if definition is not None and definition.name == snapshot.machine:
        return definition.graph.allowed(snapshot.state)
    known = yield machines(keys)
    if snapshot.machine not in known:
        raise UnknownMachineError(snapshot.machine, tuple(known))
    return tuple(known[snapshot.machine].get("allowed", {}).get(snapshot.state, ()))


def log_end(keys: Keys) -> Request[str]:
    """Read the id of the newest entry of the log."""
    command = ("XREVRANGE", keys.log, "+", "-", "COUNT", 1)
    return Request(lambda reply: text(reply[0][0]) if reply else "0-0", commands=[command])


def read_log(keys: Keys, after: str, block_ms: int | None = None) -> Request[list[tuple[str, dict[str, Any]]]]:
    """Read the log after an entry: pairs of the entry's id and one transition; blocking, where told so."""
    command: tuple[Any, ...] = ("XREAD", "COUNT", _LOG_PAGE, "STREAMS", keys.log, after)
    if block_ms is not None:
        command = ("XREAD", "COUNT", _LOG_PAGE, "BLOCK", block_ms, "STREAMS", keys.log, after)

    def read(reply: Any) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        for _, entries in reply or ():
            for entry_id, fields in entries:
                found.extend(_lines(text(entry_id), fields))
        return found

    return Request(read, commands=[command])


def log_back(keys: Keys, before: str) -> Request[tuple[list[dict[str, Any]], str | None]]:
    """Read a page of the log backwards, from an entry on ("+" is the newest): transitions, the newest first.

    Returns:
        They, and where the next page begins; `None` after the last.
    """

    def read(entries: Any) -> tuple[list[dict[str, Any]], str | None]:
        found: list[dict[str, Any]] = []
        for entry_id, fields in entries:
            found.extend(line for _, line in reversed(list(_lines(text(entry_id), fields))))
        return found, f"({text(entries[-1][0])}" if len(entries) == _LOG_PAGE else None

    return Request(read, commands=[("XREVRANGE", keys.log, before, "-", "COUNT", _LOG_PAGE)])


def _lines(entry_id: str, fields: Mapping[bytes, bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    worker = text(fields.get(b"worker"))
    at_ms = int(entry_id.partition("-")[0])
    lines = _told(fields.get(b"transitions", b"[]"))
    for line in lines if lines is not None else [{"error": f"entry {entry_id} cannot be read: was it edited by hand?"}]:
        yield entry_id, {**line, "worker": worker, "at_ms": at_ms}


def _told(raw: bytes) -> list[dict[str, Any]] | None:
    """Read the transitions of one entry of the log; `None` where it is not of our form."""
    try:
        lines = orjson.loads(raw)
    except ValueError:
        return None
    return lines if isinstance(lines, list) and all(isinstance(line, dict) for line in lines) else None


def ready_queues(keys: Keys) -> Plan[list[str]]:
    """Name the queues on which FSMs of this namespace are ready."""
    lists = yield Request(lambda reply: sorted(map(text, reply)), commands=[("SMEMBERS", keys.rq_lists())])
    queues = [keys.queue_of(one) for one in lists]
    if not queues:
        return []
    commands = [("ZCARD", keys.ready(queue)) for queue in queues]
    counts = yield Request(lambda reply: reply if len(commands) > 1 else [reply], commands=commands)
    return [queue for queue, count in zip(queues, counts, strict=True) if count]
