"""A card company: the effect of a subscription that is to be paid.

It stands for any system beside Redis. Each number always gets the same answer, and the receipt is made of the
idempotency key: asked twice with one key, it charges once, as real ones do.

Who calls this: RQ, by the dotted path in the effects of subscriptions.
"""

from __future__ import annotations

__all__ = ["BROKEN", "EMPTY", "GOOD", "charge"]

GOOD, EMPTY, BROKEN = "4242", "0002", "0099"


def charge(card: str, coins: int, *, key: str) -> dict[str, str]:
    """Charge a card, once for each key.

    Args:
        card: Its number.
        coins: How much.
        key: Idempotency key.

    Returns:
        `{"receipt": …}` or `{"declined": why}`: both are answers, so RQ does not try again.

    Raises:
        ConnectionError: Nobody answers; RQ tries again, as often as the effect's `retry` says.
    """
    if card == BROKEN:
        problem = "the card company does not answer"
        raise ConnectionError(problem)
    if card == EMPTY:
        return {"declined": f"no {coins} coins on card {card}"}
    return {"receipt": f"receipt-{key[:8]}"}
