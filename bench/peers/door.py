"""`python -m bench.peers.door feed|work NAME [MODE]`: how a peer is run in its own interpreter.

`feed` reads lines "entities first count" and loads the queue with `count` jobs, for the entities that follow `first`,
round and round; it answers `fed` to each line. `work` becomes the worker. Both find Redis in `BENCH_QUEUE_URL` and
`BENCH_ENTITIES_URL`.

Who calls this: `bench.peers.drain`.
"""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["entity", "main"]


def entity(number: int) -> str:
    """Name an entity.

    >>> entity(7)
    'entity-000007'
    """
    return f"entity-{number:06d}"


def main(verb: str, name: str, *mode: str) -> None:
    """Feed the queue of a peer until nothing more is asked for, or be its worker."""
    peer = import_module(f"bench.peers.{name}")
    if verb == "work":
        peer.work(*mode)
        return
    for line in sys.stdin:
        entities, first, count = map(int, line.split())
        peer.enqueue([entity(number % entities) for number in range(first, first + count)])
        print("fed", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
