"""How much each of several queues may give at one turn."""

from __future__ import annotations

import pytest

from workers.portions import Portions

QUEUES = ("pin", "ring", "fsm")


def turn(portions: Portions, lies: dict[str, int], want: int = 120) -> dict[str, int]:
    """Ask each queue, and give what came of it."""
    asked = portions.asked(QUEUES, (), want, 0)
    came = {queue: min(fsms, lies.get(queue, 0)) for queue, fsms in asked.items()}
    for queue in QUEUES:
        portions.learn(queue, asked[queue], came[queue])
    return came


def test_a_queue_that_is_full_gives_nearly_all_after_some_turns_wherever_it_stands() -> None:
    for full in QUEUES:
        portions = Portions()

        came = [turn(portions, {full: 10_000})[full] for _ in range(6)]

        assert came[0] == 10
        assert came[-1] == 100


def test_the_first_of_two_full_ones_gives_most_and_the_other_its_share() -> None:
    portions = Portions()
    for _ in range(8):
        came = turn(portions, {"pin": 10_000, "fsm": 10_000})

    assert came == {"pin": 100, "ring": 0, "fsm": 10}


def test_who_is_empty_again_is_asked_for_little() -> None:
    portions = Portions()
    for _ in range(8):
        turn(portions, {"pin": 10_000})
    turn(portions, {})

    assert portions.asked(QUEUES, (), 120, 0) == {"pin": 10, "ring": 10, "fsm": 10}


@pytest.mark.parametrize("want", [3, 4, 16, 17, 100, 1000])
@pytest.mark.parametrize("appetite", [0, 5, 10_000])
def test_never_more_than_is_wanted_and_of_each_one_at_least(want: int, appetite: int) -> None:
    portions = Portions()
    if appetite:
        for queue in QUEUES:
            portions.learn(queue, appetite, appetite)

    asked = portions.asked(QUEUES, (), want, 0)

    assert sum(asked.values()) <= want
    assert min(asked.values()) >= 1


def test_what_was_claimed_ahead_leaves_room_for_the_others() -> None:
    portions = Portions()
    ahead = portions.ahead(120)

    asked = portions.asked(QUEUES, ("fsm",), 120, ahead)

    assert set(asked) == {"pin", "ring"}
    assert ahead + sum(asked.values()) <= 120


def test_one_by_one_the_last_is_first_at_every_fourth_turn() -> None:
    portions = Portions()

    assert [portions.order(("pin", "ring"), ("fsm",))[0] for _ in range(8)] == ["pin", "pin", "pin", "fsm"] * 2
    assert portions.order((), ("crates", "fsm")) == ("crates", "fsm")
