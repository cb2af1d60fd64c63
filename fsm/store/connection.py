"""How we connect: URLs, time-outs, repeats, what a server must be, and errors in plain words.

Who calls this: the client, the workers and the command line; everything else is given a connection.
What it may import: `redis`, `fsm.config`, `fsm.errors`, and `embedded`, `packing`, `passing`, `server` and `wire`
beside it.

How long redis-py may go on repeating a call matters, because our scripts recognise a repeat by a record that lives at
least 60 s beyond its event. From the first sending of a call to the last, at most:

    10 s   first try: `socket_timeout` without a reply
   + 1 s   until `REPEAT_WITHIN` is over; no repeat begins after 11 s
   + 1 s   pause before that last repeat
   + 6 s   connecting anew: 3 s for each address of the host, and names with more than two are rare
   +10 s   the handshake of TLS, where there is one
   + 6 s   2 s for each reply of our handshake: AUTH, SELECT, SETNAME
    ----
    34 s   and 44 s until the last reply is given up.

What was sent ahead (see `ahead`) is run again up to `REPEAT_WITHIN` after it was sent, and then all of this begins:
45 s from the first sending to the last.

RQ raises `socket_timeout` to 415 s on the pool of a worker (so give a worker its own); a call that waited so long is
beyond `REPEAT_WITHIN` and not repeated at all.
"""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from fsm import config
from fsm.errors import ConfigError, StoreError
from fsm.store import embedded, passing, server
from fsm.store.packing import packer
from fsm.store.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REPEAT_WITHIN", "BoundedRetry", "connect", "embedded_home", "explain", "mask", "memory_parts"]

T = TypeVar("T")
Redis = redis.Redis

_SOCKET_TIMEOUT = 10.0
_CONNECT_TIMEOUT = 3.0  # for each address of the host
_HANDSHAKE_TIMEOUT = 2.0  # for each reply
_REPEATS = 6  # pauses of at most 0.02, 0.04, 0.08, 0.16, 0.32 and 0.64 s
REPEAT_WITHIN = 11.0
_MAX_CONNECTIONS = 10_000  # as many as threads ask for, up to what a server takes; redis-py's 100 fails the 101st
_MAX_PORT = 65535
_FORMS = (
    "write redis://host:6379/0, rediss://host:6379/0, unix:///path/to/redis.sock?db=0, embedded:///directory "
    "or, in tests, memory://, with # ? / @ in passwords and paths as %23 %3F %2F %40"
)
# What a URL may say after its "?". The rest of redis-py's options would undo the time-outs above or our replies.
_OPTIONS = ("db", "username", "password")
_TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
)
_SCHEMES = {
    "redis": _OPTIONS,
    "rediss": _OPTIONS + _TLS_OPTIONS,
    "unix": _OPTIONS,
    "embedded": ("db",),
    "memory": ("effects",),
}


class BoundedRetry(Retry):
    """Repeats a call that met a broken connection or no reply: a few times, and none later than after 11 s.

    redis-py copies it for each connection, which serves one thread at a time, so it may remember that it is at work:
    a call that has to connect first runs into the retry of the connecting. That one does not repeat by itself, else
    tries would multiply.
    """

    def __init__(self) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=0.01, cap=1.0), _REPEATS)
        self._at_work = False

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,  # noqa: FBT001, FBT002 - redis-py's signature
    ) -> T:
        """Call `do` until it succeeds or may not be repeated; `fail` is told of each failure."""
        if self._at_work:
            return do()
        last_repeat = time.monotonic() + REPEAT_WITHIN
        failures = 0
        self._at_work = True
        try:
            while True:
                try:
                    return do()
                except self._supported_errors as error:
                    if is_retryable and not is_retryable(error):
                        raise
                    failures += 1
                    fail(*((error, failures) if with_failure_count else (error,)))
                    if failures > self._retries or time.monotonic() > last_repeat:
                        raise
                    time.sleep(self._backoff.compute(failures))
        finally:
            self._at_work = False


