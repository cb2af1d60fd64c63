"""What can be asked of Redis, as values: the commands, and how to read their replies.

A `Request` does nothing by itself. `run` carries it over a connection; an asyncio client carries the same request in
its own way, so there is no second copy of what to send and how to read it.

Who calls this: `calls` makes requests, the client and the workers carry them.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import redis

from fsm.errors import StoreError
from fsm.store.connection import explain
from fsm.store.passing import is_demoted
from fsm.store.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TEST_CLOCK", "Request", "command", "drop_demoted", "read", "run", "script"]

R = TypeVar("R")
_LUA = files("fsm.store") / "lua"
# Parts of the prelude, and what each of them defines.
_PART = re.compile(r"\n\n(?=--|local )")
_LOCAL = re.compile(r"^local (?:function )?([\w, ]+)", re.MULTILINE)
_WORD = re.compile(r"\w+")
# Where this variable is "1", scripts go by a clock that a test can move: `fsm.testing.Clock`.
TEST_CLOCK = "FSM_TEST_CLOCK"
# Who is alive, and until when, is told by the true time, as RQ tells it.
_BY_TRUE_TIME = ("beat", "host")


@cache
def _prelude() -> list[tuple[str, set[str], set[str]]]:
    """Give the parts of the prelude, each with the names that it defines and all of its words."""
    parts = _PART.split((_LUA / "prelude.lua").read_text("utf-8"))
    return [
        (part, {word for line in _LOCAL.findall(part) for word in _WORD.findall(line)}, set(_WORD.findall(part)))
        for part in parts
    ]


@cache
def script(name: str) -> tuple[str, str]:
    """Load one Lua script: its text, with what it needs of the prelude in front, and its SHA-1 as Redis knows it."""
    text = (_LUA / f"{name}.lua").read_text("utf-8")
    is_movable = os.environ.get(TEST_CLOCK) == "1" and name not in _BY_TRUE_TIME
    used = set(_WORD.findall(text))
    # Redis makes each function anew at each call of a script. Of two parts only the later can use the earlier.
    for part, names, words in reversed(_prelude()):
        # A name that a comment has by chance costs little, and one that is missing would raise.
        if not names or not names.isdisjoint(used):
            used |= words
            if is_movable and "clock" in names:
                clock = (_LUA / "clock.lua").read_text("utf-8")
                used.update(_WORD.findall(clock))
                text = f"{clock}\n\n{text}"
            text = f"{part}\n\n{text}"
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Request(Generic[R]):
    """One round trip.

    Args:
        read: Turns the reply (a list of replies where several things are asked) into what was asked for.
        script: Name of a script, or "" for plain commands.
        keys: KEYS of the script.
        arguments: ARGV of the script.
        commands: Plain commands, sent in one pipeline; with a script, behind it over the same connection, and their
            replies are as Redis gives them.
        is_atomic: The commands are a transaction: nobody else's stands between them.
        is_ahead: The reply may be read later: a carrier that can gives a ticket, by which a plan asks for it.
    """

    read: Callable[[Any], R]
    script: str = ""
    keys: Sequence[str] = ()
    arguments: Sequence[Any] = ()
    commands: Sequence[tuple[Any, ...]] = ()
    is_atomic: bool = False
    is_ahead: bool = False


def command(request: Request[Any]) -> tuple[Any, ...]:
    """Give a script, by its SHA-1, or the one plain command of a request, as it is sent over a connection."""
    if not request.script:
        return request.commands[0]
    return "EVALSHA", script(request.script)[1], str(len(request.keys)), *request.keys, *request.arguments


def run(client: redis.Redis, request: Request[R], url: str = "") -> R:
    """Carry a request over a connection, and read its reply.

    Raises:
        StoreError: Redis cannot be used, or what it holds cannot be read; the text says why and what to try.
    """
    try:
        reply = _send(client, request)
    except redis.RedisError as error:
        drop_demoted(client, error)
        raise explain(error, url) from error
    return read(request, reply)


def drop_demoted(client: redis.Redis, error: redis.RedisError) -> None:
    """Close idle connections where a replica said this: it keeps them, and only new ones find the primary."""
    if is_demoted(error):
        if isinstance(client, Wire):
            client.hand_back()
        client.connection_pool.disconnect(inuse_connections=False)


def read(request: Request[R], reply: Any) -> R:
    """Read the reply to a request.

    Raises:
        StoreError: What Redis holds cannot be read.
    """
    try:
        return request.read(reply)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Replies to what we wrote are of our form; these hold what somebody else wrote.
        problem = f"what Redis holds cannot be read ({type(error).__name__}: {error}): was it edited by hand?"
        raise StoreError(problem) from error


def _send(client: redis.Redis, request: Request[Any]) -> Any:
    # redis-py types what it sends only by its many methods; this one takes any command.
    execute: Callable[..., Any] = client.execute_command
    if request.script:
        if request.commands:
            return _send_with_script(client, request)
        text, sha = script(request.script)
        count = str(len(request.keys))
        try:
            if isinstance(client, Wire):
                return client.at_once("EVALSHA", sha, count, *request.keys, *request.arguments)
            return execute("EVALSHA", sha, count, *request.keys, *request.arguments)
        except redis.exceptions.NoScriptError:
            return execute("EVAL", text, count, *request.keys, *request.arguments)
    if len(request.commands) > 1:
        return _send_many(client, request)
    (command,) = request.commands
    if isinstance(client, Wire) and command[0] not in client.response_callbacks:
        execute = client.at_once
    return execute(*command)


def _send_with_script(client: redis.Redis, request: Request[Any]) -> list[Any]:
    """Run a script and what comes right behind it, and give the replies to all of it."""

    def send(*call: Any) -> list[Any]:
        commands = [call, *request.commands]
        if isinstance(client, Wire):
            return client.all_at_once(commands, as_it_came=True)
        return _send_many(client, Request(request.read, commands=commands))

    by_sha = command(request)
    try:
        return send(*by_sha)
    except redis.exceptions.NoScriptError:
        return send("EVAL", script(request.script)[0], *by_sha[2:])


def _send_many(client: redis.Redis, request: Request[Any]) -> list[Any]:
    if isinstance(client, Wire) and not request.is_atomic:
        return client.all_at_once(request.commands)
    with client.pipeline(transaction=request.is_atomic) as pipeline:
        add: Callable[..., Any] = pipeline.execute_command
        for command in request.commands:
            add(*command)
        replies: list[Any] = pipeline.execute()
        return replies
