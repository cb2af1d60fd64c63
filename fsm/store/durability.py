"""What must be true of what Redis acknowledged: how that is asked for, and how it is proven.

`appendfsync always` writes and syncs the append-only file before the replies of that turn of Redis's event loop go out:
there a reply is the proof, and one sync serves all who write in that turn. With `everysec` nothing tells of a single
write before Redis 7.2: while a sync is under way, writes are acknowledged that are in memory alone. From 7.2 on,
`WAITAOF` waits for the sync that covers what this connection has written, and `WAIT`, in any version, for replicas.
So a barrier is a write of its own on one connection, behind all that was acknowledged before, and a wait for it.

All of this is about one life of the server. One that was killed after it acknowledged something, and came back without
it, would let each barrier pass: so each look tells the `run_id` of the process, and who wants a proof compares it with
the one from before his call. The same process before and after has lived, and had what it acknowledged, in between.

Who calls this: the client; `embedded` makes its own server sync always.
What it may import: `redis` for its errors, `fsm.config`, `fsm.errors`, and `embedded`, `keys` and `requests` beside it.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from fsm import config
from fsm.errors import StoreError
from fsm.store import embedded
from fsm.store.connection import mask
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from fsm.store.keys import Keys

__all__ = ["ALWAYS", "MEMORY", "REPLICAS", "WAITAOF", "Barrier", "Durability", "Proof", "Synced", "read_durability"]

ALWAYS, WAITAOF, REPLICAS = "always", "waitaof", "replicas"
# How long Redis may hold back one reply: a connection waits 10 s for one, and there are two such waits in a barrier.
_ROUND_MS = 2000
_KEPT_MS = 60_000
_WAITS = (7, 2)
_SETTINGS = ("CONFIG", "GET", "*append*")
_LIFE = ("INFO", "server")


@dataclass(frozen=True, slots=True)
class Durability:
    """What must be true of a write before it counts.

    Args:
        fsync: It is on disk.
        replicas: So many replicas have it.
    """

    fsync: bool = False
    replicas: int = 0


MEMORY = Durability()


def read_durability(given: Any, place: str) -> Durability:
    """Read what somebody wrote: "memory", "fsync", "replicas:2" or "fsync+replicas:2".

    Args:
        given: As it was written.
        place: Where, for the message.

    Raises:
        ConfigError: It is none of these.

    >>> read_durability("fsync+replicas:2", "durability")
    Durability(fsync=True, replicas=2)
    """
    text = config.check_durability(given, place)
    if text == "memory":
        return MEMORY
    return Durability(text.startswith("fsync"), int(text.rpartition(":")[2]) if ":" in text else 0)


@dataclass(frozen=True, slots=True)
class Synced:
    """What `Client.sync` waited for.

    Args:
        how: By what it is known: "always", the server syncs before it replies; "waitaof", it said that it has synced;
            "replicas", only they were asked; "memory", a world in this process, where there is nothing to wait for.
        replicas: How many replicas have it, where they were asked.
        ms: How long that took, in milliseconds.
    """

    how: str
    replicas: int
    ms: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What one look at the server said.

    Args:
        run: Which process it is: its `run_id`.
        how: By what it proves what it has synced; "" where it does not any more.
        replicas: How many replicas had the barrier's write, where they were asked.
        lacks: What was not so in time; "" where all was.
    """

    run: str
    how: str
    replicas: int = 0
    lacks: str = ""

    @property
    def life(self) -> tuple[str, str]:
        """What must be the same before a call and after it, for the proof to be one."""
        return self.run, self.how