def connect(
    url: str | None = None,
    *,
    socket_timeout: float = _SOCKET_TIMEOUT,
    check: bool = True,
    warn: Callable[[str], None] | None = None,
) -> Wire:
    """Make a connection pool for this URL; it may be shared by threads and survives a fork.

    Replies are RESP2 and raw bytes. Sockets open when they are first needed. `embedded://` starts a server, or joins
    the one that runs.

    Args:
        url: What `fsm.config.resolve` finds, when not given.
        socket_timeout: Seconds to wait for a reply, more than 0 and at most 10. Commands that block in Redis must ask
            for less.
        check: Ask the server at once, in one round trip, whether it will do.
        warn: Told in the place of the warning, by who has a log.

    Raises:
        ConfigError: The URL or the time-out is wrong.
        StoreError: The server cannot be reached, is older than 6.2 or in cluster mode; or no embedded one can start.

    Warns:
        RuntimeWarning: The server drops keys when it is full (its `maxmemory-policy` evicts).
    """
    given = config.resolve("url", url)
    if not 0 < socket_timeout <= _SOCKET_TIMEOUT:
        raise ConfigError("socket_timeout", f"must be more than 0 and at most {_SOCKET_TIMEOUT:g} s: {socket_timeout}")
    parts = _checked(given)
    if parts.scheme == "memory":
        problem = (
            "is a world inside one process, for the Client of a test: give a Redis that processes can share, such as "
            "embedded:///directory"
        )
        raise ConfigError(f"URL {mask(given)!r}", problem)
    if parts.scheme == "embedded":
        query = f"?{parts.query}" if parts.query else ""
        target = embedded.start_or_join(_directory(parts)) + query
    else:
        target = given
    host = {"ssl_check_hostname": True} if parts.scheme == "rediss" and "ssl_cert_reqs" not in parts.query else {}
    try:
        client: Wire = Wire.from_url(  # type: ignore[assignment] # redis-py makes the class it is asked for
            target,
            **host,  # redis-py's default depends on its version; what the URL says goes before
            socket_timeout=socket_timeout,
            socket_connect_timeout=_CONNECT_TIMEOUT,
            retry=BoundedRetry(),
            max_connections=_MAX_CONNECTIONS,
            protocol=2,
            decode_responses=False,
            redis_connect_func=_shake_hands,
            command_packer=packer(),
        )
    except (ValueError, redis.RedisError) as error:
        raise _wrong(given, str(error)) from error
    if check:
        try:
            # First the connection alone: what its handshake refuses must not be taken for a refused INFO.
            client.connection_pool.release(client.connection_pool.get_connection())
            risk, client.run_id = server.examine(client, mask(given))
        except redis.RedisError as error:
            client.close()
            raise explain(error, given) from error
        except BaseException:
            client.close()
            raise
        if risk and warn is not None:
            warn(risk)
        elif risk:
            warnings.warn(risk, RuntimeWarning, stacklevel=2)
    return client


def memory_parts(url: str) -> tuple[str, bool]:
    """Read a `memory://` URL: the name of its world, "" for one of its own, and whether effects are run there.

    Raises:
        ConfigError: It is wrong.

    >>> memory_parts("memory://"), memory_parts("memory://shop?effects=off")
    (('', True), ('shop', False))
    """
    parts = _checked(url)
    options = dict(parse_qsl(parts.query))
    if options.get("effects", "on") not in {"on", "off"}:
        raise ConfigError(f"URL {mask(url)!r}", "has effects= that is neither on nor off")
    return parts.netloc, options.get("effects", "on") == "on"


def embedded_home(url: str) -> Path | None:
    """Give the directory of an `embedded://` URL; `None` of any other.

    Raises:
        ConfigError: It is wrong.

    >>> embedded_home("embedded:///var/lib/shop").as_posix(), embedded_home("redis://host")
    ('/var/lib/shop', None)
    """
    parts = _checked(url)
    return _directory(parts).absolute() if parts.scheme == "embedded" else None


def mask(url: str) -> str:
    """Return the URL with `***` for each password; it may be no URL at all.

    >>> mask("redis://ann:secret@host:6379/0")
    'redis://ann:***@host:6379/0'
    >>> mask("unix:///run/redis.sock?db=1&password=secret")
    'unix:///run/redis.sock?db=1&password=***'
    """
    text, mark, query = url.partition("?")
    if mark:
        options = [option.partition("=") for option in query.split("&")]
        query = "&".join(f"{name}{is_}{'***' if 'pass' in name.lower() else value}" for name, is_, value in options)
    # The last @ ends the user's part, whatever a password in it holds.
    user, at, host = f"{text}{mark}{query}".rpartition("@")
    if not at:
        return host
    scheme, slashes, rest = user.partition("://")
    name, colon, _ = (rest if slashes else user).partition(":")
    return f"{scheme if slashes else ''}{slashes}{name}{colon}{'***' if colon else ''}@{host}"


