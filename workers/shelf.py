"""The storages of a worker's machines: what they have of each FSM that is claimed, and what they are told of it.

Two databases, and no transaction over both: the storage is written first, by compare-and-set on the version, and Redis
then. What is between the two is found by whoever claims the FSM next, for the row is ahead of Redis and holds what
Redis was not told: that is told then, once, and no handler is run for it. Who has lost the lock meanwhile, and stores
late, is too late either in the storage, by the version, or in Redis, by the token.

A row that is further ahead than that tells of a Redis that lost its tail: it follows the row (`adoption`).

A storage that cannot be used puts its FSMs off: their events stay where they are, are not run, and use up no attempt.

Who calls this: the worker, its committer, and `serving`. None where no machine has a storage.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fsm.engine import strangeness
from fsm.errors import ConfigError, StoreError
from fsm.storage.memory import MemoryStorage
from fsm.storage.persistable import RowBusyError
from fsm.storage.protocol import MOST_ROWS, BatchStorage
from fsm.storage.singly import Singly
from fsm.store import storing
from fsm.store.calls import Claims
from workers.adoption import adopt, last_ended, marks_of
from workers.breaker import Breaker
from workers.difference import half_of, trouble
from workers.holding import LEAST_MS, apart, bare, said, wait_ms
from workers.stored import Lent, StoredActivation, StoredBlock, finish, lent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fsm.app import App
    from fsm.engine import Behaviour
    from fsm.storage.protocol import Row
    from fsm.store.calls import Claimed
    from fsm.store.halves import Half
    from fsm.store.keys import Keys
    from fsm.store.storing import Heard
    from workers.executors import Timer
    from workers.handover import Ask

__all__ = ["Kept", "Shelf"]

_log = logging.getLogger("fsm.worker")
# How long one waits that no waiting helps: somebody must look at it.
_STANDING_MS = 30_000
# Of so many FSMs is known that an event of theirs cannot be stored.
_MOST_REFUSED = 1000


@dataclass(slots=True)
class Kept:
    """What came of storing the blocks of one commit.

    Args:
        blocks: What is to be committed: stored, or put off, or nothing that a storage must know.
        lost: FSMs that somebody else has moved on meanwhile: they are to be released, and nothing of them is written.
    """

    blocks: list[list[Any]] = field(default_factory=list)
    lost: list[Claimed] = field(default_factory=list)


@dataclass(slots=True)
class _Refusal:
    """What is known of an FSM whose row the storage refused, and is kept for its next claim.

    Args:
        life: `born` and version: with another one it is nothing any more.
        error: What the storage raised, without the frames of its traceback.
        is_found: Whether its oldest event is at fault; else it is not known yet which one is.
        is_hopeless: Whether even the failure of that event could not be stored.
    """

    life: tuple[str, int]
    error: Exception
    is_found: bool
    is_hopeless: bool = False


class _Place:
    """One storage as a worker uses it."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage  # also keeps its id from being another's
        self.batch: BatchStorage = storage if isinstance(storage, BatchStorage) else Singly(storage)
        self.breaker = Breaker()


