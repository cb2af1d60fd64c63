"""A plan that puts the FSMs of a backup back.

Each is restored in one step of Redis, whole or not at all, and one that is there already, as it was or further on, is
left alone. So a restore that was broken off is begun again.

Who calls this: the client, by `fsm.archive`. It may import the store, the verbs and what lies beside it.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from fsm.backup.form import SavedFSM, SavedMachine, is_stored, raw_of
from fsm.errors import CallTimeoutError, StoreError, UnknownFSMError
from fsm.store import dumping
from fsm.store.ahead import Ticket
from fsm.store.keys import Keys
from fsm.store.places import parse, pinned, ringed
from fsm.verbs import purge
from fsm.verbs.verdicts import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fsm.backup.form import SavedEvent, SavedLog
    from fsm.verbs.plans import Plan

__all__ = ["Count", "Wish", "restore", "restore_of"]

# Calls under way at once, and about how many bytes one of them carries.
_MOST_AHEAD = 3
_ENOUGH_BYTES = 1 << 20
_MOST_NAMED = 1000
# What a worker in its midst would write is of no use to what comes in its place.
_NEVER_RESTORED = ("tries", "probation")
_PURGE_TIMEOUT = 30.0


@dataclass(slots=True)
class Count:
    """What became of the FSMs of a backup.

    Args:
        restored: They are as the backup has them.
        replaced: So many of these took the place of another.
        stored: Of so many of these the payload lies in a storage, and was not in the backup.
        kept: They were there, the same life, and not older.
        repeated: Lines of FSMs that this restore had put back by an earlier line: a backup may meet a name twice.
        existing: Their names were taken: by another life, or by an older version of this one.
        held: They were to be replaced, and a worker had them in hand all the time.
        broken: A key of theirs is of another type, or what was saved was no snapshot.
        left: Names of those that were not restored and are not there, the first thousand, each with why.
    """

    restored: int = 0
    replaced: int = 0
    stored: int = 0
    kept: int = 0
    repeated: int = 0
    existing: int = 0
    held: int = 0
    broken: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)


class _Batch:
    """FSMs for one call, each of another name, and machines that come before them."""

    def __init__(self) -> None:
        self.machines: list[tuple[str | bytes, str | bytes]] = []
        self.states: list[str] = []
        self.fsms: dict[str | bytes, dumping.Restore] = {}
        self.size = 0

    @property
    def is_full(self) -> bool:
        return len(self.fsms) >= dumping.MOST_RESTORED or self.size > _ENOUGH_BYTES

    def add(self, one: dumping.Restore) -> None:
        self.fsms[one.name] = one
        # About: what else a snapshot has is short.
        self.size += len(one.snapshot.get("payload", ""))
        if one.records:
            self.size += sum(sum(map(len, record.values())) for record in one.records)


@dataclass(frozen=True, slots=True)
class Wish:
    """How FSMs are to be restored.

    Args:
        replace: What has the name of an FSM of the backup, and is another life or an older version, is purged.
        effects: Keep what is noted of open effects; their jobs are not restored, so `on_failure` is told of them.
        is_check: Write nothing, and count what would be done.
    """

    replace: bool = False
    effects: bool = True
    is_check: bool = False


def restore(
    keys: Keys,
    lines: Iterable[SavedMachine | SavedFSM | SavedLog],
    namespace: str,
    wish: Wish,
    progress: Callable[[int], None] = lambda _: None,
) -> Plan[Count]:
    """Put back what the lines say.

    On a crash: what was restored is there, each FSM whole; begun again, it is kept.

    Args:
        keys: Of the namespace into which it is to go.
        lines: Of the backup.
        namespace: Which was saved.
        wish: How.
        progress: Is told how many FSMs were looked at.
    """
    count, seen = Count(), 0
    # Of a million FSMs these are 8 MB.
    own = array("q")
    home = Keys(namespace)
    under_way: deque[tuple[Any, _Batch]] = deque()
    for batch in _batches(lines, home, keys, wish):
        if batch.machines and not wish.is_check:
            yield dumping.enlist(keys, batch.machines, batch.states)
        sent = yield dumping.restore(keys, batch.fsms.values(), is_check=wish.is_check)
        under_way.append((sent, batch))
        if len(under_way) > _MOST_AHEAD:
            yield from _told(keys, *under_way.popleft(), wish, count, own)
        seen += len(batch.fsms)
        progress(seen)
    for sent, batch in under_way:
        yield from _told(keys, sent, batch, wish, count, own)
    if wish.is_check:
        count.repeated = len(own) - len(set(own))
        count.restored -= count.repeated
    return count


def _batches(
    lines: Iterable[SavedMachine | SavedFSM | SavedLog], home: Keys, keys: Keys, wish: Wish
) -> Iterator[_Batch]:
    batch = _Batch()
    for line in lines:
        if isinstance(line, SavedMachine):
            batch.machines.append((raw_of(line.name), _announcement(line, home, keys)))
            batch.states += _states(line)
        elif isinstance(line, SavedFSM):
            one = restore_of(line, home, keys, effects=wish.effects)
            if batch.is_full or one.name in batch.fsms:
                yield batch
                batch = _Batch()
            batch.add(one)
    if batch.fsms or batch.machines:
        yield batch


def _told(  # noqa: PLR0913 - what one call is about
    keys: Keys, sent: Sequence[str] | Ticket[list[str]], batch: _Batch, wish: Wish, count: Count, own: array[int]
) -> Plan[None]:
    """Read what became of the FSMs of a call; what is in the way of one is purged where that is wanted."""
    words = (yield sent) if isinstance(sent, Ticket) else sent
    for one, said in zip(batch.fsms.values(), words, strict=True):
        word, _, born = said.partition(" ")
        is_replaced = word == "EXISTS" and wish.replace
        if is_replaced:
            word = "RESTORED" if wish.is_check else (yield from _replaced(keys, one, born))
        elif word == "EXISTS" and born == one.snapshot.get("born") and hash(one.name) in own:
            word = "REPEATED"
        if word == "RESTORED":
            own.append(hash(one.name))
        _note(count, one, word)
        count.replaced += is_replaced and word == "RESTORED"


def _replaced(keys: Keys, one: dumping.Restore, born: str) -> Plan[str]:
    """Purge what has the name of an FSM, that life and no other, and restore it.

    On a crash in between: the name is free, and the backup is there.
    """
    try:
        yield from purge(keys, _shown(one.name), born, _PURGE_TIMEOUT)
    except CallTimeoutError:
        return "HELD"
    except UnknownFSMError:
        pass  # somebody else was sooner
    except StoreError as error:
        if error.problem != broken(keys, _shown(one.name)).problem:
            raise
        # It stays in the way, and stops no other.
        return "BROKEN"
    sent = yield dumping.restore(keys, [one])
    words: list[str] = (yield sent) if isinstance(sent, Ticket) else sent
    return words[0].partition(" ")[0]


def _note(count: Count, one: dumping.Restore, word: str) -> None:
    if word == "RESTORED":
        count.restored += 1
        count.stored += is_stored(one.snapshot)
    elif word == "KEPT":
        count.kept += 1
    elif word == "REPEATED":
        count.repeated += 1
    else:
        field_name = {"EXISTS": "existing", "HELD": "held"}.get(word, "broken")
        setattr(count, field_name, getattr(count, field_name) + 1)
        if len(count.left) < _MOST_NAMED:
            count.left.append((_shown(one.name), field_name))


def _shown(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")


def restore_of(line: SavedFSM, home: Keys, keys: Keys, *, effects: bool = True) -> dumping.Restore:
    """Give an FSM as the script wants it, for the namespace into which it goes."""
    name, snapshot = raw_of(line.name), line.snapshot()
    for gone in _NEVER_RESTORED:
        snapshot.pop(gone, None)
    is_moved = home.namespace != keys.namespace
    if is_moved and "queue" in snapshot:
        snapshot["queue"] = _queue(snapshot["queue"], home, keys)
    one = dumping.Restore(name, line.since, snapshot)
    if line.urgent or line.mail or line.later:
        one.urgent = [raw_of(event.id) for event in line.urgent]
        one.mail = [raw_of(event.id) for event in line.mail]
        one.later = [(raw_of(event.id), event.due) for event in line.later]
        events = (*line.urgent, *line.mail, *line.later)
        one.records = [_record(event, name, home, keys, is_moved=is_moved) for event in events]
    if effects and line.effects:
        one.effects = [(key, raw_of(note), line.deadlines.get(key, "")) for key, note in line.effects.items()]
    return one


def _record(event: SavedEvent, name: str | bytes, home: Keys, keys: Keys, *, is_moved: bool) -> dict[str, str | bytes]:
    record = event.record(keys.namespace, _shown(name))
    if is_moved and record:
        record["ns"] = keys.namespace
        if "origin" in record:
            record["origin"] = _queue(record["origin"], home, keys)
    return record


def _queue(queue: str | bytes, home: Keys, keys: Keys) -> str | bytes:
    """Give the queue of a namespace for that of another; one that users named stays."""
    if isinstance(queue, bytes):
        return queue
    place = parse(queue)
    if place.base != home.default_queue:
        return queue
    if not place.host:
        return keys.default_queue
    return (pinned if place.is_pinned else ringed)(keys.default_queue, place.host)


def _announcement(line: SavedMachine, home: Keys, keys: Keys) -> str | bytes:
    """Give what was announced of a machine; in another namespace its queue may be another one."""
    if home.namespace == keys.namespace:
        return line.value
    try:
        about = orjson.loads(line.value)
        about["queue"] = _queue(about["queue"], home, keys)
    except (ValueError, TypeError, KeyError):
        return line.value
    return orjson.dumps(about)


def _states(line: SavedMachine) -> list[str]:
    """Give the states of a machine as they are listed; none where its announcement cannot be read."""
    try:
        return [f"{line.name}:{state}" for state in orjson.loads(line.value)["states"]]
    except (ValueError, TypeError, KeyError):
        return []
