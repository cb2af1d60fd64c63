"""What applications ask of durability: where the data is, and what of it is on disk.

Who calls this: the client, which inherits these verbs.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from fsm.carrier import PlanCarrier
from fsm.errors import PayloadError, StoreError
from fsm.store import embedded
from fsm.store.ahead import Ticket
from fsm.store.connection import REPEAT_WITHIN, embedded_home, mask
from fsm.store.durability import MEMORY, Barrier, Durability, Synced, read_durability

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fsm.store.connection import Redis
    from fsm.store.durability import Proof
    from fsm.store.keys import Keys
    from fsm.store.requests import Request
    from fsm.verbs import Plan

__all__ = ["Durable", "Keeping"]

R = TypeVar("R")
_PATIENCE = 10.0
_TAKEN = ("SENT", "DUPLICATE")
_BEFORE = ("DUPLICATE", "EXISTS")
# What a repeat may say of what was said before.
_AGAIN = {"SENT": _TAKEN, "DUPLICATE": _TAKEN, "CREATED": ("CREATED",), "EXISTS": ("EXISTS", "CREATED")}


class Durable(PlanCarrier):
    """The verbs of a client that are about what survives."""

    keys: Keys
    _durability: Durability
    _barriers: dict[Durability, Barrier]
    _run_id: str = ""

    @property
    def file(self) -> Path | None:
        """Where the data are, with `embedded://`: the append-only file, or the directory of such files of Redis 7.

        Before anything was written it is the directory of the URL. `None` where Redis is not ours to look for, and for
        `memory://`. It asks nothing and starts nothing.
        """
        home = embedded_home(self.url)
        return None if home is None else embedded.data_file(home)

    def sync(self, durability: str = "fsync", *, timeout: float = _PATIENCE) -> Synced:
        """Wait until all that Redis has acknowledged so far is on its disk, whoever sent it.

        A Redis of its own, `embedded://`, is told to sync always by the first who asks, and does so from then on.

        Args:
            durability: Or on replicas: "replicas:2", "fsync+replicas:1".
            timeout: Seconds.

        Returns:
            By what that is known, and how long it took.

        Raises:
            StoreError: Redis cannot be used; or it cannot say what is on its disk; or that was not so in time; or it
                was restarted since this client began, or asked last: what it acknowledged before that may be lost.
            ConfigError: There is no such durability.
            PayloadError: The time-out is none.
        """
        wanted = read_durability(durability, "sync(durability)")
        _check_timeout(timeout)
        began = time.monotonic()
        if self.world is not None or wanted == MEMORY:
            return Synced("memory", 0, 0.0)
        _ = self.redis  # which notes whom it meets
        before = self._run_id
        proof = _until(self._barrier(wanted), None, began + timeout, self.url, timeout)
        self._run_id = proof.run
        if before not in ("", proof.run):
            raise StoreError(
                f"Redis at {mask(self.url)} was restarted: what it acknowledged before that may be lost, look at it; "
                "what it has now is safe"
            )
        return Synced(proof.how, proof.replicas, round(1000 * (time.monotonic() - began), 3))

    def _met(self, connection: Redis) -> Redis:
        """Note which process of the server was met first: what it says is about that one."""
        if not self._run_id:
            self._run_id = getattr(connection, "run_id", "")
        return connection

    def _barrier(self, wanted: Durability) -> Barrier:
        """Give the barrier of all threads of this client which want this."""
        made = self._barriers.get(wanted)
        if made is None:
            new = Barrier(wanted, self.ask, self.keys, self.url, embedded_home(self.url))
            made = self._barriers.setdefault(wanted, new)
        return made

    def _keeping(self, durability: str | Keeping | None) -> Keeping | None:
        """Begin a call that counts when it is safe; `None` where it does as soon as Redis has it.

        Args:
            durability: As the caller wrote it; `None` means what the client was made with. One that was begun already
                is gone on with.

        Raises:
            ConfigError: There is no such durability.
            StoreError: Redis cannot be used, or cannot prove that.
        """
        if durability is None:
            wanted = self._durability
        elif isinstance(durability, Keeping):
            return durability
        else:
            wanted = read_durability(durability, "durability=")
        if wanted == MEMORY or self.world is not None:
            return None
        return Keeping(self._barrier(wanted), self.ask, self.url)


class Keeping:
    """One call that counts when it is safe: what it asked of Redis, and in which life of the server it began.

    Args:
        barrier: What is waited for.
        ask: Carries a request.
        url: Where it leads, for messages.
    """

    def __init__(self, barrier: Barrier, ask: Callable[[Request[Any]], Any], url: str) -> None:
        self._barrier = barrier
        self._ask = ask
        self._url = url
        self._noted: list[tuple[Request[Any], Any]] = []
        # Of what was noted last, where that came with it.
        self._proof: Proof | None = None
        self._life = barrier.life()
        self._began = time.monotonic()

    def noting(self, plan: Plan[R], *, is_one: bool = False) -> Plan[R]:
        """Give a plan that notes what it asks, with the replies, as it goes.

        Args:
            plan: Runs scripts.
            is_one: It runs one, or few, and nothing comes behind it that has to be as safe: they are proven at once.
        """
        try:
            asked = plan.send(None)
            while True:
                self._proof = None
                try:
                    if is_one and not isinstance(asked, Ticket) and asked.script and not asked.is_ahead:
                        reply, self._proof = yield self._barrier.behind(asked)
                    else:
                        reply = yield asked
                except StoreError as error:
                    self._barrier.forget()
                    asked = plan.throw(error)
                    continue
                if not isinstance(reply, Ticket):
                    self._noted.append((asked.request if isinstance(asked, Ticket) else asked, reply))
                asked = plan.send(reply)
        except StopIteration as end:
            result: R = end.value
            return result

    def hold(self, *, is_repeatable: bool = True) -> bool:
        """Wait until all of it is as safe as was asked for.

        Args:
            is_repeatable: None of it was refused: the sender knows that as refused, and a repeat might be taken.

        Returns:
            False: Redis was restarted meanwhile, and has been told all of it again: look anew what comes of it, and
            hold that.

        Raises:
            StoreError: It was not so in time; or Redis was restarted and has forgotten what it was told.
        """
        proof, self._proof = self._proof, None
        if proof is None or proof.lacks or self._is_older():
            until = time.monotonic() + _PATIENCE
            proof = _until(self._barrier, self._life, until, self._url, _PATIENCE)
        if proof.life == self._life:
            return True
        self._carry_again(is_repeatable=is_repeatable)
        return False

    def _is_older(self) -> bool:
        """Tell whether some of it was there before: what wrote that may be behind no proof of ours."""
        return any(_kind(word) in _BEFORE for _, said in self._noted for word in said)

    def _carry_again(self, *, is_repeatable: bool) -> None:
        """Tell another life of the server all that was said to the one before: each script knows its repeats."""
        lost = StoreError(
            f"Redis at {mask(self._url)} was restarted before this was safe, and may have forgotten it: "
            "repeat it with the same key"
        )
        if not is_repeatable or time.monotonic() - self._began > REPEAT_WITHIN:
            raise lost
        self._life = self._barrier.life()
        for request, said in self._noted:
            again = self._ask(replace(request, is_ahead=False))
            if not all(_is_as_before(*pair) for pair in zip(said, again, strict=True)):
                raise lost


def _check_timeout(timeout: Any) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        problem = f"timeout is a number of seconds, more than 0, not {timeout!r}"
        raise PayloadError(problem, "timeout")


def _until(barrier: Barrier, life: tuple[str, str] | None, deadline: float, url: str, seconds: float) -> Proof:
    """Pass a barrier until nothing lacks, or the server turns out to be in another life than this."""
    while True:
        proof = barrier.passed(int(1000 * (deadline - time.monotonic())))
        is_another = life is not None and proof.life != life
        if is_another or (proof.how and not proof.lacks):
            return proof
        if time.monotonic() > deadline:
            lacks = proof.lacks or "is not known to be on its disk"
            raise StoreError(
                f"Redis at {mask(url)} has it, but after {seconds:g} s it {lacks}: it may be lost with this server; "
                "repeat it with the same key"
            )


def _kind(word: str) -> str:
    return word.partition(" ")[0]


def _is_as_before(before: str, now: str) -> bool:
    """Tell whether a repeat says what was said before; of a key, the job must be the same too."""
    if _kind(now) not in _AGAIN.get(_kind(before), ()):
        return False
    if _kind(before) not in _TAKEN:
        return True
    return _id(before) == _id(now)


def _id(word: str) -> str:
    """Give the job id that is told of a key: SENT, id; DUPLICATE, place, id."""
    kind, *rest = word.split(" ")
    return rest[-1] if len(rest) == 1 + (kind == "DUPLICATE") else ""