class Shelf:
    """Lends FSMs with their rows, and stores what came of them.

    Args:
        keys: Of the namespace.
        behaviours: Gives the machines by name. It is asked where there is an FSM, for before a worker's services are
            open there are none.
        timer: Keeps the time of events where they are run.
        ask: Asks Redis, where a row is ahead of it.
    """

    def __init__(self, keys: Keys, behaviours: Callable[[], Mapping[str, Behaviour]], timer: Timer, ask: Ask) -> None:
        self._keys = keys
        self._behaviours = behaviours
        self._timer = timer
        self._ask = ask
        self._places: dict[int, _Place] = {}
        self._refused: OrderedDict[str, _Refusal] = OrderedDict()
        self._guard = threading.Lock()
        # Why an FSM was put off last: for a world in memory, where nobody waits.
        self.trouble = ""

    @staticmethod
    def of(keys: Keys, app: App, timer: Timer, ask: Ask) -> Shelf | None:
        """Make one; None where no machine has a storage."""
        is_needed = any(definition.storage is not None for definition in app.definitions)
        return Shelf(keys, lambda: app.behaviours, timer, ask) if is_needed else None

    def has(self, fsm: Claimed) -> bool:
        """Tell whether the payload of an FSM lies in a storage."""
        behaviour = self._behaviours().get(fsm.machine)
        return behaviour is not None and behaviour.definition.storage is not None

    def check(self) -> None:
        """Look whether the storages can be used, and say so where one cannot: it may come later.

        Raises:
            ConfigError: One never can, as where its driver is not installed.
        """
        storages: dict[int, tuple[Any, list[str]]] = {}
        for machine in self.machines():
            storage = self._behaviours()[machine].definition.storage
            storages.setdefault(id(storage), (storage, []))[1].append(machine)
        for storage, machines in storages.values():
            names = ", ".join(sorted(machines))
            if isinstance(storage, MemoryStorage):
                about = "payloads of %s lie in the memory of this process: no other has them, and they are gone with it"
                _log.warning(about, names)
            try:
                # Not all have it: it is no part of the protocol.
                getattr(storage, "check", lambda: None)()
            except ConfigError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a storage of a user's own raises
                problem = error.problem if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
                _log.warning("the storage of %s cannot be used yet, and their FSMs wait for it: %s", names, problem)

    def machines(self) -> list[str]:
        """Name the machines that have a storage."""
        return [name for name, one in self._behaviours().items() if one.definition.storage is not None]

    def drop(self, machine: str, lives: Mapping[str, str]) -> int:
        """Drop what a machine's storage has of lives that are over; gives of how many names there was something.

        On a crash: it is dropped, or is dropped by whoever looks next.

        Args:
            machine: Name of the machine.
            lives: Name -> `born`, at most `MOST_ROWS`.

        Raises:
            StoreError: The storage cannot be used now. It is asked once: this can wait.
            Exception: Whatever a storage of a user's own raises.
        """
        place = self._place(machine)
        return place.breaker.call(lambda: place.batch.drop_many(self._keys.namespace, lives), is_patient=False)

    def take(self, claims: Claims) -> Claims:
        """Take those FSMs out of a claim whose payload lies in a storage: the others need not wait for it."""
        mine = [fsm for fsm in claims.held if self.has(fsm)]
        if mine:
            claims.held = [fsm for fsm in claims.held if not self.has(fsm)]
        return Claims(mine, [], at=claims.at, at_ms=claims.at_ms, asked_at=claims.asked_at)

    # After a claim.

    def lend(self, claims: Claims) -> Claims:
        """Give each of these FSMs with what its storage has of it. It does not raise: what cannot be had is put off."""
        by_place: dict[int, list[Claimed]] = {}
        for fsm in claims.held:
            by_place.setdefault(id(self._place(fsm.machine)), []).append(fsm)
        come: dict[str, Lent] = {}
        for fsms in by_place.values():
            # The mail of one that has finished is answered by what Redis has.
            alive = [fsm for fsm in fsms if fsm.status != "finished"]
            come |= {fsm.name: lent(fsm, None) for fsm in fsms if fsm.status == "finished"}
            for first in range(0, len(alive), MOST_ROWS):
                for one in self._load(alive[first : first + MOST_ROWS], claims):
                    come[one.name] = one
        return Claims(
            [come[fsm.name] for fsm in claims.held], [], at=claims.at, at_ms=claims.at_ms, asked_at=claims.asked_at
        )

    def _place(self, machine: str) -> _Place:
        storage = self._behaviours()[machine].definition.storage
        # Of the thread of relief and of the main one: whoever is second finds what the first made.
        return self._places.get(id(storage)) or self._places.setdefault(id(storage), _Place(storage))

    def _load(self, fsms: Sequence[Claimed], claims: Claims, busy: int = 0) -> list[Lent]:
        if not fsms:
            return []
        place, names = self._place(fsms[0].machine), [fsm.name for fsm in fsms]
        try:
            rows = place.breaker.call(lambda: place.batch.load_many(self._keys.namespace, names))
        except RowBusyError as error:
            mine, others = apart(fsms, error, place.breaker, busy)
            waiting = [self._waiting(lent(fsm, None), claims, place, error) for fsm in mine]
            return [*waiting, *self._load(others, claims, busy + 1)]
        except StoreError as error:
            return [self._waiting(lent(fsm, None), claims, place, error) for fsm in fsms]
        except Exception as error:  # noqa: BLE001 - one row that cannot be read must not stop its neighbours
            if len(fsms) > 1:
                half = len(fsms) // 2
                return [*self._load(fsms[:half], claims, busy), *self._load(fsms[half:], claims, busy)]
            _log.exception("what the storage has of FSM %r cannot be read", fsms[0].name)
            return [self._standing(lent(fsms[0], None), claims, type(error).__name__, str(error))]
        return [self._lend(fsm, rows.get(fsm.name), claims) for fsm in fsms]

    def _lend(self, fsm: Claimed, row: Row | None, claims: Claims) -> Lent:
        """Compare what both sides have, and say what is to be done with it."""
        one = lent(fsm, row)
        kind, text = trouble(fsm, row)
        if kind:
            return self._standing(one, claims, kind, text)
        if row is None or row.born != fsm.born or row.version == fsm.version:
            return self._noted(one, claims)
        try:
            half = half_of(row)
            # A snapshot that was put back by one step looks the same: but Redis knows that its events have ended.
            if half is not None and row.base == fsm.version and not self._heard(one, row, half).is_told:
                one.ready = finish(one, row)
                return one
            return self._adopt(one, row, half, claims)
        except StoreError as error:
            what = f"what came of its last event cannot be read: {error}"
            return self._standing(one, claims, "RedisBehind", what, LEAST_MS)
        except ValueError as error:
            what = f"{text}, which was not told: {error}; a worker of the version that stored it can"
            return self._standing(one, claims, "RedisBehind", what)

    def _adopt(self, one: Lent, row: Row, half: Half | None, claims: Claims) -> Lent:
        """Have Redis follow a row that is further ahead than by the step that a crash cut short."""
        definition = self._behaviours()[one.machine].definition
        why = strangeness(definition, row.machine, row.state, row.status, row.definition)
        if why or row.machine != one.machine:
            what = f"its row is ahead of Redis, and is not one for this worker: {why or f'of machine {row.machine!r}'}"
            return self._standing(one, claims, "RedisBehind", what)
        one.ready = adopt(self._work(one, claims), row, half, self._heard(one, row, half))
        return one

    def _heard(self, one: Lent, row: Row, half: Half | None) -> Heard:
        """Ask what Redis has heard of the last step, and of the mail."""
        ids, marks = [mail.job_id for mail in one.mail], [] if half is None else [mark for mark, _ in marks_of(half)]
        last_job = row.last_job if half is None else last_ended(half)
        return self._ask(storing.heard(self._keys, one.name, marks, last_job, ids))

    def _noted(self, one: Lent, claims: Claims) -> Lent:
        """Heed what is known of an FSM whose row was refused."""
        known = self._refused.get(one.name)
        if known is None:
            return one
        if known.life != (one.born, one.version):
            self._refused.pop(one.name, None)
        elif known.is_hopeless:
            self._refused.pop(one.name, None)
            return self._standing(one, claims, "Refused", f"the storage refuses it: {said(known.error)}")
        elif known.is_found:
            one.fault, one.is_alone = known.error, True
        else:
            one.is_alone = True
        return one

    def _waiting(self, one: Lent, claims: Claims, place: _Place, error: StoreError) -> Lent:
        _log.warning("FSM %r waits for its storage: %s", one.name, error)
        self.trouble = f"FSM {one.name!r} waits for its storage: {error.problem}"
        one.ready = self._work(one, claims).put_off(wait_ms(place.breaker, error), "StoreError", error.problem)
        return one

    def _standing(self, one: Lent, claims: Claims, kind: str, text: str, pause_ms: int = _STANDING_MS) -> Lent:
        _log.error("FSM %r is not run: %s", one.name, text)
        self.trouble = f"FSM {one.name!r} is not run: {text}"
        one.ready = self._work(one, claims).put_off(pause_ms, kind, text)
        return one

    def _work(self, one: Lent, claims: Claims) -> StoredActivation:
        behaviour = self._behaviours()[one.machine]
        return StoredActivation(behaviour, one, self._keys, self._timer, claims.at_ms, claims.asked_at)

    # Before a commit.

    def store(self, blocks: Iterable[list[Any]]) -> Kept:
        """Store what is to be stored. It does not raise: what cannot be stored now is put off.

        On a crash: what was stored is found by the next claim, and finished by it.
        """
        kept = Kept()
        by_place: dict[int, list[StoredBlock]] = {}
        for block in blocks:
            if isinstance(block, StoredBlock):
                by_place.setdefault(id(self._place(block.work.fsm.machine)), []).append(block)
            else:
                kept.blocks.append(block)
        for mine in by_place.values():
            for first in range(0, len(mine), MOST_ROWS):
                self._store(mine[first : first + MOST_ROWS], kept)
        return kept

    def _store(self, blocks: Sequence[StoredBlock], kept: Kept, busy: int = 0) -> None:
        if not blocks:
            return
        place, namespace = self._place(blocks[0].work.fsm.machine), self._keys.namespace
        rows = [block.row for block in blocks]
        there: dict[str, Row] = {}
        try:
            stored = place.breaker.call(lambda: place.batch.store_many(namespace, rows))
            left = [block for block in blocks if block.row.name not in stored]
            if left:
                # Of an answer that was lost the second try knows nothing: but whose row is there is told by its token.
                names = [block.row.name for block in left]
                there = place.breaker.call(lambda: place.batch.load_many(namespace, names))
                stored = stored | {block.row.name for block in left if _is_ours(block.row, there.get(block.row.name))}
                left = [block for block in left if block.row.name not in stored]
        except RowBusyError as error:
            mine, others = apart(blocks, error, place.breaker, busy)
            self._put_off(mine, place, error, kept)
            self._store(others, kept, busy + 1)
            return
        except StoreError as error:
            self._put_off(blocks, place, error, kept)
            return
        except Exception as error:  # noqa: BLE001 - whatever is raised is about a row, and its neighbours stand
            if len(blocks) > 1:
                half = len(blocks) // 2
                self._store(blocks[:half], kept, busy)
                self._store(blocks[half:], kept, busy)
            else:
                self._refuse(blocks[0], error, kept)
            return
        for block in left:
            fsm, found = block.work.fsm, there.get(block.row.name)
            if _is_same(found, fsm.row):
                # It has what was loaded, and did not take what follows: released, this would go on without end.
                text, pause_ms = "its payload was changed while its events were run: they are run again on it", LEAST_MS
                if found is None or not block.row.seen or found.payload == block.row.seen:
                    where = "where there is none" if found is None else f"in the place of {found.version}"
                    text = f"the storage does not take version {block.row.version} {where}"
                    pause_ms = _STANDING_MS
                _log.warning("FSM %r waits for its storage: %s", fsm.name, text)
                kept.blocks.append(block.work.anew().put_off(pause_ms, "Conflict", text))
                continue
            _log.warning("FSM %r was moved on by another worker: what was done with it here is dropped", fsm.name)
            kept.lost.append(fsm)
        kept.blocks += [block for block in blocks if block.row.name in stored]

    def _put_off(self, blocks: Sequence[StoredBlock], place: _Place, error: StoreError, kept: Kept) -> None:
        for block in blocks:
            _log.warning("what FSM %r would be is not stored, and it waits: %s", block.row.name, error)
            self.trouble = f"FSM {block.row.name!r} waits for its storage: {error.problem}"
            kept.blocks.append(block.work.anew().put_off(wait_ms(place.breaker, error), "StoreError", error.problem))

    def _refuse(self, block: StoredBlock, error: Exception, kept: Kept) -> None:
        """Find out which event it is that cannot be stored, one claim after the other; then it fails."""
        fsm = block.work.fsm
        life = (fsm.born, fsm.version)
        _log.error("what FSM %r would be cannot be stored: %s", fsm.name, said(error), exc_info=error)
        before = self._refused.pop(fsm.name, None)
        if before is not None and before.life != life:
            before = None
        is_single = fsm.is_alone or block.work.done + block.work.failed + block.work.is_retried <= 1
        known = _Refusal(life, bare(error), is_found=is_single, is_hopeless=before is not None and before.is_found)
        with self._guard:
            self._refused[fsm.name] = known
            if len(self._refused) > _MOST_REFUSED:
                self._refused.popitem(last=False)
        if known.is_hopeless:
            kept.blocks.append(block.work.anew().put_off(_STANDING_MS, type(error).__name__, str(error)))
        else:
            kept.lost.append(fsm)


def _is_ours(row: Row, there: Row | None) -> bool:
    return there is not None and (there.born, there.version, there.token) == (row.born, row.version, row.token)


def _is_same(row: Row | None, other: Row | None) -> bool:
    if row is None or other is None:
        return row is other
    return (row.born, row.version, row.token) == (other.born, other.version, other.token)
