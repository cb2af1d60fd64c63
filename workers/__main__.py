"""`python -m workers` is `fsm worker`, with the same options.

Who calls this: the person or program that starts workers where the console script is not at hand.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["run"]


def run() -> None:
    """Run the command; say so where another package named `fsm` stands before ours."""
    spec = find_spec("fsm")
    ours = Path(__file__).resolve().parent.parent / "fsm" / "__init__.py"
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != ours:
        where = spec.origin if spec else "missing"
        sys.exit(f"fsm: package `fsm` is not ours ({where}): rename yours, or start from another directory")
    # Not before it is known to be ours.
    from fsm.cli import main  # noqa: PLC0415

    main(["worker", *sys.argv[1:]], prog_name="python -m workers")


if __name__ == "__main__":
    run()
