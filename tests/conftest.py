"""Redis for the tests: a server that the tests start themselves, and fakeredis.

Nothing need be installed by hand. FSM_SERVER names a server program to use instead of the first that is found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import fakeredis
import pytest

from fsm.errors import StoreError
from fsm.store.connection import connect
from fsm.store.embedded import EmbeddedServer, find_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedServer]:
    """One server for the whole run. Without a server program: a failure in CI, a loud skip elsewhere."""
    try:
        find_server()
    except StoreError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI tests against a real Redis: {error}")
        pytest.skip(f"!!! NOT TESTED AGAINST A REAL REDIS: {error}")
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedServer) -> str:
    """URL of the server of this run; what earlier tests wrote may still be there."""
    return redis_server.url


@pytest.fixture
def raw_redis(redis_url: str) -> Iterator[redis.Redis]:
    """A connection to the server of this run, emptied before the test."""
    with connect(redis_url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture
def fake_redis() -> Iterator[fakeredis.FakeRedis]:
    """An empty fakeredis of its own, with Lua."""
    with fakeredis.FakeRedis() as client:
        yield client


@pytest.fixture(params=["fake", "real"])
def any_redis(request: pytest.FixtureRequest) -> redis.Redis:
    """The same test over fakeredis and a real server."""
    client: redis.Redis = request.getfixturevalue({"fake": "fake_redis", "real": "raw_redis"}[request.param])
    return client
