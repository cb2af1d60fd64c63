"""Plans that take FSMs out of Redis while they run, and give them as lines.

All that are there from the beginning to the end are met, for their names come by SCAN, which no move of an FSM touches:
by their states, one that moves from a state that is yet to be read into one that was read would be left out. Each is
taken as it was at one moment, and whole; two of them may be of different moments.

Who calls this: the client, by `fsm.archive`. It may import the store, the verbs and what lies beside it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from fsm.backup.form import (
    SavedLog,
    SavedResting,
    fields_of,
    resting_fsm,
    saved_event,
    saved_fsm,
    saved_machine,
    text_of,
)
from fsm.backup.resting import resting
from fsm.errors import StoreError, UnknownFSMError
from fsm.store import dumping
from fsm.store.ahead import Ticket
from fsm.store.codec import text
from fsm.verbs import log_back
from fsm.verbs.verdicts import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsm.backup.form import SavedEvent, SavedFSM, SavedMachine
    from fsm.backup.resting import Resting
    from fsm.store.dumping import Dumped
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

    Write = Callable[[SavedMachine | SavedFSM | SavedResting | SavedLog], None]

__all__ = ["export", "line_of", "save"]

R = TypeVar("R")
# Calls under way at once: one is executed by Redis, one is on its way, and the reply to one is read here.
_MOST_AHEAD = 4


def save(keys: Keys, write: Write) -> Plan[list[str]]:
    """Give all that there is of a namespace, a line at a time: machines, then FSMs.

    Memory does not grow with their number. A name may come twice, where Redis makes its table of keys smaller then:
    the later line is not the older one. A restore takes the first, and tells of the second where that is newer.

    Returns:
        Names of FSMs that could not be read, since a key of them is of another type.
    """
    for name, about in (yield dumping.announced(keys)):
        write(saved_machine(name, about))
    return (yield from _Save(keys, write).run())


class _Save:
    """What is asked for, and what became of it.

    Most FSMs rest, and have nothing but a snapshot. Plain commands cost Redis half of what a script does: by them it is
    asked who has nothing else, then for the snapshots, then since when these are in their states. That is as if all
    were asked at once: who was written before the first of the three stood like this then, and who has moved since is
    no longer in the index of that state, or has come into it after its snapshot was written. These are read by the
    script, and so are all that have more than a snapshot.

    Args:
        keys: Of the namespace.
        write: Is given each line, and many at once of those that rest.
    """

    def __init__(self, keys: Keys, write: Write) -> None:
        self._keys = keys
        self._write = write
        self._broken: list[str] = []
        # Names that are yet to be asked for, and those that are the script's.
        self._names: list[bytes] = []
        self._others: list[bytes] = []
        # So many are asked for in one call of the script; and whether most of them have more than a snapshot.
        self._portion = dumping.MOST_DUMPED
        self._are_busy = False
        self._under_way: deque[Callable[[], Plan[None]]] = deque()

    def run(self) -> Plan[list[str]]:
        page = yield dumping.names(self._keys, 0)
        while page is not None or self._names or self._others or self._under_way:
            if page is not None and len(self._names) < dumping.MOST_AT_REST:
                cursor, found = yield from _reply(page)
                page = (yield dumping.names(self._keys, cursor)) if cursor else None
                # Those of one page are all different, and there may be a few of the one before.
                self._names += found
            elif len(self._under_way) < _MOST_AHEAD and (self._names or self._others):
                yield from self._ask(is_last=page is None and not self._names)
            else:
                yield from self._under_way.popleft()()
        return self._broken

    def _ask(self, *, is_last: bool) -> Plan[None]:
        if self._others and (is_last or len(self._others) >= self._portion):
            part, self._others = self._others[: self._portion], self._others[self._portion :]
            self._under_way.append(partial(self._dumped, (yield dumping.dump(self._keys, part)), part))
            return
        part, self._names = self._names[: dumping.MOST_AT_REST], self._names[dumping.MOST_AT_REST :]
        if self._are_busy:
            self._others += part
            return
        try:
            asked = yield dumping.at_rest(self._keys, part)
        except StoreError:
            self._others += part
        else:
            self._under_way.append(partial(self._looked_at, asked, part))

    def _looked_at(self, reply: Any, part: list[bytes]) -> Plan[None]:
        """Ask since when those are in their states that have nothing but a snapshot."""
        try:
            asked_at, snapshots = yield from _reply(reply)
        except StoreError:
            # Of one the snapshot is of another type: the script says of which. If Redis is away, it says so again.
            self._others += part
            return
        found = [resting(name, snapshot) for name, snapshot in zip(part, snapshots, strict=True) if snapshot]
        busy = [name for name, snapshot in zip(part, snapshots, strict=True) if snapshot is None]
        self._others += busy
        self._are_busy = 2 * len(busy) > len(part)
        now = b"%d" % asked_at
        of_index: dict[tuple[bytes, bytes, bool], list[Resting]] = {}
        for fsm in found:
            _, _, _, machine, state, status, updated_at = fsm
            if not machine or status == b"purging" or not (updated_at < now and len(updated_at) == len(now)):
                # With those that are damaged, or being purged, or have moved just now, the script knows what to do.
                self._others.append(fsm.name)
            elif (index := (machine, state, status == b"finished")) in of_index:
                of_index[index].append(fsm)
            else:
                of_index[index] = [fsm]
        if of_index:
            asked = yield dumping.since(
                [(self._index(*index), [fsm.name for fsm in fsms]) for index, fsms in of_index.items()]
            )
            self._under_way.append(partial(self._timed, asked, list(of_index.values())))

    def _index(self, machine: bytes, state: bytes, is_finished: bool) -> str:  # noqa: FBT001 - as the key has it
        """Name the index of a state."""
        name = self._keys.finished_of if is_finished else self._keys.state
        return name(machine.decode(), state.decode())

    def _timed(self, reply: Any, found: list[list[Resting]]) -> Plan[None]:
        """Write the lines of those that have not moved meanwhile."""
        lines = []
        stored = 0
        for fsms, times in zip(found, (yield from _reply(reply)), strict=True):
            for fsm, since in zip(fsms, times, strict=True):
                name, begin, end, _, _, _, updated_at = fsm
                if not since or (updated_at < since and len(updated_at) == len(since)):
                    self._others.append(name)
                else:
                    lines.append(begin + since + end)
                    stored += fsm.is_stored
        if lines:
            self._write(SavedResting(lines, stored))

    def _dumped(self, reply: Any, part: list[bytes]) -> Plan[None]:
        """Write the lines of those that the script gave."""
        count, fsms = yield from _reply(reply)
        # Of large ones fewer are asked for at once, and those that were too many again.
        self._portion = max(1, count) if count < len(part) else min(2 * self._portion, dumping.MOST_DUMPED)
        self._others[:0] = part[count:]
        self._are_busy = 2 * sum(bool(one.records) for one in fsms) > len(fsms)
        for one in fsms:
            if one.snapshot is None:
                self._broken.append(text(one.name))
            else:
                self._write(line_of(self._keys, one))


def export(keys: Keys, name: str, write: Write, most_lines: int = 1000) -> Plan[None]:
    """Give one FSM, with what was announced of its machine, its audit, and its last lines of the log.

    Raises:
        UnknownFSMError: There is none of this name.
        StoreError: A key of it is of another type.
    """
    found = yield from _reply((yield dumping.dump(keys, [name])))
    if not found.fsms:
        raise UnknownFSMError(name, keys.namespace)
    if found.fsms[0].snapshot is None:
        raise broken(keys, name)
    saved = line_of(keys, found.fsms[0])
    for machine, about in (yield dumping.announced(keys)):
        if text_of(machine) == saved.fields.get("machine"):
            write(saved_machine(machine, about))
    write(saved)
    for entry_id, fields in reversed((yield dumping.audit(keys, name, most_lines))):
        write(SavedLog("audit", text(entry_id), fields_of([part for pair in fields.items() for part in pair])))
    for line in reversed((yield from _logged(keys, name, most_lines))):
        write(SavedLog("log", str(line["at_ms"]), {"line": orjson.dumps(line).decode()}))


def _logged(keys: Keys, name: str, most: int) -> Plan[list[dict[str, Any]]]:
    """Look through the log for the last lines of an FSM: the newest first."""
    found: list[dict[str, Any]] = []
    before: str | None = "+"
    while before is not None and len(found) < most:
        lines, before = yield log_back(keys, before)
        found += [line for line in lines if line.get("name") == name]
    return found[:most]


def _reply(what: R | Ticket[R]) -> Plan[R]:
    """Wait for what was sent ahead."""
    if isinstance(what, Ticket):
        reply: R = yield what
        return reply
    return what


def line_of(keys: Keys, one: Dumped) -> SavedFSM:
    """Give the line of an FSM."""
    if not (one.mail or one.urgent or one.later or one.effects):
        line = resting_fsm(one.name, one.snapshot or [])
        line.since = text(one.since)
        return line
    events = _events(keys, one)
    urgent = [next(events) for _ in one.urgent]
    mail = [next(events) for _ in one.mail]
    later = []
    for due in one.later[1::2]:
        event = next(events)
        event.due = text(due)
        later.append(event)
    # Of what is due in the same ms, the number in the alarm tells which was accepted first.
    later.sort(key=lambda event: (float(event.due), str(event.fields.get("alarm", ""))))
    noted = [part for at in range(0, len(one.effects), 3) for part in one.effects[at : at + 2]]
    line = saved_fsm(one.name, one.snapshot or [], urgent, mail, later, noted)
    line.since = text(one.since)
    ends = zip(one.effects[::3], one.effects[2::3], strict=True)
    line.deadlines = {text(effect): text(at) for effect, at in ends if at}
    return line


def _events(keys: Keys, one: Dumped) -> Iterator[SavedEvent]:
    ids = (*one.urgent, *one.mail, *one.later[::2])
    for job_id, record in zip(ids, one.records, strict=True):
        yield saved_event(job_id, record, keys.namespace, text(one.name))
