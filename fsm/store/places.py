"""Queues of single hosts, beside the queue of a machine: `orders~edge-7` and `orders@edge-7`.

An FSM of a machine whose placement is "ring" goes to the queue of the host that the ring names, and another host takes
over when that one is gone. One that was started for a host is pinned: it waits for that host. The two differ in their
names, so that who looks at a queue need not look at FSMs. `~` and `@` are no characters of a queue that users name.

Who calls this: the client, where it starts FSMs, and the workers, where they serve queues.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Place", "parse", "pinned", "ringed"]

_PLACE = re.compile(r"([^~@]+)([~@])(.+)", re.DOTALL)


class Place(NamedTuple):
    """What the name of a queue says.

    Args:
        base: The machine's queue.
        host: The host to whose workers it belongs, or "" where any worker serves it.
        is_pinned: Nobody else takes over.
    """

    base: str
    host: str = ""
    is_pinned: bool = False


def pinned(base: str, host: str) -> str:
    """Give the queue of FSMs that only this host runs.

    >>> pinned("orders", "edge-7")
    'orders@edge-7'
    """
    return f"{base}@{host}"


def ringed(base: str, host: str) -> str:
    """Give the queue of FSMs that the ring gave to this host.

    >>> ringed("orders", "edge-7")
    'orders~edge-7'
    """
    return f"{base}~{host}"


def parse(queue: str) -> Place:
    """Tell whose queue this is.

    >>> parse("orders@edge-7")
    Place(base='orders', host='edge-7', is_pinned=True)
    >>> parse("orders")
    Place(base='orders', host='', is_pinned=False)
    """
    match = _PLACE.fullmatch(queue)
    if match is None:
        return Place(queue)
    base, kind, host = match.groups()
    return Place(base, host, kind == "@")
