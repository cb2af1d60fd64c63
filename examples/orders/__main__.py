"""`python -m examples.orders`: customers go through the shop, one after the other, and a line tells how each fared."""

from __future__ import annotations

import argparse
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from examples.orders import shop
from fsm import Client, ConfigError, FSMError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Start orders and send them through; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.orders", description="Start orders, send them through, print what happens."
    )
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--orders", type=int, default=20, metavar="N", help="how many (20)")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="customers in the shop at one time (1)")
    parser.add_argument("--run", default=secrets.token_hex(2), help="names of orders are order-<run>-<number>")
    options = parser.parse_args(arguments)
    try:
        with Client(options.url) as client, ThreadPoolExecutor(max(1, options.at_once)) as customers:
            names = [f"order-{options.run}-{number}" for number in range(options.orders)]
            for line in customers.map(lambda name: shop.serve(client, name), names):
                print(line, flush=True)
    except FSMError as error:
        print(f"examples.orders: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
