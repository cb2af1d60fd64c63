"""Redis, as a storage: where snapshots lie unless a machine names another place.

Workers do not come here: what they load and store is part of the claim and of the commit. This is for those who read
and write snapshots by hand, and to hold Redis against the contract of all storages.

Who calls this: applications.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from fsm import verbs
from fsm.engine import checked_name
from fsm.errors import CallTimeoutError, PayloadError, StoreError, UnknownFSMError, UnknownMachineError
from fsm.storage.asking import Mark, Question, read_filters
from fsm.storage.protocol import Row, Stored, StoredPage
from fsm.storage.rows import error_text, refuse_older, row_of
from fsm.store import storing
from fsm.store.codec import new_ids, read_snapshot, text
from fsm.store.keys import Keys
from fsm.verbs.plans import pause
from fsm.verbs.verdicts import broken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.verbs import Plan

__all__ = ["RedisStorage"]

_WAIT_S = 10.0
_MOST_VERSION = 10**15
# A query looks at so many FSMs at most, and then gives the page as far as it is.
_MOST_LOOKED_AT = 2000


class Carrier(Protocol):
    """Whatever carries plans to one Redis, as a client does."""

    @property
    def keys(self) -> Keys:
        """The keys of its namespace."""

    def do(self, plan: Plan[Any]) -> Any:
        """Carry a plan to its end."""


class RedisStorage:
    """The snapshots that lie in Redis, read and written by hand.

    What is written appears in the index as well. It is not written while a worker has the FSM in hand: that is waited
    for. Mail stays; where the state becomes another one, timers of the old one are taken away, and none are armed.

    Args:
        client: A `Client`, whose connection is used, and whose namespace is meant.

    Besides what `fsm.storage.protocol` says: `started_at` must be the time at which the life began, which `born` tells;
    names of machines and states have no colon. Of an FSM that somebody paused, the status is the one beneath. A
    snapshot that was edited by hand and cannot be read is a `StoreError` by its name, and left out of queries.
    """

    def __init__(self, client: Carrier) -> None:
        self._client = client
        self._keys = client.keys

    def __repr__(self) -> str:
        return f"RedisStorage({self._client!r}, namespace={self._keys.namespace!r})"

    def of(self, namespace: str) -> RedisStorage:
        """Give the same storage for another namespace, over the same connection."""
        other = RedisStorage(self._client)
        other._keys = Keys(namespace)
        return other

    def load(self, name: str) -> Stored | None:
        """Give the snapshot of an FSM; None where there is none.

        Raises:
            StoreError: Redis cannot be used, here and in all other methods; or the snapshot cannot be read.
        """
        found: Stored | None = self._client.do(_load(self._keys, checked_name(name)))
        return found

    def get(self, name: str) -> Stored:
        """Give the snapshot of an FSM.

        Raises:
            UnknownFSMError: There is none.
        """
        found = self.load(name)
        if found is None:
            raise UnknownFSMError(name, self._keys.namespace)
        return found

    def store(self, name: str, snapshot: Stored, expected_version: int | None) -> bool:
        """Write a snapshot in the place of the one that was read; False where something else is there.

        On a crash: it was written, or it was not.

        Raises:
            PayloadError: The snapshot cannot be kept.
            StoreError: A worker has the FSM in hand, and had it for ten seconds.
        """
        row = _row(name, snapshot)
        expected = "none" if expected_version is None else str(expected_version)
        return bool(self._client.do(_put(self._keys, row, expected))[0] == "STORED")

    def put(self, name: str, snapshot: Stored) -> None:
        """Write a snapshot where there is none, or over an older one.

        On a crash: it was written, or it was not.

        Raises:
            StaleVersionError: What is there is newer.
            PayloadError: The snapshot cannot be kept.
            StoreError: A worker has the FSM in hand, and had it for ten seconds.
        """
        row = _row(name, snapshot)
        word, version, born, state = self._client.do(_put(self._keys, row, "older"))
        if word != "STORED":
            raise refuse_older(row, state, born, int(version or 0))

    def store_error(self, name: str, error: Mapping[str, Any] | None) -> None:
        """Note the last failure of an FSM beside its snapshot, or forget it.

        Raises:
            UnknownFSMError: There is no such FSM.
            PayloadError: The note is no JSON.
        """
        word = self._client.do(_one(storing.note(self._keys, checked_name(name), error_text(error))))
        if word == "BROKEN":
            raise broken(self._keys, name)
        if word != "NOTED":
            raise UnknownFSMError(name, self._keys.namespace)

    def last_error(self, name: str) -> dict[str, Any] | None:
        """Give the last failure of an FSM; None where there is none, or no such FSM."""
        found = self.load(name)
        return None if found is None or found.error is None else dict(found.error)

    def delete(self, name: str) -> bool:
        """Remove an FSM with its mail, as `client.purge` does, and tell whether there was one.

        Raises:
            StoreError: A worker has the FSM in hand, and had it for ten seconds.
        """
        try:
            self._client.do(verbs.purge(self._keys, name, "", _WAIT_S))
        except UnknownFSMError:
            return False
        except CallTimeoutError as error:
            raise StoreError(str(error)) from error
        return True

    def purge(self, name: str) -> bool:
        """Remove all that is held of a name, and tell whether there was something: the same as `delete`."""
        return self.delete(name)

    def query(self, **filters: Any) -> StoredPage:
        """Find snapshots, a page at a time: by machine, state, since when, and name.

        By index: `machine`, `state`, `status="finished"`, `in_state_longer_than`. Others are looked for among what
        those leave, at most 2,000 FSMs a page.

        Raises:
            ConfigError: There is no such filter, or a value is not allowed.
            PayloadError: The cursor is of other filters, or none.
        """
        page: StoredPage = self._client.do(_query(self._keys, read_filters(filters)))
        return page


def _one(request: Any) -> Plan[Any]:
    return (yield request)


def _row(name: str, snapshot: Stored) -> Row:
    """Give what is written of a snapshot.

    Raises:
        PayloadError: Redis cannot keep it so.
    """
    row = row_of(name, snapshot, 0, None)
    if row.version >= _MOST_VERSION:
        problem = f"{row.version} is too large: Redis counts versions up to 15 digits"
        raise PayloadError(problem, "version")
    if row.started_ms != int(row.born) // 1000:
        problem = "Redis keeps no other time of a start than `born`, the µs at which this life began: they differ"
        raise PayloadError(problem, "started_at")
    for path in ("machine", "state"):
        if ":" in getattr(row, path):
            raise PayloadError("has a colon, which Redis keeps for its keys", path)
    return row


def _load(keys: Keys, name: str) -> Plan[Stored | None]:
    try:
        (fields,) = yield storing.hashes(keys, [name])
    except StoreError as error:
        raise (broken(keys, name) if "WRONGTYPE" in error.problem else error) from error
    return _read(keys, name, fields)


def _read(keys: Keys, name: str, fields: Mapping[bytes, bytes]) -> Stored | None:
    """Read a snapshot's hash.

    Raises:
        StoreError: It was edited by hand and cannot be read.
    """
    if not fields or fields.get(b"status") == b"purging":
        return None
    seen = read_snapshot(name, fields, keys.default_queue)
    last_job, pending = storing.kept_beside(fields.get(b"put"), seen.version)
    return Stored(
        name=name,
        machine=seen.machine,
        state=seen.state,
        payload=seen.payload,
        version=seen.version,
        status=text(fields.get(b"status")) or "running",
        born=seen.born,
        definition=text(fields.get(b"definition")),
        started_at=seen.started_at,
        updated_at=seen.updated_at,
        error=seen.error,
        last_job=last_job,
        pending=pending,
    )


def _put(keys: Keys, row: Row, expected: str) -> Plan[tuple[str, str, str, str]]:
    home = ("", "")
    try:
        blueprint = yield from verbs.blueprint(keys, row.machine)
        home = (blueprint.queue, str(blueprint.max_mailbox))
    except UnknownMachineError:
        # Nobody has announced it yet: it belongs to the queue of all.
        pass
    fields = (
        row.born, row.machine, row.state, row.status, row.version, row.payload, row.error, row.definition,
        row.updated_ms,
    )  # fmt: skip
    given = storing.Given(row.name, expected, new_ids(1)[0], fields, (row.last_job, row.pending), home)
    begin = time.monotonic()
    while True:
        answer: tuple[str, str, str, str] = yield storing.put(keys, given)
        if answer[0] == "BROKEN":
            raise broken(keys, row.name)
        if answer[0] != "HELD":
            return answer
        if time.monotonic() - begin > _WAIT_S:
            problem = f"FSM {row.name!r} is in the hands of a worker, or being purged, for {_WAIT_S:g} s: try again"
            raise StoreError(problem)
        yield pause(keys, 0.05)


def _query(keys: Keys, question: Question) -> Plan[StoredPage]:
    known = yield verbs.indexed(keys)
    pairs = [
        pair
        for pair in known
        if question.machine in (None, pair[0])
        and question.state in (None, pair[1])
        and (question.after is None or pair >= question.after[:2])
    ]
    if not pairs:
        return StoredPage(())
    ends = yield storing.ends_of([index for pair in pairs for index in (keys.state(*pair), keys.finished_of(*pair))])
    began_ms = question.began_ms
    if began_ms is None:
        began_ms = max((end for end in ends if end is not None), default=0)
    inhabited = [pair for at, pair in enumerate(pairs) if ends[2 * at : 2 * at + 2] != [None, None]]
    return (yield from _page(keys, question, inhabited, began_ms))


def _page(keys: Keys, question: Question, pairs: list[tuple[str, str]], began_ms: int) -> Plan[StoredPage]:
    """Walk through states until the page is full, or enough was looked at."""
    until = str(began_ms)
    if question.since_before_ms is not None and question.since_before_ms <= began_ms:
        until = f"({question.since_before_ms}"
    most = question.limit + 1
    found: list[Stored] = []
    looked_at = 0
    for pair in pairs:
        after = question.after[2:] if question.after is not None and question.after[:2] == pair else None
        is_more = True
        while is_more:
            indexes = (keys.state(*pair), keys.finished_of(*pair))
            marks = yield storing.span(storing.Span(indexes, after, until, most))
            is_more = len(marks) == most
            wanted = yield from _wanted(keys, question, pair, marks)
            for after, seen in zip(marks, wanted, strict=True):
                looked_at += 1
                if seen is not None:
                    found.append(seen)
                if len(found) == question.limit or looked_at == _MOST_LOOKED_AT:
                    return StoredPage(tuple(found), question.cursor(Mark(*pair, *after), began_ms))
    return StoredPage(tuple(found))


def _wanted(
    keys: Keys, question: Question, pair: tuple[str, str], marks: list[tuple[int, str]]
) -> Plan[list[Stored | None]]:
    """Read FSMs of one state; None for one that is not asked for, or has gone on meanwhile."""
    names = [name for _, name in marks]
    if not names:
        return []
    try:
        replies = yield storing.hashes(keys, names)
    except StoreError as error:
        if "WRONGTYPE" not in error.problem:
            raise
        replies = []
        for name in names:
            try:
                replies += yield storing.hashes(keys, [name])
            except StoreError:
                replies.append({})
    found: list[Stored | None] = []
    for name, fields in zip(names, replies, strict=True):
        try:
            seen = _read(keys, name, fields)
        except StoreError:
            seen = None
        is_wanted = seen is not None and (seen.machine, seen.state) == pair and _is_asked_for(seen, fields, question)
        found.append(seen if is_wanted else None)
    return found


def _is_asked_for(seen: Stored, fields: Mapping[bytes, bytes], question: Question) -> bool:
    status = "paused" if b"paused" in fields and seen.status in ("starting", "running") else seen.status
    started_ms, updated_ms = int(seen.born) // 1000, int(fields[b"updated_at"])
    return (
        question.status in (None, status)
        and question.failed in (None, seen.error is not None)
        and (question.started_after_ms is None or started_ms > question.started_after_ms)
        and (question.updated_before_ms is None or updated_ms < question.updated_before_ms)
    )
