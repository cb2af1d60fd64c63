from datetime import UTC, datetime, timedelta

import pytest

from examples.subscription import Account, Subscription, cards
from examples.subscription import __main__ as program
from examples.subscription.cards import BROKEN, EMPTY, GOOD
from examples.subscription.customers import STORIES, TIME
from examples.subscription.machine import MOST_RETRIES, PERIOD
from fsm import InvalidDataError, NotAllowedError
from fsm.testing import Trial, cover, trial

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CHARGE = "examples.subscription.cards.charge"
# Where an event only takes a note: its edge leads back to where it begins.
NOTES = [(edge.source, edge.event) for edge in Subscription.graph.edges if edge.source == edge.target]


def pay(subscription: Trial[Account]) -> None:
    """Answer the open effect as the card company does."""
    (effect,) = subscription.enqueued
    assert effect.func == CHARGE
    try:
        subscription.succeed(effect, cards.charge(*effect.args, **effect.kwargs))
    except ConnectionError as error:
        subscription.fail(effect, error)


def pass_time(subscription: Trial[Account]) -> None:
    """Let the timer of the state fire, and the card company answer."""
    (timer,) = subscription.timers.values()
    assert subscription.advance(timer.at - subscription.now) == [timer.event]
    if subscription.state == "charging":
        pay(subscription)


def subscribed(card: str = GOOD) -> Trial[Account]:
    return trial(Subscription, payload=Account(card), now=NOW)


def in_state(state: str, card: str = GOOD, *, leaving: bool = False, retries: int = 0) -> Trial[Account]:
    return trial(Subscription, state=state, payload=Account(card, leaving=leaving, retries=retries), now=NOW)


def test_the_trial_ends_with_a_payment_and_each_period_with_the_next() -> None:
    subscription = subscribed()
    assert subscription.state == "trial"
    for number in range(1, 4):
        pass_time(subscription)
        assert subscription.state == "active"
        assert len(set(subscription.payload.receipts)) == number
        assert subscription.payload.paid_until == subscription.now + PERIOD


def test_each_payment_has_a_key_of_its_own() -> None:
    subscription = in_state("past_due", EMPTY)
    keys = []
    for _ in range(2):
        subscription.send("retry_payment")
        keys.append(subscription.enqueued[0].kwargs["key"])
        pay(subscription)
    assert len(set(keys)) == 2
    assert cards.charge(GOOD, 9, key=keys[0]) == cards.charge(GOOD, 9, key=keys[0])


@pytest.mark.parametrize(("state", "timer"), [("trial", "trial_over"), ("active", "renew")])
def test_a_cancelled_subscription_runs_until_what_was_paid_for_is_over(state: str, timer: str) -> None:
    subscription = in_state(state)
    armed = subscription.timers
    assert list(armed) == [timer]
    assert subscription.send("cancel").state == state
    assert subscription.timers == armed
    pass_time(subscription)
    assert subscription.state == "cancelled"
    assert subscription.enqueued == []


@pytest.mark.parametrize("state", ["trial", "active"])
def test_who_changes_their_mind_in_time_stays(state: str) -> None:
    subscription = in_state(state)
    subscription.send("cancel")
    assert subscription.send("reactivate").state == state
    pass_time(subscription)
    assert subscription.state == "active"


@pytest.mark.parametrize(("state", "event"), NOTES)
def test_taking_a_note_does_not_enter_the_state_again(state: str, event: str) -> None:
    # Entering it would run its timer anew, and `charging` would charge again: the note must be a `Stay`.
    subscription = in_state(state)
    with cover(Subscription) as walked:
        outcome = subscription.send(event, {"card": GOOD} if event == "use_card" else None)
    assert (outcome.state, walked.walked, subscription.enqueued) == (state, (), [])


def test_a_declined_payment_is_tried_three_times_more_and_then_the_subscription_expires() -> None:
    subscription = subscribed(EMPTY)
    pass_time(subscription)
    states = []
    while subscription.state == "past_due":
        states.append(subscription.payload.retries)
        pass_time(subscription)
    assert states == [0, 1, 2, MOST_RETRIES]
    assert subscription.state == "expired"
    assert subscription.payload.trouble == f"no 9 coins on card {EMPTY}"
    assert subscription.payload.retries == MOST_RETRIES


def test_a_new_card_is_tried_at_once_and_the_retries_begin_anew() -> None:
    subscription = in_state("past_due", EMPTY, retries=2)
    assert subscription.send("use_card", {"card": GOOD}).state == "charging"
    pay(subscription)
    assert (subscription.state, subscription.payload.retries, subscription.payload.trouble) == ("active", 0, "")


@pytest.mark.parametrize("state", ["trial", "active"])
def test_a_new_card_is_kept_for_the_next_payment(state: str) -> None:
    subscription = in_state(state, EMPTY)
    assert subscription.send("use_card", {"card": GOOD}).state == state
    pass_time(subscription)
    assert subscription.state == "active"


