"""The machine of a subscription: timers, guards, an effect that answers, and events that only take a note.

Who calls this: workers, as `--app examples.subscription`, and customers. It imports `fsm` only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fsm import Machine, RetryPolicy, Settings, Stay, Transition, enter, guard, on

__all__ = ["MOST_RETRIES", "PERIOD", "Account", "Card", "Subscription", "Trouble", "Verdict"]

# What one payment is for. The diagram's `renew after 30d` counts from the entry of `active`, and so do we.
PERIOD = timedelta(days=30)
# The first attempt is not one of these.
MOST_RETRIES = 3


@dataclass
class Account:
    """What a subscription carries along.

    Args:
        card: Number of the card.
        price: Of one period, in whole coins.
        leaving: The customer has cancelled; it takes effect when what was paid for is over.
        retries: How often the payment that is due was tried again.
        paid_until: The end of what was paid for.
        receipts: Of all payments, oldest first.
        trouble: Why the last payment failed; "" when it did not.
    """

    card: str
    price: int = 9
    leaving: bool = False
    retries: int = 0
    paid_until: datetime | None = None
    receipts: list[str] = field(default_factory=list)
    trouble: str = ""


@dataclass
class Card:
    """The data of `use_card`."""

    card: str


@dataclass
class Verdict:
    """The data of `answered`: what the card company says. That it says no is an answer, and no failure."""

    receipt: str = ""
    declined: str = ""


@dataclass
class Trouble:
    """The data of `unreachable`: how the effect failed."""

    type: str
    message: str


class Subscription(Machine[Account]):
    """A subscription, paid for a month at a time."""

    settings = Settings(queue="subscriptions", timeout="30s")
    diagram = """
    stateDiagram-v2
        [*] --> trial
        trial --> trial : cancel, reactivate, use_card
        trial --> cancelled : trial_over [leaving] after 14d
        trial --> charging : trial_over [else] after 14d

        charging --> charging : cancel, reactivate
        charging --> active : answered [accepted]
        charging --> cancelled : answered [leaving], unreachable [leaving]
        charging --> past_due : answered [else], unreachable [else]

        active --> active : cancel, reactivate, use_card
        active --> cancelled : renew [leaving] after 30d
        active --> charging : renew [else] after 30d

        past_due --> charging : use_card
        past_due --> charging : retry_payment [retries_left] after 3d
        past_due --> expired : retry_payment [else] after 3d
        past_due --> cancelled : cancel

        cancelled --> charging : reactivate
        expired --> charging : reactivate
        cancelled --> [*] : forget after 365d
        expired --> [*] : forget after 365d
    """

    @guard("leaving")
    def is_leaving(self, t: Transition[Account]) -> bool:
        """Tell whether the customer has cancelled."""
        return t.payload.leaving

    @guard("accepted")
    def is_accepted(self, t: Transition[Account]) -> bool:
        """Tell whether the card company gave a receipt: guards see the data of the event as its handler does."""
        verdict: Verdict = t.data
        return bool(verdict.receipt)

    @guard("retries_left")
    def has_retries_left(self, t: Transition[Account]) -> bool:
        """Tell whether the payment may be tried once more."""
        return t.payload.retries < MOST_RETRIES

    @enter("charging")
    def charge(self, t: Transition[Account]) -> None:
        """Ask for the money, whichever way led here."""
        t.enqueue(
            "examples.subscription.cards.charge",
            t.payload.card,
            t.payload.price,
            # The same whenever this transition is run again, and another for each that leads here.
            key=t.job_id,
            retry=RetryPolicy(attempts=3, delay="1s"),
            on_success="answered",
            on_failure="unreachable",
        )

    @on("answered")
    def answered(self, t: Transition[Account], verdict: Verdict) -> None:
        """Note the receipt, or why there is none; the guards say where this leads."""
        account = t.payload
        account.trouble = verdict.declined
        if verdict.receipt:
            account.receipts.append(verdict.receipt)
            account.paid_until = max(account.paid_until or t.now, t.now) + PERIOD
            account.retries = 0

    @on("unreachable")
    def unreachable(self, t: Transition[Account], trouble: Trouble) -> None:
        """Note that nobody answered, though the effect was tried again."""
        t.payload.trouble = f"{trouble.type}: {trouble.message}"

    @on("retry_payment")
    def retry_payment(self, t: Transition[Account]) -> None:
        """Count how often the payment is tried again; the guards have said already where this leads."""
        if t.target == "charging":
            t.payload.retries += 1

    @on("cancel", source=("trial", "charging", "active"))
    def cancel_later(self, t: Transition[Account]) -> Stay:
        """Take a note of it: `Stay` keeps the timer of the state running, and the guards of the timer see the note."""
        t.payload.leaving = True
        return Stay()

    @on("reactivate", source=("trial", "charging", "active"))
    def stay_on(self, t: Transition[Account]) -> Stay:
        """Take the note back: nothing has happened yet."""
        t.payload.leaving = False
        return Stay()

    @on("reactivate", source=("cancelled", "expired"))
    def come_back(self, t: Transition[Account]) -> None:
        """Begin anew, with a payment."""
        t.payload.leaving = False
        t.payload.retries = 0

    @on("forget")
    def forget(self, t: Transition[Account]) -> None:
        """Keep the receipts, as one must, and nothing of the card."""
        t.payload.card = ""

    @on("use_card", source=("trial", "active"))
    def note_card(self, t: Transition[Account], card: Card) -> Stay:
        """Keep the card for the next payment."""
        t.payload.card = card.card
        return Stay()

    @on("use_card", source="past_due")
    def try_card(self, t: Transition[Account], card: Card) -> None:
        """Try the new card at once."""
        t.payload.card = card.card
