"""Who looks on: follows the log line by line, and takes the time until what a dead worker held is in other hands."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from redis.exceptions import RedisError

from fsm.store.connection import connect
from tests.chaos.machines import Payload, fresh, tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsm.store.keys import Keys

_BLOCK_MS, _ENTRIES = 100, 500
_PAUSE_S = 0.03


@dataclass(slots=True)
class Track:
    """What the log says of one FSM.

    Args:
        version: Of the last line.
        state: After it.
        migrated: How often it was brought up to the next definition.
        seen: The events by their senders, failed ones too.
        faults: What cannot be.
    """

    version: int = 0
    state: str = ""
    migrated: int = 0
    seen: Payload = field(default_factory=fresh)
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Orphan:
    """One FSM whose worker was killed, until another worker has it.

    Args:
        name: The FSM.
        worker: Who is dead.
        at_ms: Since when.
        has_parent: Whether somebody saw it die.
        freed_ms: When it was seen in nobody's hands: it waits among those that are ready.
        until_ms: When another worker was seen to have it.
    """

    name: str
    worker: str
    at_ms: float
    has_parent: bool
    freed_ms: float = 0.0
    until_ms: float = 0.0


class Witness:
    """Two threads that look on.

    Args:
        url: Of the server.
        keys: Of the namespace.
        retries: Whether a failed attempt is followed by another one of the same event.
    """

    def __init__(self, url: str, keys: Keys, *, retries: bool) -> None:
        self.tracks: dict[str, Track] = {}
        self.abandoned: list[str] = []
        self.strange: list[str] = []
        self.recoveries: list[Orphan] = []
        self.lines = 0
        self.by_definition = Counter[str]()
        self.noted = 0
        self._url = url
        self._keys = keys
        self._retries = retries
        self._orphans: dict[str, Orphan] = {}
        self._guard = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._until_over, args=(look,), daemon=True) for look in (self._follow, self._poll)
        ]
        self._last = "0-0"

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(10)

    def orphaned(self, orphans: Iterable[Orphan]) -> None:
        """Take the time from now on; who was waited for already has been taken and lost again."""
        with self._guard:
            for orphan in orphans:
                if before := self._orphans.pop(orphan.name, None):
                    self._end(before, orphan.at_ms)
                self._orphans[orphan.name] = orphan

    def waiting(self) -> int:
        """Say how many are in nobody's hands."""
        return len(self._orphans)

    def _until_over(self, look: Any) -> None:
        client = connect(self._url, check=False)
        with client:
            while not self._is_over.is_set():
                try:
                    look(client)
                except RedisError:
                    self._is_over.wait(_PAUSE_S)

    def _follow(self, client: Any) -> None:
        reply = client.xread({self._keys.log: self._last}, count=_ENTRIES, block=_BLOCK_MS)
        for _, entries in reply or ():
            for entry, fields in entries:
                self._last = entry.decode()
                at_ms, worker = float(self._last.partition("-")[0]), fields[b"worker"].decode()
                for line in orjson.loads(fields[b"transitions"]):
                    self._note(line, worker, at_ms)

    def _note(self, line: dict[str, Any], worker: str, at_ms: float) -> None:
        self.lines += 1
        name = line["name"]
        if "waits_for" in line:
            return  # its storage was busy for long: nothing happened, and the event comes again
        if "version" not in line:
            self.strange.append(f"{name}: {line}")
            return
        track = self.tracks.setdefault(name, Track())
        if self._is_migration(track, line, worker):
            return
        if line["version"] != track.version + 1:
            track.faults.append(f"version {line['version']} after {track.version} in the log")
        if track.state and line["from"] != track.state:
            track.faults.append(f"version {line['version']} began in {line['from']} after {track.state}")
        track.version, track.state = line["version"], line["to"]
        if line["event"] == "die":
            self.abandoned.append(name)
        elif "workers died" in line.get("error", ""):
            self.strange.append(f"{name}: abandoned though innocent: {line}")
        elif "refused" in line:
            self.strange.append(f"{name}: {line}")
        meta = line.get("meta", {})
        if "by" in meta and not ("error" in line and self._retries):
            self.noted += 1
            tally(track.seen, meta["by"], meta["n"])
        self._taken(name, worker, at_ms)

    def _is_migration(self, track: Track, line: dict[str, Any], worker: str) -> bool:
        """Note by which definition an FSM is run, and whether it was just brought up to that."""
        definition = worker.rpartition("-")[2]
        self.by_definition[definition] += 1
        if track.migrated and definition == "v1":
            track.faults.append(f"version {line['version']} by {worker}, after it was migrated")
        if line["event"] != "migrate":
            return False
        track.migrated += 1
        if track.migrated > 1 or (line["version"], line["from"]) != (track.version, track.state or line["from"]):
            track.faults.append(f"migrated {track.migrated} times, after {track.version} in {track.state}: {line}")
        track.state = line["to"]
        return True

    def _taken(self, name: str, worker: str, at_ms: float) -> None:
        """Note that a worker has an FSM, or had it then."""
        with self._guard:
            orphan = self._orphans.get(name)
            if orphan is None or at_ms < orphan.at_ms:
                return
            del self._orphans[name]
            # The last words of the dead one: it held nothing any more.
            if worker != orphan.worker:
                self._end(orphan, at_ms)

    def _end(self, orphan: Orphan, at_ms: float) -> None:
        orphan.until_ms = at_ms
        orphan.freed_ms = min(orphan.freed_ms or at_ms, at_ms)
        self.recoveries.append(orphan)

    def _poll(self, client: Any) -> None:
        names = list(self._orphans)
        if names:
            owners = client.mget([self._keys.lock(name) for name in names])
            held = client.zmscore(self._keys.held, names)
            now_ms = time.time() * 1000
            for name, owner, end in zip(names, owners, held, strict=True):
                orphan = self._orphans.get(name)
                if orphan and not orphan.freed_ms and end is None:
                    orphan.freed_ms = now_ms
                if owner and orphan and owner.decode().rpartition("/")[0] != orphan.worker:
                    self._taken(name, owner.decode().rpartition("/")[0], now_ms)
        self._is_over.wait(_PAUSE_S)