def explain(error: redis.RedisError, url: str) -> StoreError:
    """Say in one sentence what an error of redis-py means, at which URL, and what to try.

    Returns:
        What to raise, `from` the error.
    """
    where = mask(url)
    text = str(error)
    for kind, marks, meaning, remedy in _MEANINGS:
        if isinstance(error, kind) and (not marks or any(mark in text for mark in marks)):
            return StoreError(f"Redis at {where} {meaning} ({text or type(error).__name__}): {remedy}")
    return StoreError(f"Redis at {where} cannot do this ({text or type(error).__name__}): look into its log")


_REPEAT = "what was sent may have been done, so repeat it with the same key"
_GONE = f"if it was there just now, {_REPEAT}"
_FULL = ("is full", "raise its `maxmemory`, or wait until workers have drained the mailboxes")
_REPLICA = (
    "is a replica, or has lost its primary, and takes no writes",
    "put the primary into the URL; after a failover, repeat it with the same key",
)
_RIGHTS = ("does not allow this to our user", "see docs/security.md for its rights; `ACL LOG` has what was refused")
_CLUSTER = (server.CLUSTER, server.NO_CLUSTER)

_Network = redis.exceptions.ConnectionError
_Reply = redis.exceptions.ResponseError

# What redis-py raises, what its text holds, what that means, what to try. The first that fits is taken: to redis-py,
# errors of authentication and loading are connection errors. Inside scripts, Redis 6.2 hides the code in the text.
# fmt: off
_MEANINGS: tuple[tuple[type[redis.RedisError], tuple[str, ...], str, str], ...] = (
    (redis.exceptions.AuthenticationError, (), "does not let us in",
     "put user and password into the URL, as in redis://user:password@host, or leave out what the server has not set"),
    (redis.exceptions.BusyLoadingError, (), "is still loading its data",
     "try again when it has, with the same key: what was sent before it restarted may have been done"),
    (redis.exceptions.MaxConnectionsError, (), "is asked by too many threads at once", "use fewer threads"),
    (redis.exceptions.TimeoutError, (), "does not answer in time",
     f"check host, port, firewall, load, and with rediss:// that its port speaks TLS; {_REPEAT}"),
    (_Network, ("refused",), "cannot be reached",
     f"start a server there, set FSM_URL to where one is, or use embedded:///directory, which brings its own; {_GONE}"),
    (_Network, ("not known", "name resolution", "nodename", "No address associated"), "has a host name nobody knows",
     "check the name in the URL"),
    (_Network, ("No such file",), "needs a socket or file that is not there",
     f"check the paths in the URL, or start a server that listens there; {_GONE}"),
    (_Network, ("Permission denied",), "has a socket that this user may not open",
     "run as the user of the server, or change its `unixsocketperm`"),
    (_Network, ("SSL", "certificate"), "does not agree with us on TLS",
     "use redis:// if its port has no TLS, or name your own authority with ?ssl_ca_certs=/path"),
    (_Network, ("max number of clients",), "takes no more clients", "raise its `maxclients`, or run fewer processes"),
    (_Network, (), "broke the connection", f"see that it runs, and whether its port wants rediss://; {_REPEAT}"),
    (redis.exceptions.OutOfMemoryError, (), *_FULL),
    (_Reply, ("OOM ",), *_FULL),
    (redis.exceptions.ReadOnlyError, (), *_REPLICA),
    (_Reply, passing.DEMOTED, *_REPLICA),
    (_Reply, (passing.FEW_REPLICAS,), "has too few replicas that keep up, and takes no writes",
     "see to its replicas, or lower its `min-replicas-to-write`, then repeat it with the same key"),
    (_Reply, (passing.BUSY,), "is busy with a script that somebody runs", "wait for it, or end it with SCRIPT KILL"),
    (redis.exceptions.NoPermissionError, (), *_RIGHTS),
    (_Reply, ("NOPERM", "user executing the script", "ACL failure"), *_RIGHTS),
    (redis.exceptions.NoScriptError, (), "has forgotten a script", "repeat the call, which loads it again"),
    (redis.exceptions.ClusterError, (), *_CLUSTER),
    (redis.exceptions.AskError, (), *_CLUSTER),
    (_Reply, ("same slot", "cluster mode"), *_CLUSTER),
    (_Reply, (passing.UNSAVED,), "takes no writes, for it cannot save them",
     "see to the room and the rights on its disk, then repeat it with the same key"),
    (_Reply, ("DB index",), "has no database of that number",
     "use a smaller number in the URL; there are 0 to 15 unless the server's `databases` says otherwise"),
    (_Reply, ("WRONGTYPE",), "holds something else under one of our names",
     "use another namespace or database, or remove what is not ours"),
    (_Reply, ("unknown command",), "lacks a command that we need",
     "use Redis 6.2 or newer, or Valkey, with all commands under their own names"),
)
# fmt: on


