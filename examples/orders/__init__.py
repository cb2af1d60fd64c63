"""An order, from the cart to the door: a bank that may decline, a shop that repeats itself, a carrier's web-hook.

    fsm worker --app examples.orders                       as many as you like, on any host
    python -m examples.orders [--url URL] [--orders N]     starts orders, sends them through, prints what happens
    python -m examples.orders.webhook [--port N]           what the carrier calls

Reading order: `machine` (the diagram and its handlers), `bank` (the effect), `shop` (who sends events, with keys),
`webhook` (who sends them a second time). The page is docs/examples/orders.md.

Who calls this: docker-compose.yml, the Procfile, and readers. It imports what `fsm` offers to everyone.
"""

from examples.orders.machine import Cart, Line, Order

__all__ = ["Cart", "Line", "Order"]
