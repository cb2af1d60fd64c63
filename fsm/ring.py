"""Which hosts there are, and whose an FSM is: a ring of those that live, the same wherever it is asked.

A consistent hash ring: each host has many places on a circle, and a name belongs to the host whose place comes next.
So a host that joins takes about 1/n of all names, from all others alike, and one that leaves gives them back; all other
names stay where they are. Whoever sees the same hosts gets the same answer, in any process, by no agreement.

The circle is that of `uhashring`: 160 points a host. It would take MD5, which a Python in FIPS mode refuses; so points
and names have the first 64 bits of their SHA-256, which guards nothing here.

Who calls this: the client, where it starts FSMs, and the workers, for FSMs that they commit; over the hosts that
`fsm.store.hosts` finds. Applications may pass their own.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import uhashring

from fsm.config import check_host
from fsm.errors import ConfigError, FSMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["ClusterInfo", "HashRing", "answered", "checked_cluster"]


@runtime_checkable
class ClusterInfo(Protocol):
    """Who knows the hosts, and whose an FSM is: pass your own as `cluster=` to `Client` and `App`.

    All of an application are to have the same. It is asked by several threads at once, and for each event of machines
    with `placement="ring"`: so it answers out of its memory.
    """

    def nodes(self) -> Sequence[str]:
        """Give the names of the hosts."""
        ...

    def whois(self, name: str) -> str | None:
        """Give the host of an FSM, or `None` where there is none."""
        ...


class HashRing:
    """A ring of hosts: the default `ClusterInfo`, over those that live; or over hosts of your own.

    >>> ring = HashRing(["edge-1", "edge-2", "edge-3"])
    >>> ring.whois("order-42")
    'edge-3'
    >>> HashRing(["edge-3", "edge-1", "edge-2"]).whois("order-42")
    'edge-3'

    Args:
        hosts: Their names, or what gives them.
    """

    def __init__(self, hosts: Iterable[str] | Callable[[], Iterable[str]]) -> None:
        known = None if callable(hosts) else tuple(hosts)
        self._hosts: Callable[[], Iterable[str]] = hosts if callable(hosts) else lambda: known or ()

    def nodes(self) -> Sequence[str]:
        """Give the names of the hosts, sorted."""
        return tuple(sorted(set(self._hosts())))

    def whois(self, name: str) -> str | None:
        """Give the host of an FSM, or `None` where there is none."""
        ring = _ring_of(tuple(self._hosts()))
        host: str | None = ring.get_node(name)
        return host


@lru_cache(maxsize=16)  # one takes a few ms to make, and is asked for each event
def _ring_of(hosts: tuple[str, ...]) -> Any:
    # Sorted: where two places fall together, the last one counts.
    return uhashring.HashRing(nodes=sorted(set(hosts)), hash_fn=_point)


def _point(key: str) -> int:
    return int.from_bytes(sha256(key.encode()).digest()[:8])


def checked_cluster(cluster: Any, where: str) -> ClusterInfo | None:
    """Check what was passed as `cluster=`.

    Raises:
        ConfigError: It has not the two methods of a `ClusterInfo`.
    """
    if cluster is None or (isinstance(cluster, ClusterInfo) and not isinstance(cluster, type)):
        return cluster
    raise ConfigError(where, f"takes an object with nodes() and whois(name), and {cluster!r} has not both")


def answered(cluster: ClusterInfo, name: str) -> str | None:
    """Ask a cluster whose an FSM is; what it says is checked, for it may be an application's own.

    Raises:
        ConfigError: It raised something, or gave what cannot be the name of a host.
    """
    asked = f"whois({name!r}) of {type(cluster).__qualname__}"
    try:
        host = cluster.whois(name)
        return None if host is None else check_host(host)
    except ConfigError as error:
        raise ConfigError(asked, str(error)) from error
    except FSMError:
        raise
    except Exception as error:
        raise ConfigError(asked, f"raised {type(error).__name__}: {error}") from error