def test_a_card_company_that_does_not_answer_is_asked_again_by_rq_and_then_counts_as_a_no() -> None:
    subscription = in_state("trial", BROKEN)
    subscription.send("trial_over")
    assert subscription.enqueued[0].retries == (1, 2)
    pay(subscription)
    assert subscription.state == "past_due"
    assert subscription.payload.trouble == "ConnectionError: the card company does not answer"


@pytest.mark.parametrize(("card", "state"), [(GOOD, "active"), (EMPTY, "cancelled"), (BROKEN, "cancelled")])
def test_who_cancels_while_being_charged_has_either_paid_or_left(card: str, state: str) -> None:
    subscription = in_state("active", card)
    subscription.send("renew")
    assert subscription.send("cancel").state == "charging"
    pay(subscription)
    assert subscription.state == state


def test_who_owes_money_leaves_at_once() -> None:
    assert in_state("past_due").send("cancel").state == "cancelled"


@pytest.mark.parametrize("state", ["cancelled", "expired"])
def test_who_comes_back_pays_first(state: str) -> None:
    subscription = in_state(state, leaving=True, retries=3)
    assert subscription.send("reactivate").state == "charging"
    pay(subscription)
    assert subscription.state == "active"
    assert (subscription.payload.leaving, subscription.payload.retries) == (False, 0)


def test_who_comes_back_early_does_not_lose_what_was_paid_for() -> None:
    account = Account(GOOD, paid_until=NOW + timedelta(days=10))
    subscription = trial(Subscription, state="cancelled", payload=account, now=NOW)
    subscription.send("reactivate")
    pay(subscription)
    assert subscription.payload.paid_until == NOW + timedelta(days=10) + PERIOD


@pytest.mark.parametrize("state", ["cancelled", "expired"])
def test_after_a_year_the_card_is_forgotten(state: str) -> None:
    subscription = in_state(state)
    pass_time(subscription)
    assert (subscription.status, subscription.payload.card) == ("finished", "")


def test_a_card_is_not_changed_while_it_is_being_charged() -> None:
    subscription = in_state("active")
    subscription.send("renew")
    with pytest.raises(NotAllowedError):
        subscription.send("use_card", {"card": GOOD})


def test_a_card_without_a_number_is_refused() -> None:
    with pytest.raises(InvalidDataError):
        in_state("trial").send("use_card", {"number": GOOD})


@pytest.mark.parametrize("title", STORIES)
def test_the_stories_of_the_demo_end_as_they_say(title: str) -> None:
    story = STORIES[title]
    subscription = subscribed(story.card)
    for step in story.steps:
        event, data = step if isinstance(step, tuple) else (step, None)
        if event == TIME:
            pass_time(subscription)
        else:
            subscription.send(event, data)
            if subscription.enqueued:
                pay(subscription)
    assert subscription.state == story.end


# Ways through the diagram: the first card, what happens (`answer` is the card company's), and where it ends.
WAYS = [
    (
        GOOD,
        (
            "cancel reactivate use_card:4242 trial_over cancel reactivate answer"
            " cancel reactivate use_card:4242 renew answer cancel renew reactivate answer"
        ),
        "active",
    ),
    (GOOD, "cancel trial_over forget", "cancelled"),
    (EMPTY, f"trial_over answer {'retry_payment answer ' * MOST_RETRIES}retry_payment forget", "expired"),
    (EMPTY, f"trial_over answer {'retry_payment answer ' * MOST_RETRIES}retry_payment reactivate answer", "past_due"),
    (EMPTY, "trial_over cancel answer", "cancelled"),
    (BROKEN, "trial_over cancel answer", "cancelled"),
    (EMPTY, "trial_over answer use_card:0099 answer cancel", "cancelled"),
]


def go(card: str, way: str) -> Trial[Account]:
    subscription = subscribed(card)
    for step in way.split():
        event, _, new_card = step.partition(":")
        if event == "answer":
            pay(subscription)
        else:
            subscription.send(event, {"card": new_card} if new_card else None)
    return subscription


@pytest.mark.parametrize(("card", "way", "end"), WAYS)
def test_a_way_ends_where_it_should(card: str, way: str, end: str) -> None:
    assert go(card, way).state == end


def test_these_ways_walk_every_edge_that_leads_elsewhere() -> None:
    with cover(Subscription) as walked:
        for card, way, _ in WAYS:
            go(card, way)
    # `Stay` walks no edge: what only takes a note has a test of its own, above.
    assert list(walked.missing) == [f"{state} --> {state} : {event}" for state, event in NOTES]


def test_wrong_use_is_told_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--url", "http://localhost"]) == 2
    assert "examples.subscription: URL 'http://localhost'" in capsys.readouterr().err


def test_an_unreachable_redis_is_told_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--url", "redis://localhost:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
