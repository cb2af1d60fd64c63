"""The example `subscription` with a real worker, and RQ's own for its effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.subscription import Account, Subscription
from examples.subscription.cards import BROKEN
from examples.subscription.customers import STORIES
from examples.subscription.machine import PERIOD

if TYPE_CHECKING:
    from fsm import Client
    from tests.integration.conftest import Processes

APP = ("--app", "examples.subscription")


def test_the_customers_live_as_their_stories_say(client: Client, processes: Processes) -> None:
    processes.worker(*APP, effects=True)
    demo = processes.run("-m", "examples.subscription", "--run", "1")
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, out
    assert {name: client.state(f"{name.split()[0]}-1").state for name in STORIES} == {
        name: story.end for name, story in STORIES.items()
    }
    ann = client.state("ann-1", Subscription)
    assert len(set(ann.payload.receipts)) == 4
    # Three months were paid at once, as far as the real clock can tell.
    assert ann.payload.paid_until - ann.updated_at > 3 * PERIOD
    assert not client.redis.exists("fsm:default:effects")


def test_a_card_company_that_does_not_answer_is_asked_three_times(client: Client, processes: Processes) -> None:
    processes.worker(*APP, effects=True)
    subscription = client.start_fsm(Subscription, "zoe", Account(BROKEN), state="trial")
    subscription.call("trial_over", timeout=30)
    payload = subscription.wait_for("past_due", timeout=30).payload
    assert payload.trouble == "ConnectionError: the card company does not answer"
