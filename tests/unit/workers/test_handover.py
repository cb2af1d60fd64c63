"""What becomes of what a worker holds, over fakeredis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fsm.machine import Machine, Settings
from fsm.store import calls, codec, presence
from fsm.store.keys import Keys
from fsm.store.requests import run
from workers import handover

if TYPE_CHECKING:
    import fakeredis

KEYS = Keys("default")
NAMES = ("known", "unread", "left")


class Box(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
    """


@pytest.fixture
def ask(fake_redis: fakeredis.FakeRedis) -> handover.Ask:
    """A worker `w` that holds three FSMs, one by a claim each, and an id in its hand; another holds a fourth."""
    births = [calls.Birth(name, codec.new_ids(1)[0], b"{}") for name in (*NAMES, "other")]
    run(fake_redis, calls.start(KEYS, Box.definition, births))
    tokens: list[str] = []
    for number, worker in enumerate(["w", "w", "w", "another"]):
        token = f"{number}" * 32
        run(
            fake_redis, calls.claim(KEYS, worker, "fsm", token, number + 1, lease_ms=60_000, fsms=1, kept=tuple(tokens))
        )
        tokens.append(token)
    run(fake_redis, presence.beat(KEYS, "w", 1, done=0, failed=0, seconds=0))
    fake_redis.rpush("fsm:default:hand:w", births[0].job_id)
    return lambda request: run(fake_redis, request)


def tries(client: Any) -> dict[str, int]:
    return {name: int(client.hget(f"fsm:default:snapshot:{name}", "tries") or 0) for name in (*NAMES, "other")}


def locked(client: Any) -> list[bytes]:
    return [key.rpartition(b":")[2] for key in client.keys("fsm:default:lock:*")]


def test_what_is_released_is_uncharged_also_where_no_claim_was_read_but_not_what_was_left_to_its_lease(
    ask: handover.Ask, fake_redis: fakeredis.FakeRedis
) -> None:
    # Seen to fail without `calls.claimed`: what nobody had read was freed as by a death.
    handover.release(ask, KEYS, "w", [("known", "0" * 32)], left=["2" * 32])

    assert tries(fake_redis) == {"known": 0, "unread": 0, "left": 1, "other": 0}
    assert locked(fake_redis) == [b"other"]
    assert not fake_redis.exists("fsm:default:claims:w", "fsm:default:hand:w", "fsm:default:workers")


def test_what_a_dead_worker_held_is_charged(ask: handover.Ask, fake_redis: fakeredis.FakeRedis) -> None:
    assert handover.bury(ask, KEYS, "w") == 3

    assert tries(fake_redis) == {"known": 1, "unread": 1, "left": 1, "other": 0}
    assert locked(fake_redis) == [b"other"]
    assert not fake_redis.exists("fsm:default:claims:w", "fsm:default:hand:w", "fsm:default:workers")
    assert handover.bury(ask, KEYS, "w") == 0


def test_more_than_one_call_frees_is_freed_by_several(
    ask: handover.Ask, fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail with one call: the rest waited for the end of the lease.
    recover = calls.recover
    monkeypatch.setattr(calls, "recover", lambda keys, dead: recover(keys, dead, 1))

    assert handover.bury(ask, KEYS, "w") == 3
