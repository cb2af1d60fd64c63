"""Plans that take FSMs out of Redis while they run, and give them as lines.

All that are there from the beginning to the end are met, for their names come by SCAN, which no move of an FSM touches:
by their states, one that moves from a state that is yet to be read into one that was read would be left out. Each is
taken in one step of Redis, so it is whole and is what it was at one moment; two of them may be of different moments.

Who calls this: the client, by `fsm.archive`. It may import the store, the verbs and what lies beside it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from fsm.backup.form import SavedLog, fields_of, saved_event, saved_fsm, saved_machine, text_of
from fsm.errors import UnknownFSMError
from fsm.store import dumping
from fsm.store.ahead import Ticket
from fsm.store.codec import text
from fsm.verbs import log_back
from fsm.verbs.verdicts import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsm.backup.form import SavedEvent, SavedFSM, SavedMachine
    from fsm.store.dumping import Dump, Dumped
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

    Write = Callable[[SavedMachine | SavedFSM | SavedLog], None]

__all__ = ["export", "line_of", "save"]

R = TypeVar("R")
# Calls under way at once: one is executed by Redis, one is on its way, and the reply to one is read here.
_MOST_AHEAD = 3


def save(keys: Keys, write: Write) -> Plan[list[str]]:
    """Give all that there is of a namespace, a line at a time: machines, then FSMs.

    Memory does not grow with their number. A name may come twice, where Redis makes its table of keys smaller then:
    the later line is not the older one. A restore takes the first, and tells of the second where that is newer.

    Returns:
        Names of FSMs that could not be read, since a key of them is of another type.
    """
    for name, about in (yield dumping.announced(keys)):
        write(saved_machine(name, about))
    broken: list[str] = []
    under_way: deque[tuple[Any, list[bytes]]] = deque()
    page = yield dumping.names(keys, 0)
    while page is not None:
        cursor, wanted = yield from _reply(page)
        page = (yield dumping.names(keys, cursor)) if cursor else None
        for first in range(0, len(wanted), dumping.MOST_DUMPED):
            part = wanted[first : first + dumping.MOST_DUMPED]
            under_way.append(((yield dumping.dump(keys, part)), part))
            if len(under_way) > _MOST_AHEAD:
                yield from _written(keys, *under_way.popleft(), write, broken)
    for dump, wanted in under_way:
        yield from _written(keys, dump, wanted, write, broken)
    return broken


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


def _written(keys: Keys, dump: Dump | Ticket[Dump], wanted: list[bytes], write: Write, broken: list[str]) -> Plan[None]:
    """Write the lines of a call, and of further ones where their bytes were too many for one."""
    while True:
        count, fsms = yield from _reply(dump)
        for one in fsms:
            if one.snapshot is None:
                broken.append(text(one.name))
            else:
                write(line_of(keys, one))
        wanted = wanted[count:]
        if not wanted:
            return
        dump = yield dumping.dump(keys, wanted)


def line_of(keys: Keys, one: Dumped) -> SavedFSM:
    """Give the line of an FSM."""
    if not (one.mail or one.urgent or one.later or one.effects):
        line = saved_fsm(one.name, one.snapshot or [], [], [], [], [])
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
