"""Applications with services, for real worker processes; what happens is noted in the file that JOURNAL names."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from fsm import App, Machine, Settings, Transition, on

T = Transition[dict[str, Any]]


def note(line: str) -> None:
    """Write a line of the journal."""
    with Path(os.environ["JOURNAL"]).open("a", encoding="utf-8") as journal:
        journal.write(f"{line}\n")


class Bank:
    """A service that belongs to the loop on which it was opened, if there was one."""

    def __init__(self) -> None:
        self.is_open = False
        self.loop: Any = None

    async def pay(self) -> bool:
        await asyncio.sleep(0)
        return self.is_open and asyncio.get_running_loop() is self.loop


class Teller(Machine):
    """Plain handlers with a service."""

    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : pay
        open --> open : fail
        open --> open : remember
    """

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    @on("pay")
    def pay(self, t: T) -> None:
        t.log.info("paid", extra={"amount": 12})
        t.reply(self.bank.is_open)

    @on("fail")
    def fail(self, t: T) -> None:
        problem = "as told"
        raise ValueError(problem)

    @on("remember")
    def remember(self, t: T) -> None:
        self.last = t.name


class AsyncTeller(Teller):
    """A handler that uses its service on its loop."""

    @on("pay")
    async def pay(self, t: T) -> None:  # type: ignore[override] # awaited where the other is called
        t.reply(await self.bank.pay())


@contextmanager
def services() -> Iterator[dict[str, Any]]:
    """Open and close a bank."""
    bank = Bank()
    bank.is_open = True
    note("opened")
    try:
        yield {"bank": bank}
    finally:
        bank.is_open = False
        note("closed")


@asynccontextmanager
async def async_services() -> AsyncIterator[dict[str, Any]]:
    """Open and close a bank on the loop of the handlers."""
    with services() as given:
        given["bank"].loop = asyncio.get_running_loop()
        async with asyncio.timeout(600):
            await asyncio.sleep(0)
            yield given
        await asyncio.sleep(0)


@contextmanager
def around(t: T) -> Iterator[None]:
    """Note what passes."""
    try:
        yield
    except BaseException as fault:
        note(f"{t.event}: {type(fault).__name__}")
        raise
    note(f"{t.event}: done")


@asynccontextmanager
async def async_around(t: T) -> AsyncIterator[None]:
    """Note what passes, on the loop."""
    await asyncio.sleep(0)
    with around(t):
        yield
    await asyncio.sleep(0)


@contextmanager
def raising() -> Iterator[None]:
    """Cannot be opened."""
    problem = "no route\nto the bank"
    raise ConnectionError(problem)
    yield


@contextmanager
def raising_at_the_end() -> Iterator[dict[str, Any]]:
    """Cannot be closed."""
    with services() as given:
        yield given
    problem = "no route"
    raise ConnectionError(problem)


@contextmanager
def hanging() -> Iterator[dict[str, Any]]:
    """Takes long to open."""
    note("opening")
    try:
        time.sleep(600)
        yield {}
    finally:
        note("taken back")


@asynccontextmanager
async def async_hanging() -> AsyncIterator[dict[str, Any]]:
    """Takes long to open, on the loop."""
    note("opening")
    try:
        await asyncio.sleep(600)
        yield {}
    finally:
        note("taken back")


@contextmanager
def hanging_at_the_end() -> Iterator[dict[str, Any]]:
    """Takes long to close."""
    with services() as given:
        yield given
    note("closing")
    time.sleep(600)


class Passing:
    """Has its process asked to end where what that raises comes to nothing."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def asked_in_passing() -> Iterator[dict[str, Any]]:
    """Is asked to end while it opens, in a place from which nothing can be raised."""
    with services() as given:
        Passing()
        yield given


plain = App([Teller], lifespan=services, around=around)
awaited = App([AsyncTeller], lifespan=async_services, around=async_around)
unopened = App([Teller], lifespan=raising)
unclosed = App([Teller], lifespan=raising_at_the_end)
slow = App([Teller], lifespan=hanging)
async_slow = App([Teller], lifespan=async_hanging)
asked = App([Teller], lifespan=asked_in_passing)
slow_to_end = App([Teller], lifespan=hanging_at_the_end)


class Counter:
    """Closed by nobody but its `__exit__`: a generator would be by the collector too."""

    def __enter__(self) -> dict[str, Any]:
        note("opened")
        return {"bank": Bank()}

    def __exit__(self, *_: object) -> None:
        note("closed")


counted = App([Teller], lifespan=Counter)


@contextmanager
def without_bank() -> Iterator[dict[str, Any]]:
    """Open something else."""
    note("opened")
    yield {"mail": 1}
    note("closed")


lacking = App([Teller], lifespan=without_bank)
