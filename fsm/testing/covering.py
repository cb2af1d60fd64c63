"""Which edges of a machine the trials walked.

There is one record per process, of every edge that every trial walked. `cover(Order)` looks at it:

- plain, it tells of all trials of this process so far, whenever it is asked: at the end of a test run;
- in a `with` block, of those in the block: from its beginning to its end, and after that it does not change.

A trial of a subclass walks edges of its bases too, as far as they have them: doubles for tests may be derived.

Who calls this: trials note what they walk, tests ask.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from fsm.errors import UnknownMachineError
from fsm.machine import Machine
from fsm.machine.render import label_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from fsm.machine import Edge

__all__ = ["Cover", "cover", "edge_text", "note"]

_WALKS: WeakKeyDictionary[type[Machine[Any]], Counter[Edge]] = WeakKeyDictionary()


def note(machine: type[Machine[Any]], edge: Edge) -> None:
    """Note that a trial of this class walked an edge."""
    for one in machine.__mro__:
        if issubclass(one, Machine) and hasattr(one, "definition") and edge in one.definition.graph.edges:
            _WALKS.setdefault(one, Counter())[edge] += 1


def edge_text(edge: Edge) -> str:
    """Give an edge as the diagram tells it.

    >>> from fsm.machine import Edge, Guard
    >>> edge_text(Edge("cart", "pay", "paying", Guard("full")))
    'cart --> paying : pay [full]'
    """
    return f"{edge.source} --> {edge.target} : {label_text(edge)}"


class Cover:
    """How the edges of one machine were walked by trials: see `cover`."""

    def __init__(self, machine: type[Machine[Any]]) -> None:
        given: Any = machine
        if not (isinstance(given, type) and issubclass(given, Machine)):
            raise UnknownMachineError(str(given))
        self._machine = machine
        self._edges = machine.definition.graph.edges
        self._before: Counter[Edge] = Counter()
        self._after: Counter[Edge] | None = None

    def __enter__(self) -> Self:
        self._before, self._after = self._now(), None
        return self

    def __exit__(self, *_: object) -> None:
        self._after = self._now()

    def _now(self) -> Counter[Edge]:
        return Counter(_WALKS.get(self._machine, {}))

    def _count(self, edge: Edge) -> int:
        after = _WALKS.get(self._machine, Counter()) if self._after is None else self._after
        return after[edge] - self._before[edge]

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each edge was walked, in the order of the diagram."""
        return {edge_text(edge): self._count(edge) for edge in self._edges}

    @property
    def walked(self) -> tuple[str, ...]:
        """The edges that were walked, in the order of the diagram."""
        return tuple(edge for edge, count in self.counts.items() if count)

    @property
    def missing(self) -> tuple[str, ...]:
        """The edges that no trial walked, in the order of the diagram: `cart --> paying : pay`."""
        return tuple(edge for edge, count in self.counts.items() if not count)

    def __repr__(self) -> str:
        return f"<{str(self).partition(chr(10))[0]}>"

    def __str__(self) -> str:
        counts = self.counts
        width = max(map(len, counts), default=0)
        lines = [
            f"  {edge:{width}}  {f'{count} ×' if count else 'never'}"  # a column of counts beside one of edges
            for edge, count in counts.items()
        ]
        head = f"{self._machine.definition.name}: {len(self.walked)} of {len(counts)} edges walked"
        return "\n".join([head, *lines])


def cover(machine: type[Machine[Any]]) -> Cover:
    """Tell which edges of a machine trials walked, and which none did.

    `fails` edges and those of guards count as edges of their own. The start and unlabelled edges to the end are no
    events, so they are none of these.

    >>> from fsm import Machine
    >>> from fsm.testing import trial
    >>> class Lamp(Machine):
    ...     diagram = '''
    ...     stateDiagram-v2
    ...         [*] --> dark
    ...         dark --> lit : switch
    ...         lit --> dark : switch
    ...         lit --> [*] : burn
    ...     '''
    >>> with cover(Lamp) as walked:
    ...     lamp = trial(Lamp)
    ...     for _ in range(3):
    ...         _ = lamp.send("switch")
    >>> print(walked)
    Lamp: 2 of 3 edges walked
      dark --> lit : switch  2 ×
      lit --> dark : switch  1 ×
      lit --> [*] : burn     never

    Args:
        machine: Its class.

    Raises:
        UnknownMachineError: It is no class of a machine.
    """
    return Cover(machine)
