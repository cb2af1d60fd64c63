"""The plan that drains a host: its workers are asked to end, and are waited for.

Who calls this: the client, and `fsm drain`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fsm.errors import UnknownHostError
from fsm.store import presence
from fsm.store.codec import text, whole
from fsm.store.keys import Keys
from fsm.store.requests import Request
from fsm.verbs.plans import pause

if TYPE_CHECKING:
    from fsm.verbs.plans import Plan

__all__ = ["Drained", "drain"]

_PAUSE_S = 0.2
# What RQ calls a worker for effects: that of ours which started it, and a word of its own.
_EFFECTS = "-effects-"


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of a drain.

    Args:
        host: The host.
        left: Workers of it that have not ended yet -> how much each has in hand: FSMs, or its effect.
    """

    host: str
    left: dict[str, int] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether all have ended."""
        return not self.left


def drain(keys: Keys, host: str, timeout: float | None = None) -> Plan[Drained]:
    """Ask the workers of a host to end, and wait for that.

    Args:
        keys: Of the namespace.
        host: Name of the host.
        timeout: Seconds to wait at most; `None` for as long as it takes, 0 to ask only.

    Raises:
        UnknownHostError: No worker of this host is alive.
    """
    until = None if timeout is None else time.monotonic() + timeout
    since_ms = yield presence.time_ms()
    alive = yield _alive(keys, since_ms)
    if host not in alive:
        raise UnknownHostError(host, tuple(sorted(alive)))
    crew = yield from _crew(keys, host, since_ms)
    effects = yield from _effects_of(crew)
    yield Request(lambda _: None, commands=[("HSET", keys.draining, host, since_ms)])
    while True:
        crew = yield from _crew(keys, host, since_ms)
        busy = yield from _busy(effects)
        if not crew and not busy:
            return Drained(host)
        left_s = _PAUSE_S if until is None else min(_PAUSE_S, until - time.monotonic())
        if left_s <= 0:
            held = yield _counted([("HLEN", keys.claims(worker)) for worker in crew])
            return Drained(host, {**dict(zip(crew, held, strict=True)), **busy})
        yield pause(keys, left_s)


def _alive(keys: Keys, now_ms: int) -> Request[list[str]]:
    command = ("ZRANGE", keys.hosts, 0, -1, "WITHSCORES")
    return Request(lambda reply: [name for name, end_ms in _scored(reply) if end_ms > now_ms], commands=[command])


def _crew(keys: Keys, host: str, since_ms: int) -> Plan[list[str]]:
    """Name the workers of a host that are alive and for which a drain counts."""
    now_ms = yield presence.time_ms()
    found = yield Request(_scored, commands=[("ZRANGE", keys.crew(host), 0, -1, "WITHSCORES")])
    named = [(*member.partition(" ")[::2], end_ms) for member, end_ms in found]
    return sorted(name for born, name, end_ms in named if end_ms > now_ms and whole(born) <= since_ms)


def _scored(reply: list[Any]) -> list[tuple[str, float]]:
    """Read members and scores, in whichever form the protocol has them."""
    pairs = reply if reply and isinstance(reply[0], list | tuple) else zip(reply[::2], reply[1::2], strict=True)
    return [(text(member), float(score)) for member, score in pairs]


def _counted(commands: list[tuple[Any, ...]]) -> Request[list[Any]]:
    """Send commands in one round trip; a list of replies also for one or none."""
    return Request(lambda replies: replies[2:], commands=[("TIME",), ("TIME",), *commands])


def _effects_of(crew: list[str]) -> Plan[list[str]]:
    """Name the workers for effects beside those of the crew."""
    prefix = len(Keys.rq_worker(""))
    command = ("SMEMBERS", Keys.rq_all_workers())
    members = yield Request(lambda reply: sorted(text(key)[prefix:] for key in reply), commands=[command])
    return [name for name in members if _EFFECTS in name and _is_beside(name.rpartition(_EFFECTS)[0], crew)]


def _is_beside(starter: str, crew: list[str]) -> bool:
    """Whether a worker, or the process that keeps several, is one of this crew."""
    return any(worker == starter or worker.startswith(f"{starter}-") for worker in crew)


def _busy(effects: list[str]) -> Plan[dict[str, int]]:
    """Name those that run an effect; one that runs none ends at once, and one that was killed runs none."""
    states = yield _counted([("HGET", Keys.rq_worker(name), "state") for name in effects])
    return {name: 1 for name, state in zip(effects, states, strict=True) if text(state) == "busy"}
