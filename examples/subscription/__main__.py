"""`python -m examples.subscription`: some customers live through their subscriptions, and a line tells of each step."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING

from examples.subscription.customers import STORIES, live
from fsm import Client, ConfigError, FSMError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Let the customers live; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.subscription", description="Let customers live through their subscriptions."
    )
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--run", default=secrets.token_hex(2), help="names are <customer>-<run>")
    options = parser.parse_args(arguments)
    astray = []
    try:
        with Client(options.url) as client:
            for title, story in STORIES.items():
                name = f"{title.split()[0]}-{options.run}"
                print(f"{title}: {name}", flush=True)
                state = ""
                for line in live(client, name, story):
                    print(f"    {line}", flush=True)
                    state = line.split()[0]
                if state != story.end:
                    astray.append(f"{name} should have ended as {story.end}")
    except FSMError as error:
        print(f"examples.subscription: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    for line in astray:
        print(line, file=sys.stderr)
    return 1 if astray else 0


if __name__ == "__main__":
    sys.exit(main())
