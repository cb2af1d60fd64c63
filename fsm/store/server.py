"""What a server must be to be used: new enough, no cluster, and one that never drops keys to make room.

Who calls this: `connection`, once for each pool that is to be checked, and the registry for what an operator is shown.
What it may import: `redis` and `fsm.errors`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis

from fsm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLUSTER", "NO_CLUSTER", "examine", "troubles"]

CLUSTER = "runs in cluster mode, which RQ's keys cannot use"
NO_CLUSTER = "use a single primary, with replicas if you like"
_KEEPS = "noeviction"
_MIN_VERSION = (6, 2)


def examine(client: redis.Redis, where: str) -> tuple[str, str]:
    """Refuse a server that will not do.

    What an ACL forbids us to ask is taken to be well.

    Args:
        client: A connection to it.
        where: Its URL, masked.

    Returns:
        What its administrator is to be warned of, "" where all is well; and which process it is, "" where it did not
        tell.

    Raises:
        StoreError: It is older than 6.2, or in cluster mode.
    """
    about = _about(client)
    version = re.match(r"(\d+)\.(\d+)", str(about.get("redis_version", "")))
    if version and (int(version[1]), int(version[2])) < _MIN_VERSION:
        raise StoreError(f"Redis at {where} has version {about['redis_version']}: use Redis 6.2 or newer, or Valkey")
    if about.get("redis_mode") == "cluster" or about.get("cluster_enabled") == 1:
        raise StoreError(f"Redis at {where} {CLUSTER}: {NO_CLUSTER}")
    risk = _risk(about)
    return f"Redis at {where} {risk}" if risk else "", str(about.get("run_id", ""))


def troubles(about: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a server, by its INFO: a sentence each, to be read after "Redis".

    >>> troubles({"role": "slave", "maxmemory_policy": "noeviction"})
    ['is a replica: it takes no writes']
    >>> troubles({"maxmemory": 100, "used_memory": 120, "aof_last_write_status": "err"})
    ['is full: it takes no new events until workers have made room, or its `maxmemory` is raised', \
'could not save: it may take no writes, see to its disk']
    """
    found = [_risk(about)]
    if about.get("role") == "slave":
        found.append("is a replica: it takes no writes")
    if 0 < int(about.get("maxmemory", 0)) <= int(about.get("used_memory", 0)):
        found.append("is full: it takes no new events until workers have made room, or its `maxmemory` is raised")
    if "err" in (about.get("rdb_last_bgsave_status"), about.get("aof_last_write_status")):
        found.append("could not save: it may take no writes, see to its disk")
    return [trouble for trouble in found if trouble]


def _risk(about: Mapping[str, Any]) -> str:
    policy = about.get("maxmemory_policy", _KEEPS)
    if policy == _KEEPS:
        return ""
    return (
        f"has maxmemory-policy {policy}: when it is full it silently DROPS state machines and their events; "
        f"run `CONFIG SET maxmemory-policy {_KEEPS}` and write it into its redis.conf"
    )


def _about(client: redis.Redis) -> dict[str, Any]:
    """Ask the server what it is. Where an ACL forbids INFO, HELLO tells version and mode; else nothing is known."""
    with suppress(redis.exceptions.ResponseError):
        return dict(client.info())
    with suppress(redis.exceptions.ResponseError):
        reply = client.execute_command("HELLO")  # type: ignore[no-untyped-call]  # redis-py has no type for it
        hello = dict(zip(reply[::2], reply[1::2], strict=True))
        return {"redis_version": hello[b"version"].decode(), "redis_mode": hello[b"mode"].decode()}
    return {}
