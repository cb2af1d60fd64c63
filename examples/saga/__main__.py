"""`python -m examples.saga`: some people travel, and lines tell how each trip was booked, or undone.

The agencies' books are read at the end of each trip: it must be started in the same folder as the workers, or with the
same `SAGA_BOOKS`.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING

from examples.saga.travellers import TRAVELS, AstrayError, travel
from fsm import Client, ConfigError, FSMError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Let people travel; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.saga", description="Let some people travel.")
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--run", default=secrets.token_hex(2), help="names of trips are <traveller>-<run>")
    options = parser.parse_args(arguments)
    try:
        with Client(options.url) as client:
            for traveller, wish in TRAVELS.items():
                name = f"{traveller}-{options.run}"
                print(f"{name} to {wish.place}", flush=True)
                for line in travel(client, name, wish):
                    print(f"    {line}", flush=True)
    except (FSMError, AstrayError) as error:
        print(f"examples.saga: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
