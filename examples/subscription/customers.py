"""Customers: what each does, step by step, and how the subscription fares.

A trial lasts 14 days, and nobody waits so long for a story. Where time passes in it, we look at which timer of the
subscription is due next, and send its event ourselves, as everybody may: the timer is gone with the state that is left.

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

__all__ = ["STORIES", "Story", "live"]

# In a story: what the next timer of the subscription would send happens now.
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
            timer = subscription.timers()[0]
            event = timer.event
            what = f"{TIME}: {event}, due on {timer.at:%Y-%m-%d}"
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
