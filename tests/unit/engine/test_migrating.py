"""Who may run an FSM that another definition wrote last, and how its snapshot becomes that of ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fsm import DefinitionError, HandlerError, Machine, Migration, PayloadError, Settings
from fsm.engine import Behaviour, HandlerTimeout, Life, drive, inside, is_outdated, migrate, put_off, strangeness
from fsm.engine.timers import TICK, Timer
from fsm.machine import mark_of

OLD = "1a2b3c4d"


class Order(Machine[dict[str, Any]]):
    settings = Settings(definition_version=3, timer="1m")
    diagram = """
    stateDiagram-v2
        [*] --> cart
        cart --> approving : pay
        approving --> cart : expire after 1h
        approving --> approving : remind
        approving --> packed : approve
        packed --> [*] : ship!
        cart --> gone : drop
        gone --> [*]
    """

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.answer: Any = None

    def on_timer(self, _t: Any) -> None: ...

    def migrate(self, snapshot: Migration, from_version: int) -> Any:
        self.seen.append((snapshot.state, snapshot.payload, snapshot.status, snapshot.definition, from_version))
        if callable(self.answer):
            return self.answer(snapshot)
        if snapshot.state == "review":
            snapshot.state = "approving"
            snapshot.payload["by"] = snapshot.payload.pop("reviewer")
        return self.answer


class Plain(Machine[dict[str, Any]]):
    settings = Settings(definition_version=2)
    diagram = Order.diagram


class Stored(Plain):
    storage = type("Shelf", (), {"load": print, "store": print})()


def life(state: str = "review", raw: bytes = b'{"reviewer":"ann"}', **more: Any) -> Life:
    return Life(
        **{"name": "o", "state": state, "raw": raw, "version": 7, "status": "running", **more},
        definition=Order.definition,
    )


def run(machine: Order, one: Life, mark: str = f"{OLD}.2") -> Life:
    drive(migrate(Behaviour(machine), one, mark, 1000))
    return one


def test_a_snapshot_is_changed_by_the_method_of_the_machine() -> None:
    machine = Order()

    done = run(machine, life(history=("cart",)))

    assert machine.seen == [("review", {"by": "ann"}, "running", OLD, 2)]
    assert (done.state, done.raw, done.version, done.history) == ("approving", b'{"by":"ann"}', 7, ("cart", "review"))
    assert done.payload == {"by": "ann"}


def test_a_snapshot_that_is_given_back_takes_the_place_of_the_old_one() -> None:
    machine = Order()
    machine.answer = lambda old: Migration(name=old.name, state="cart", payload={"n": 1})

    done = run(machine, life())

    assert (done.state, done.raw) == ("cart", b'{"n":1}')


def test_one_that_has_not_begun_begins_where_the_diagram_does() -> None:
    done = run(Order(), life(status="starting"))

    assert (done.state, done.history, dict(done.timers)) == ("cart", (), {})


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (lambda old: setattr(old, "state", "nowhere"), DefinitionError, "state 'nowhere', which it has not: set"),
        (lambda old: setattr(old, "state", "gone"), DefinitionError, "state 'gone', which FSMs end in: set snapshot"),
        (lambda old: setattr(old, "state", ["cart"]), DefinitionError, "state ['cart'], which it has not"),
        (lambda old: setattr(old, "payload", {"at": {1}}), PayloadError, "set"),
        (lambda old: setattr(old, "payload", [old.payload]), PayloadError, "list"),
        ({"state": "cart"}, DefinitionError, "gives nothing, or the snapshot, not dict"),
        (lambda old: old.payload["missing"], KeyError, "missing"),
    ],
)
def test_where_the_method_gives_no_snapshot_of_the_machine_all_is_as_it_was(
    answer: Any, error: type[Exception], text: str
) -> None:
    machine, one = Order(), life(timers={"x": Timer(1, 5)})
    machine.answer = answer

    with pytest.raises(error) as caught:
        run(machine, one)

    assert text in str(caught.value)
    assert (one.state, one.raw, one.history, dict(one.timers)) == (
        "review",
        b'{"reviewer":"ann"}',
        (),
        {"x": Timer(1, 5)},
    )


def test_timers_are_kept_where_they_mean_something_and_armed_where_they_are_missing() -> None:
    armed = {
        "expire": Timer(2, 400),
        "remind-me": Timer(3, 500, "remind"),
        "old": Timer(3, 500, "review"),
        "close": Timer(2, 600),
    }

    kept = run(Order(), life(timers=armed)).timers
    new = run(Order(), life()).timers

    assert set(kept) == {"expire", "remind-me", TICK}
    assert kept["expire"] == Timer(2, 400)
    assert new["expire"] == Timer(7, 1000 + 3_600_000)


def test_what_the_method_calls_must_not_wait() -> None:
    machine = Order()
    machine.answer = lambda _: inside.refuse_to_wait("call('pay')")

    with pytest.raises(HandlerError, match="would wait inside"):
        run(machine, life())
    inside.refuse_to_wait("call('pay')")


def test_it_may_be_a_coroutine() -> None:
    class Slow(Order):
        async def migrate(self, snapshot: Migration, from_version: int) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            snapshot.state = "cart"

    one = life()
    asyncio.run(migrate(Behaviour(Slow()), one, OLD, 1000))

    assert one.state == "cart"


def test_a_plain_method_that_gives_something_to_await_is_told_so() -> None:
    async def late() -> None: ...

    machine = Order()
    machine.answer = lambda _: late()

    with pytest.raises(DefinitionError, match="declare it `async def`"):
        run(machine, life())


@pytest.mark.parametrize(
    ("machine", "state", "status", "mark", "why"),
    [
        (Order, "cart", "running", f"{OLD}.3", ""),
        (Order, "cart", "running", f"{OLD}.2", ""),
        (Order, "review", "running", OLD, ""),
        (Order, "review", "running", f"{OLD}.3", "lacks that state and has the same version"),
        (Order, "cart", "running", f"{OLD}.4", "(version 3), which is older"),
        (Order, "cart", "running", f"{OLD}.2+s", "has no storage"),
        (Order, "review", "finished", f"{OLD}.4", ""),
        (Plain, "cart", "running", OLD, ""),
        (Plain, "review", "running", OLD, "lacks that state and has no method migrate"),
        (Plain, "review", "failed", OLD, "lacks that state"),
        (Stored, "cart", "running", f"{OLD}+s", ""),
        (Stored, "cart", "running", OLD, ""),
    ],
)
def test_an_fsm_is_strange_where_this_definition_cannot_run_it(
    machine: type[Machine[Any]], state: str, status: str, mark: str, why: str
) -> None:
    told = strangeness(machine.definition, "Order", state, status, mark)

    assert why in told
    assert bool(told) == bool(why)
    if told:
        # Both definitions are named. Seen to fail as it was: only that of the snapshot.
        assert OLD in told
        assert machine.definition.fingerprint in told


def test_an_fsm_of_no_machine_of_ours_is_strange() -> None:
    told = strangeness(None, "Order", "cart", "running", OLD)

    assert told.startswith("it is in state 'cart' of machine 'Order' as definition 1a2b3c4d (version 1) has it, and")
    assert told.endswith("there is no such machine here")


@pytest.mark.parametrize(
    ("machine", "status", "version", "is_so"),
    [
        (Order, "running", 2, True),
        (Order, "starting", 1, True),
        (Order, "running", 3, False),
        (Order, "finished", 1, False),
        (Order, "failed", 1, False),
        (Plain, "running", 1, False),
    ],
)
def test_only_what_lives_and_is_older_is_migrated(
    machine: type[Machine[Any]], status: str, version: int, is_so: bool
) -> None:
    assert is_outdated(Behaviour(machine()), status, mark_of(OLD, version)) is is_so


def test_what_could_not_be_migrated_waits_and_no_attempt_is_used_up() -> None:
    waits = set()
    for number in range(50):
        one = life(name=f"o-{number}")
        decision = put_off(one, f"{OLD}.2", "job", 2, KeyError("by"))
        waits.add(decision.wait_ms)
        assert (decision.kind, decision.event.job_id, decision.event.attempt, one.version) == ("retry", "job", 2, 7)
        assert decision.result["message"] == "`migrate` from version 2 (definition 1a2b3c4d): 'by'"
    # Spread, so that not all come back at once.
    assert 7_500 <= min(waits) < max(waits) - 5_000 <= 17_500


def test_a_migration_that_takes_too_long_is_told_so() -> None:
    decision = put_off(life(), OLD, "job", 0, HandlerTimeout())

    assert "longer than Settings(timeout" in decision.result["message"]