class Barrier:
    """What all threads of a client pass that want the same; those who come while one is on its way share the next.

    One that has been sent proves nothing to who comes after that: his write may lie behind it.

    Args:
        wanted: What must be true.
        ask: Carries a request.
        keys: Of the namespace.
        url: Where it leads, for messages.
        home: Directory of the server where it is an embedded one.
        is_for_all: It is about all that was acknowledged, also before the server began to sync always; else about what
            was written since the last look.
    """

    def __init__(  # noqa: PLR0913 - what is wanted, of whom, and for what
        self,
        wanted: Durability,
        ask: Callable[[Request[Any]], Any],
        keys: Keys,
        url: str,
        home: Path | None = None,
        *,
        is_for_all: bool = False,
    ) -> None:
        self._wanted = wanted
        self._ask = ask
        self._keys = keys
        self._url = url
        self._home = home
        self._is_for_all = is_for_all
        self._pid = 0
        self._renew()

    def _renew(self) -> None:
        """Begin anew: of what was under way, a forked child would never hear."""
        self._pid = os.getpid()
        self._turn = threading.Condition()
        self._begun = self._ended = 0
        self._last: Proof | StoreError | None = None
        self._seen: Proof | None = None

    def life(self) -> tuple[str, str]:
        """Give the life in which the server was seen last: as good as now, for who compares it later."""
        if self._pid != os.getpid():
            self._renew()
        seen = self._seen or self.look()
        return seen.life

    def look(self) -> Proof:
        """Say by what this server proves what is wanted, and which life it is in; an embedded one is made to prove it.

        Raises:
            StoreError: It cannot be used, or has nothing by which it could prove that.
        """
        about = self._ask(Request(_about, commands=[_LIFE]))
        self._seen = seen = Proof(about["run_id"], self._way(about) if self._wanted.fsync else REPLICAS)
        return seen

    def passed(self) -> Proof:
        """Wait until what was acknowledged before is as safe as wanted, a few seconds at most, and say how that stands.

        Raises:
            StoreError: Redis cannot be used.
        """
        if self._pid != os.getpid():
            self._renew()
        with self._turn:
            mine = self._begun + 1
            while self._ended < mine and self._begun > self._ended:
                self._turn.wait()
            if self._ended >= mine:
                return _told(self._last)
            self._begun += 1
        said: Proof | StoreError = StoreError("the thread that asked for others too was interrupted: repeat the call")
        try:
            said = self._pass()
        except StoreError as error:
            said = error
            raise
        finally:
            with self._turn:
                self._last = said
                self._ended += 1
                self._turn.notify_all()
        return said

    def _pass(self) -> Proof:
        """Send one barrier, and read what is said of it."""
        how = (self._seen or self.look()).how
        wanted = self._wanted.replicas
        asked: dict[str, tuple[Any, ...]] = {}
        if how != ALWAYS or wanted or self._is_for_all:
            asked["write"] = self._write
        if how == WAITAOF:
            asked["disk"] = ("WAITAOF", 1, 0, _ROUND_MS)
        if wanted:
            asked["replicas"] = ("WAIT", wanted, _ROUND_MS)
        if how == ALWAYS:
            asked["settings"] = _SETTINGS
        asked["life"] = _LIFE
        said = self._ask(Request(lambda replies: _read(asked, replies), commands=[*asked.values()]))
        replicas = said.get("replicas", 0)
        lacks = ""
        if how == WAITAOF and said["disk"] < 1:
            lacks = "is not on its disk yet"
        elif how == ALWAYS and not _syncs_always(said["settings"]):
            # Somebody changed that meanwhile: whoever compares lives sees another one, and looks anew.
            how = ""
        if replicas < wanted:
            lacks = f"is on {replicas} of {wanted} replicas"
        proof = Proof(said["life"]["run_id"], how, replicas, lacks)
        self._seen = proof if how else None
        return proof

    @property
    def _write(self) -> tuple[Any, ...]:
        """A write behind all that was acknowledged."""
        return ("SET", self._keys.synced, int(time.time() * 1000), "PX", _KEPT_MS)

    def _way(self, about: Mapping[str, str]) -> str:
        """Find by what this server proves that something is on disk."""
        found = self._settings()
        if _syncs_always(found):
            return ALWAYS
        if self._home is not None:
            embedded.sync_always(self._home)
            # A write behind the switch: Redis before 7.2 syncs nothing without one.
            self._ask(Request(lambda reply: reply, commands=[self._write]))
            if _syncs_always(self._settings()):
                return ALWAYS
        where = f"Redis at {mask(self._url)}"
        if found.get("appendonly") == "no":
            raise StoreError(f"{where} keeps no append-only file, so nothing is on disk: set `appendonly yes` there")
        version = tuple(int(part) for part in about.get("redis_version", "").split(".")[:2] if part.isdigit())
        if version >= _WAITS and found.get("appendfsync") != "no":
            return WAITAOF
        unknown = "" if found else " (and does not let us ask for it: `+config|get` in its ACL)"
        raise StoreError(
            f"{where} cannot say what is on its disk{unknown}: set `appendfsync always` and "
            "`no-appendfsync-on-rewrite no` there, or use Redis 7.2 or newer with `appendfsync everysec`"
        )

    def _settings(self) -> dict[str, str]:
        """Ask how it syncs; nothing where it does not tell."""
        try:
            return dict(self._ask(Request(_pairs, commands=[_SETTINGS])))
        except StoreError as error:
            if isinstance(error.__cause__, ResponseError):
                return {}
            raise


def _told(said: Proof | StoreError | None) -> Proof:
    if isinstance(said, Proof):
        return said
    # Of its own for each thread: raising one error in several would mix their tracebacks.
    raise StoreError(str(said)) from said


def _syncs_always(found: Mapping[str, str]) -> bool:
    wanted = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
    return all(found.get(name) == value for name, value in wanted.items())


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pairs(reply: Any) -> dict[str, str]:
    """Read the reply to CONFIG GET, which some carriers have read already."""
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in reply.items()}
    texts = [_text(part) for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _about(reply: Any) -> dict[str, str]:
    """Read the reply to INFO, which some carriers have read already.

    Raises:
        LookupError: It does not tell the life of the server.
    """
    if isinstance(reply, dict):
        found = {_text(name): _text(value) for name, value in reply.items()}
    else:
        lines = [line.partition(":") for line in _text(reply).splitlines()]
        found = {name: value for name, colon, value in lines if colon}
    if not found.get("run_id"):
        raise LookupError("run_id of the server")
    return found


def _read(asked: Iterable[str], replies: Iterable[Any]) -> dict[str, Any]:
    """Read the replies to a barrier, by what was asked."""
    readers: dict[str, Callable[[Any], Any]] = {
        "write": lambda reply: reply,
        "disk": lambda reply: int(reply[0]),
        "replicas": int,
        "settings": _pairs,
        "life": _about,
    }
    return {name: readers[name](reply) for name, reply in zip(asked, replies, strict=True)}
