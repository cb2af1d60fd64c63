"""Time that a test moves, with real workers: what is due comes, and nobody takes anybody for dead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fsm import Machine, Retry, Settings, Transition, on

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm import Client
    from fsm.testing import Clock
    from fsm.testing.processes import Worker

T = Transition[dict[str, Any]]


class Rental(Machine[dict[str, Any]]):
    """Is over in a day, and is looked after once an hour."""

    settings = Settings(timer="1h", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> out
        out --> out : note
        out --> out : again
        out --> over : expire after 24h
        over --> out : back
    """

    def on_timer(self, t: T) -> None:
        t.payload["ticks"] = t.payload.get("ticks", 0) + 1

    @on("note")
    def note(self, t: T, text: str) -> None:
        t.payload.setdefault("notes", []).append([text, t.now.isoformat()])

    @on("again")
    def again(self, t: T) -> Retry | None:
        t.payload["tried"] = t.attempt
        return Retry("5m") if t.attempt == 1 else None


class Ticket(Machine[dict[str, Any]]):
    """Is over in a day, unless that is noticed too late."""

    settings = Settings(overdue="skip")
    diagram = """
    stateDiagram-v2
        [*] --> out
        out --> [*] : expire after 24h
    """


def test_what_is_due_in_a_day_comes_now(
    fsm_client: Client, fsm_clock: Clock, fsm_worker: Callable[..., Worker], until: Callable[..., Any]
) -> None:
    """One story, for the sake of one worker: delay, retry, tick and timer; then what is overdue."""
    worker = fsm_worker([Rental, Ticket], "--no-effects", "--lease", "2s")
    rental = fsm_client.start_fsm(Rental, "rental")
    assert rental.call("note", "begin", timeout=20).ok
    delayed = rental.transition("note", "delayed", delay="30m", result=True)
    again = rental.transition("again", result=True)
    until(lambda: rental.state().retry_at)

    fsm_clock.advance("30m")

    assert again.result(20).ok
    assert delayed.result(20).ok
    fsm_clock.advance("31m")
    until(lambda: rental.state().payload.get("ticks") == 1)
    notes = rental.state().payload["notes"]
    assert [text for text, _ in notes] == ["begin", "delayed"]
    between = datetime.fromisoformat(notes[1][1]) - datetime.fromisoformat(notes[0][1])
    assert timedelta(minutes=29) < between < timedelta(minutes=35)

    ticket = fsm_client.start_fsm(Ticket, "ticket")
    until(lambda: ticket.state().version == 1)
    fsm_clock.advance("25h")

    # An hour late: that one goes by it all the same; this one has skipped it, for so its machine says.
    rental.wait_for("over", timeout=20)
    until(lambda: any("overdue" in line.get("reason", "") for line in ticket.log()))
    assert ticket.state().state == "out"
    assert worker.is_alive
    assert fsm_clock.now - datetime.now(UTC) > timedelta(hours=26)
    # Nobody was taken for dead, and no lease ended.
    assert rental.state().tries == 0
    assert [one.state in ("idle", "busy") for one in fsm_client.cluster().workers] == [True]
