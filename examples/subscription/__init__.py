"""A subscription: a trial, payments that fail now and then, and people who leave and come back.

    fsm worker --app examples.subscription                 as many as you like, on any host
    python -m examples.subscription [--url URL]            three customers, from the trial to wherever they end

Reading order: `machine` (the diagram and its handlers), `cards` (the effect: who is asked for the money), `customers`
(who sends events, and does not wait for months). The page is docs/examples/subscription.md.

Who calls this: `make examples`, and readers. It imports what `fsm` offers to everyone.
"""

from examples.subscription.machine import Account, Subscription

__all__ = ["Account", "Subscription"]
