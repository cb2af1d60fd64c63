"""Queues of single hosts, beside the queue of a machine: `orders~edge-7` and `orders@edge-7`.

An FSM of a machine whose placement is "ring" goes to the queue of the host that the ring names, and another host takes
over when that one is gone. One that was started for a host is pinned: it waits for that host. The two differ in their
names, so that who looks at a queue need not look at FSMs. `~` and `@` are no characters of a queue that users name.

Who calls this: the client, where it starts FSMs, and the workers, where they serve queues.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from fsm import config
from fsm.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Place", "Placer", "parse", "pinned", "ringed"]

_log = logging.getLogger("fsm.placement")
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


class Placer:
    """Gives FSMs their queues, by what somebody says of whose they are.

    That may be code of the application's own. Whatever it does, FSMs go on: where it does not know an answer, or gives
    none that can be one, they wait where any worker takes them, or where they are.

    >>> place = Placer({"order-1": "edge-7"}.get)
    >>> place.first("orders", "ring", "order-1"), place.first("orders", "ring", "order-2")
    ('orders~edge-7', 'orders')

    Args:
        whois: Gives the host of an FSM by its name; None where there is none.
    """

    def __init__(self, whois: Callable[[str], Any]) -> None:
        self._whois = whois
        self._is_told = False

    def first(self, base: str, placement: str, name: str) -> str:
        """Give the queue in which an FSM begins, `base` being that of its machine."""
        host = self._host(name) if placement == "ring" else None
        return ringed(base, host) if host else base

    def next(self, queue: str, placement: str, name: str) -> str:
        """Give the queue in which an FSM waits from now on, or "" where it stays in this one."""
        place = parse(queue)
        if place.is_pinned:
            return ""
        if placement != "ring":
            # Its machine was of the ring once.
            return place.base if place.host else ""
        host = self._host(name)
        # Where nobody is known, whoever has it now is as good as any.
        return ringed(place.base, host) if host and host != place.host else ""

    def _host(self, name: str) -> str | None:
        try:
            host = self._whois(name)
            return None if host is None else config.check_host(host)
        except StoreError:
            return None  # Redis is away: whoever wants to write to it is told so
        except Exception:  # noqa: BLE001 - an application's own code may raise anything
            if not self._is_told:
                self._is_told = True
                _log.exception("whois(%r) gave no host: FSMs are run by any worker meanwhile", name)
            return None