def _wrong(url: str, problem: str) -> ConfigError:
    return ConfigError(f"URL {mask(url)!r}", f"{problem}; {_FORMS}")


def _checked(url: str) -> SplitResult:
    """Take the URL apart and refuse what redis-py would misread in silence.

    No message quotes a piece of the URL, for what stands there may be a piece of a password with a bare / or ? in it.
    """
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise _wrong(url, "does not begin with one of these schemes")
    if "#" in url or "%00" in url or any(not char.isprintable() or char.isspace() for char in url):
        raise _wrong(url, "holds a #, white space or a NUL")
    apart = _take_apart(url)
    if apart is None:
        raise _wrong(url, f"has a wrong host, a port that is not 1 to {_MAX_PORT}, or a wrong part after ?")
    parts, port, options = apart
    if scheme == "memory":
        if port is not None or parts.path or "@" in parts.netloc:
            problem = (
                "is of a world in memory and has more than its name: write memory://, or memory://name to share it"
            )
            raise ConfigError(f"URL {mask(url)!r}", problem)
    else:
        check = _check_address if scheme in {"redis", "rediss"} else _check_path
        check(url, parts, port)
    for name, value in options.items():
        if name not in _SCHEMES[scheme]:
            raise _wrong(url, f"has an unknown option after ?; known are {', '.join(_SCHEMES[scheme])}")
        if name == "db" and not _is_number(value):
            raise _wrong(url, "has a db= that is not the number of a database")
    return parts


def _take_apart(url: str) -> tuple[SplitResult, int | None, dict[str, str]] | None:
    # None instead of an error, which would carry urllib's as its context, and that may quote a piece of the password.
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in {"redis", "rediss"}:
            (parts.hostname or "").encode("idna")  # as connecting would, which would fail with a UnicodeError
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else ()
        return parts, parts.port, dict(options)
    return None


def _check_address(url: str, parts: SplitResult, port: int | None) -> None:
    if not parts.hostname:
        raise _wrong(url, "names no host")
    if port == 0:
        raise _wrong(url, f"has port 0, and ports are 1 to {_MAX_PORT}")
    if parts.path not in {"", "/"} and not _is_number(parts.path[1:]):
        raise _wrong(url, "has a path, where only the number of a database may stand")


def _check_path(url: str, parts: SplitResult, port: int | None) -> None:
    if parts.scheme == "embedded" and parts.netloc in {".", ".."}:
        return
    if parts.hostname or port is not None or (parts.scheme == "embedded" and parts.netloc):
        raise _wrong(url, "has a host where its path must begin with a slash")
    if parts.path in {"", "/"}:
        raise _wrong(url, "names no path")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _directory(parts: SplitResult) -> Path:
    path = unquote(parts.path)
    return Path(parts.netloc, path.lstrip("/")) if parts.netloc else Path(path)


def _shake_hands(connection: Any) -> None:
    """Do redis-py's handshake on a new `Connection`, in bounded time, and name it for CLIENT LIST."""
    socket = connection._sock  # noqa: SLF001 - redis-py has one time-out for handshake and replies
    socket.settimeout(_HANDSHAKE_TIMEOUT)
    connection.driver_info = None  # two more replies to wait for, for the sake of two more words in CLIENT LIST
    connection.on_connect()
    connection.send_command("CLIENT", "SETNAME", "fsm")
    with suppress(redis.exceptions.ResponseError):  # an ACL may refuse it
        connection.read_response()
    socket.settimeout(connection.socket_timeout)
