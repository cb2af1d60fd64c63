"""Machines whose FSMs are run on certain hosts, for tests with several of them."""

from __future__ import annotations

import time

from fsm import App, Machine, Settings, Transition, on


class Gauge(Machine[list[int]]):
    """Notes each number that it is given, on the host that the ring names."""

    settings = Settings(placement="ring", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> on
        on --> on : note
        on --> on : nap
        on --> on : hatch
    """

    @on("note")
    def note(self, t: Transition[list[int]], number: int) -> None:
        t.payload.append(number)

    @on("nap")
    def nap(self, t: Transition[list[int]], number: int) -> None:
        time.sleep(0.05)
        t.payload.append(number)

    @on("hatch")
    def hatch(self, t: Transition[list[int]], name: str) -> None:
        t.start_fsm(Gauge, name)


class Valve(Gauge):
    """The same in another queue."""

    settings = Settings(placement="ring", endless=True, queue="valves")


class Lamp(Gauge):
    """The same, run by any worker."""

    settings = Settings(placement="any", endless=True)


class Everything:
    """A cluster in which one host has all FSMs."""

    def __init__(self, host: str) -> None:
        self.host = host

    def nodes(self) -> list[str]:
        return [self.host]

    def whois(self, name: str) -> str | None:
        return None if name.startswith("nobody") else self.host


for_a = App([Gauge], cluster=Everything("edge-a"))
for_b = App([Gauge], cluster=Everything("edge-b"))
