"""The calls that hold what is noted of FSMs against the truth: pages of names and ids, and the script `synch`.

Who calls this: the plan behind `client.synch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fsm.store.codec import text
from fsm.store.keys import Keys
from fsm.store.requests import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST_NAMES", "Page", "Repair", "events", "fsms", "look", "members", "states", "workers"]

# One call of the script looks at so many FSMs, and Redis serves nobody else meanwhile.
MOST_NAMES = 100
_SCANNED = 1000


class Repair(NamedTuple):
    """Something that was not as it should be.

    Args:
        name: The FSM, or the worker, or `<machine>:<state>`.
        what: `index`, `error`, `place`, `ready`, `held`, `lock`, `retry`, `effect`, `timer`, `mail` or `later`: what
            was noted of it, and is put right; `snapshot`: it cannot be read, and nobody but you can repair it;
            `worker`: a dead one was registered; `state`: one of an older diagram was listed, though no FSM is in it.
        how: What differed, and what was done, in a sentence. It ends with "not repaired" where nothing was done.
    """

    name: str
    what: str
    how: str

    @property
    def is_repaired(self) -> bool:
        """Whether it is as it should be now."""
        return not self.how.endswith("not repaired")


class Page(NamedTuple):
    """Names or ids of one page, as Redis has them, and where the next one begins: 0 after the last.

    `indexes` are keys in which FSMs are listed, where the page is one of keys.
    """

    cursor: int
    names: list[bytes]
    indexes: tuple[str, ...] = ()


def look(keys: Keys, where: str, names: Sequence[bytes]) -> Request[list[Repair]]:
    """Look at FSMs (`where` is "fsm"), events ("job"), workers ("worker"), states ("known"), or members of an index.

    Of an index `where` is the key.

    What differs is put right. On a crash: the rest is found by whoever looks next.
    """
    place = where.removeprefix(keys.prefix)
    arguments = [keys.prefix, keys.namespace, keys.default_queue, place, *names]
    about = (keys.held, keys.timers, keys.effects, keys.workers, keys.places, keys.states, keys.machines)
    return Request(_repairs, "synch", about, arguments)


def _repairs(reply: list[bytes]) -> list[Repair]:
    said = [text(one) for one in reply[1:]]
    return [Repair(*said[first : first + 3]) for first in range(0, len(said), 3)]


def members(index: str, cursor: int) -> Request[Page]:
    """Read a page of an index; all that is in it all the time comes, what comes or goes meanwhile may."""
    command = ("ZSCAN", index, cursor, "COUNT", MOST_NAMES)
    return Request(lambda reply: Page(int(reply[0]), [name for name, _ in reply[1]]), commands=[command])


def fsms(keys: Keys, cursor: int) -> Request[Page]:
    """Read a page of all that there is of a namespace: FSMs, and the keys in which they are listed."""
    snapshot = keys.snapshot("").encode()
    indexes = tuple(index("", "")[:-1].encode() for index in (keys.state, keys.finished_of))
    indexes += (keys.errors("").encode(),)

    def read(reply: list[Any]) -> Page:
        names = [key[len(snapshot) :] for key in reply[1] if key.startswith(snapshot)]
        listed = [key for key in reply[1] if key.startswith(indexes)]
        return Page(int(reply[0]), names, tuple(map(text, listed)))

    return Request(read, commands=[_scan(keys.prefix, cursor)])


def events(cursor: int) -> Request[Page]:
    """Read a page of the ids of all jobs that have a record, RQ's own among them."""
    begin = len(Keys.job(""))
    return Request(
        lambda reply: Page(int(reply[0]), [key[begin:] for key in reply[1]]), commands=[_scan(Keys.job(""), cursor)]
    )


def workers(keys: Keys) -> Request[list[bytes]]:
    """Name the workers that are registered."""
    return Request(list, commands=[("ZRANGE", keys.workers, 0, -1)])


def states(keys: Keys) -> Request[list[bytes]]:
    """Name the states that are listed, as `<machine>:<state>`."""
    return Request(sorted, commands=[("SMEMBERS", keys.states)])


def _scan(prefix: str, cursor: int) -> tuple[Any, ...]:
    # No character of a namespace has a meaning in a pattern.
    return ("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _SCANNED)
