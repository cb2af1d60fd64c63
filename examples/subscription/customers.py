"""Customers, and the clock: what each does, step by step, and how the subscription fares.

Timers are drawn and do not fire yet. So the time is moved by hand here: `timer_of` reads from the diagram which event
the timer of a state sends, and we send it, as the timer will.

Who calls this: `python -m examples.subscription`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from examples.subscription.cards import EMPTY, GOOD
from examples.subscription.machine import Account, Card, Subscription

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm import Client

__all__ = ["STORIES", "Story", "live", "timer_of"]

# In a story: wait for as long as the timer of the state says.
TIME = "time passes"
# Where a subscription comes to rest when the card company has answered.
_RESTS = ("active", "past_due", "cancelled")
# Long enough for a worker that is just being started beside us.
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Story:
    """One customer.

    Args:
        card: The first card.
        steps: Events, with their data where they have some, and `TIME`.
        end: The state in which this ends.
    """

    card: str
    steps: tuple[str | tuple[str, Any], ...]
    end: str


STORIES = {
    "ann changes her mind": Story(
        GOOD, (TIME, TIME, "cancel", "reactivate", TIME, "cancel", TIME, "reactivate"), "active"
    ),
    "bob gets a new card": Story(EMPTY, (TIME, TIME, ("use_card", Card(GOOD)), TIME), "active"),
    "cyd cannot pay": Story(EMPTY, (TIME, TIME, TIME, TIME, TIME, TIME), "expired"),
    "dan only looks": Story(GOOD, ("cancel", TIME), "cancelled"),
}


def timer_of(state: str) -> str:
    """Give the event that the timer of a state sends.

    >>> timer_of("trial"), timer_of("past_due")
    ('trial_over', 'retry_payment')
    """
    return next(edge.event for edge in Subscription.graph.edges if edge.source == state and edge.after_ms)


def live(client: Client, name: str, story: Story) -> Iterator[str]:
    """Let one customer live; gives a line for each step.

    Args:
        client: Of the Redis where subscriptions live.
        name: Name of the subscription.
        story: What happens.
    """
    subscription = client.start_fsm(Subscription, name, Account(story.card))
    state = subscription.wait_for("trial", timeout=_PATIENCE_S).state
    yield f"{state:10} with card {story.card}"
    for step in story.steps:
        event, data = step if isinstance(step, tuple) else (step, None)
        what = event
        if event == TIME:
            event = timer_of(state)
            what = f"{TIME}: {event}"
        state = subscription.call(event, data, timeout=_PATIENCE_S, meta={"actor": name}).state
        if state == "charging":
            state = subscription.wait_for(_RESTS, timeout=_PATIENCE_S).state
        yield f"{state:10} after {what}{_said(subscription.state().payload)}"


def _said(account: Account) -> str:
    """Tell what is worth knowing of an account."""
    said = []
    if account.leaving:
        said.append("is leaving")
    if account.receipts:
        said.append(f"{len(account.receipts)} paid")
    if account.retries:
        said.append(f"retry {account.retries}")
    if account.trouble:
        said.append(account.trouble)
    return f" ({', '.join(said)})" if said else ""
