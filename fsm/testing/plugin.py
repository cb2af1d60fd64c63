"""Fixtures for tests with a real Redis and real workers; pytest finds them by itself where the package is installed.

    fsm_server   one embedded Redis for the test run, started when the first test wants it
    fsm_url      its URL; the server is emptied before the test
    fsm_client   a client of it
    fsm_worker   starts workers against it, and ends them with the test
    fsm_clock    moves the time of its FSMs

Without a server program the tests that want one are skipped with the reason, and fail where `CI` is set. Each process
of pytest-xdist has a server of its own.

Who calls this: pytest, in each of its runs, so nothing is imported here before a test wants it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fsm.client import Client
    from fsm.store.embedded import EmbeddedServer
    from fsm.testing.clock import Clock
    from fsm.testing.processes import Worker

__all__ = ["fsm_client", "fsm_clock", "fsm_server", "fsm_url", "fsm_worker"]

_WORKERS: pytest.StashKey[list[Worker]] = pytest.StashKey()


@pytest.fixture(scope="session")
def fsm_server() -> Iterator[EmbeddedServer]:
    """One embedded Redis for the test run, gone at its end however that comes."""
    from fsm.errors import StoreError  # noqa: PLC0415 - not before a test wants it
    from fsm.store.embedded import EmbeddedServer, find_server  # noqa: PLC0415 - as above

    try:
        find_server()
    except StoreError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI tests against a real Redis: {error}")
        pytest.skip(f"no real Redis: {error}")
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def fsm_url(fsm_server: EmbeddedServer) -> str:
    """URL of a real Redis that is empty when the test begins."""
    from fsm.store.connection import connect  # noqa: PLC0415 - not before a test wants it

    with connect(fsm_server.url) as connection:
        connection.flushall()
    return fsm_server.url


@pytest.fixture
def fsm_client(fsm_url: str) -> Iterator[Client]:
    """A client of a real Redis that is empty when the test begins."""
    from fsm.client import Client  # noqa: PLC0415 - not before a test wants it

    with Client(fsm_url) as client:
        yield client


@pytest.fixture
def fsm_clock(fsm_client: Client) -> Iterator[Clock]:
    """A clock that moves the time of all FSMs of the client's Redis; workers that the test starts go by it too."""
    from fsm.testing.clock import Clock  # noqa: PLC0415 - not before a test wants it

    with Clock(fsm_client) as clock:
        yield clock


@pytest.fixture
def fsm_worker(fsm_client: Client, request: pytest.FixtureRequest) -> Iterator[Callable[..., Worker]]:
    """Start workers, real processes, for the length of the test: `fsm_worker("shop.orders")`, `fsm_worker(Order)`.

    Takes a module as `fsm worker --app` does; or machines, or an `App`, of the test's own module. Further arguments are
    options of `fsm worker`; `faults=[FaultPoint(…)]` says where it is killed, stopped or delayed. It returns when the
    worker is at work. At the end of the test each is asked to stop, and the test fails if one does not, or has ended
    with an error. What they said is shown when the test fails.
    """
    from fsm.testing.processes import Workers  # noqa: PLC0415 - not before a test wants it

    workers = Workers(fsm_client)
    request.node.stash[_WORKERS] = workers.started
    yield workers.start
    if faults := workers.end():
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what workers said beside what a failed test says."""
    report = yield
    if report.failed:
        for worker in item.stash.get(_WORKERS, []):
            title = f"Captured output of {worker}"
            report.sections = [*(section for section in report.sections if section[0] != title), (title, worker.output)]
    return report
