"""What must be true of what Redis acknowledged: how that is asked for, and how it is proven.

`appendfsync always` writes and syncs the append-only file before the replies of that turn of Redis's event loop go out:
there a reply is the proof, and one sync serves all who write in that turn. With `everysec` nothing tells of a single
write before Redis 7.2: while a sync is under way, writes are acknowledged that are in memory alone. From 7.2 on,
`WAITAOF` waits for the sync that covers what this connection has written, and `WAIT`, in any version, for replicas.
So a barrier is a write of its own on one connection, behind all that was acknowledged before, and a wait for it. What
one script did is proven in the round trip of that script, by what comes right behind it over the same connection. Each
thread has a connection of its own for that: Redis syncs once for all of them, so they need not wait for each other.

All of this is about one life of the server. One that was killed after it acknowledged something, and came back without
it, would let each barrier pass: so each look tells the `run_id` of the process, and who wants a proof compares it with
the one from before his call. The same process before and after has lived, and had what it acknowledged, in between.

Who calls this: the client; `embedded` makes its own server sync always.
What it may import: `redis` for its errors, `fsm.config`, `fsm.errors`, and `embedded`, `keys` and `requests` beside it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

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

R = TypeVar("R")
ALWAYS, WAITAOF, REPLICAS = "always", "waitaof", "replicas"
# How long Redis may hold back one reply: a connection waits 10 s for one, and there are two such waits in a barrier.
_ROUND_MS = 2000
_KEPT_MS = 60_000
_WAITS = (7, 2)
_PROVES = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
# A pattern is held against all settings there are, which takes Redis longer than the script before it; a list of names
# is what 6.2 does not know.
_SETTINGS = ("CONFIG", "GET", *_PROVES)
_SETTINGS_6 = ("CONFIG", "GET", "*append*")
_NAMES = (7, 0)
_LIFE = ("INFO", "server")
_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


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
    """How one client proves what it wants of one server; its threads share what was seen of it, and nothing else.

    Args:
        wanted: What must be true.
        ask: Carries a request.
        keys: Of the namespace.
        url: Where it leads, for messages.
        home: Directory of the server where it is an embedded one.
    """

    def __init__(
        self,
        wanted: Durability,
        ask: Callable[[Request[Any]], Any],
        keys: Keys,
        url: str,
        home: Path | None = None,
    ) -> None:
        self._wanted = wanted
        self._ask = ask
        self._keys = keys
        self._url = url
        self._home = home
        self._seen: Proof | None = None
        self._settings_command: tuple[str, ...] = _SETTINGS_6

    def life(self) -> tuple[str, str]:
        """Give the life in which the server was seen last: as good as now, for who compares it later."""
        return (self._seen or self.look()).life

    def forget(self) -> None:
        """Look anew at the server before the next call: something went wrong with it."""
        self._seen = None

    def look(self) -> Proof:
        """Say by what this server proves what is wanted, and which life it is in; an embedded one is made to prove it.

        Raises:
            StoreError: It cannot be used, or has nothing by which it could prove that.
        """
        run, about = self._ask(Request(lambda reply: (_run_id(reply), _about(reply)), commands=[_LIFE]))
        self._seen = seen = Proof(run, self._way(about) if self._wanted.fsync else REPLICAS)
        return seen

    def behind(self, request: Request[R]) -> Request[tuple[R, Proof]]:
        """Put the proof of what a script does right behind it: they go to the same process, in one round trip.

        Where the script finds that somebody did it before, this proves nothing of what he did: see `passed`.
        """
        how = (self._seen or self.look()).how
        asked = self._asked(how, _ROUND_MS, is_written=how != ALWAYS or self._wanted.replicas > 0)
        return Request(
            lambda replies: (request.read(replies[0]), self._proof(how, asked, replies[1:])),
            request.script,
            request.keys,
            request.arguments,
            [*asked.values()],
        )

    def passed(self, within_ms: int = _ROUND_MS) -> Proof:
        """Wait until what was acknowledged before is as safe as wanted, a few seconds at most, and say how that stands.

        Args:
            within_ms: For the disk, and for replicas.

        Raises:
            StoreError: Redis cannot be used.
        """
        how = (self._seen or self.look()).how
        asked = self._asked(how, max(1, min(within_ms, _ROUND_MS)), is_written=True)
        try:
            proof: Proof = self._ask(
                Request(lambda replies: self._proof(how, asked, replies), commands=[*asked.values()])
            )
        except StoreError:
            self.forget()
            raise
        return proof

    def _asked(self, how: str, ms: int, *, is_written: bool) -> dict[str, tuple[Any, ...]]:
        """Give what a barrier asks of Redis, by what that is."""
        asked: dict[str, tuple[Any, ...]] = {}
        if is_written:
            asked["write"] = self._write
        if how == WAITAOF:
            asked["disk"] = ("WAITAOF", 1, 0, ms)
        if self._wanted.replicas:
            asked["replicas"] = ("WAIT", self._wanted.replicas, ms)
        if how == ALWAYS:
            asked["settings"] = self._settings_command
        asked["life"] = _LIFE
        return asked

    def _proof(self, how: str, asked: Iterable[str], replies: Iterable[Any]) -> Proof:
        """Read what is said of a barrier."""
        said = {name: _READERS[name](reply) for name, reply in zip(asked, replies, strict=True)}
        replicas = said.get("replicas", 0)
        lacks = ""
        if how == WAITAOF and said["disk"] < 1:
            lacks = "is not on its disk yet"
        elif how == ALWAYS and not _syncs_always(said["settings"]):
            # Somebody changed that meanwhile: whoever compares lives sees another one, and looks anew.
            how = ""
        if replicas < self._wanted.replicas:
            lacks = f"is on {replicas} of {self._wanted.replicas} replicas"
        proof = Proof(said["life"], how, replicas, lacks)
        self._seen = proof if how else None
        return proof

    @property
    def _write(self) -> tuple[Any, ...]:
        """A write behind all that was acknowledged."""
        return ("SET", self._keys.synced, int(time.time() * 1000), "PX", _KEPT_MS)

    def _way(self, about: Mapping[str, str]) -> str:
        """Find by what this server proves that something is on disk."""
        version = tuple(int(part) for part in about.get("redis_version", "").split(".")[:2] if part.isdigit())
        self._settings_command = _SETTINGS if version >= _NAMES else _SETTINGS_6
        found = self._settings()
        if _syncs_always(found):
            if self._home is None:
                self._refuse_beginners()
            return ALWAYS
        if self._home is not None:
            embedded.sync_always(self._home)
            # A write behind the switch: Redis before 7.2 syncs nothing without one.
            self._ask(Request(lambda reply: reply, commands=[self._write]))
            if _syncs_always(self._settings()):
                return ALWAYS
        where = f"Redis at {mask(self._url)}"
        if found.get("appendonly") == "no":
            raise StoreError(
                f"{where} keeps no append-only file, so nothing is on disk: `CONFIG SET appendonly yes` there, and "
                "write that into its redis.conf"
            )
        if version >= _WAITS and found.get("appendfsync") != "no":
            return WAITAOF
        unknown = "" if found else " (and does not let us ask for it: `+config|get` in its ACL)"
        raise StoreError(
            f"{where} cannot say what is on its disk{unknown}: set `appendfsync always` and "
            "`no-appendfsync-on-rewrite no` there, or use Redis 7.2 or newer with `appendfsync everysec`"
        )

    def _refuse_beginners(self) -> None:
        """Refuse a server that has just been told to keep a file.

        Until it has written the first one whole, what it syncs is in a file that it forgets when it is restarted. One
        that began with nothing and rewrites its file for the first time looks the same.

        Raises:
            StoreError: It may be so.
        """
        about = self._ask(Request(_about, commands=[("INFO", "persistence")]))
        is_writing = "1" in (about.get("aof_rewrite_in_progress"), about.get("aof_rewrite_scheduled"))
        if is_writing and (about.get("aof_last_rewrite_time_sec"), about.get("aof_base_size")) == ("-1", "0"):
            raise StoreError(
                f"Redis at {mask(self._url)} writes its append-only file for the first time just now, and may keep "
                "nothing until that is done: wait for `aof_rewrite_in_progress:0` in `INFO persistence`"
            )

    def _settings(self) -> dict[str, str]:
        """Ask how it syncs; nothing where it does not tell."""
        try:
            return dict(self._ask(Request(_pairs, commands=[self._settings_command])))
        except StoreError as error:
            if isinstance(error.__cause__, ResponseError):
                return {}
            raise


def _syncs_always(found: Mapping[str, str]) -> bool:
    return all(found.get(name) == value for name, value in _PROVES.items())


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pairs(reply: Any) -> dict[str, str]:
    """Read the reply to CONFIG GET, which some carriers have read already."""
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in reply.items()}
    texts = [_text(part) for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _about(reply: Any) -> dict[str, str]:
    """Read the reply to INFO, which some carriers have read already."""
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in reply.items()}
    lines = [line.partition(":") for line in _text(reply).splitlines()]
    return {name: value for name, colon, value in lines if colon}


def _run_id(reply: Any) -> str:
    """Find the life of the server in the reply to INFO.

    Raises:
        LookupError: It does not tell.
    """
    if isinstance(reply, bytes):
        found = _RUN_ID.search(reply)
        run = found[1].decode() if found else ""
    else:
        run = _about(reply).get("run_id", "")
    if not run:
        raise LookupError("run_id of the server")
    return run


_READERS: dict[str, Callable[[Any], Any]] = {
    "write": lambda reply: reply,
    "disk": lambda reply: int(reply[0]),
    "replicas": int,
    "settings": _pairs,
    "life": _run_id,
}
