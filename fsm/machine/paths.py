"""Ways through a graph: reachability, simple paths, shortest path, cycles.

Who calls this: the graph, and the checks of a diagram. PURE: imports nothing of ours.

A graph is here a dict: node -> nodes that one edge leads to; each target is a key as well. Nothing recurses, so the
length of a way is not bounded by Python's stack, and the enumerations look ahead before each step, so the time between
two results is polynomial also where the number of results is exponential.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = ["Successors", "cycles", "reachable", "reverse", "shortest_path", "simple_paths"]

Successors: TypeAlias = "Mapping[str, Collection[str]]"


def reachable(successors: Successors, starts: Iterable[str], without: Collection[str] = ()) -> set[str]:
    """Give all nodes that can be reached from the starts, these included, without passing through some others."""
    seen = {node for node in starts if node not in without}
    waiting = deque(seen)
    while waiting:
        for node in successors[waiting.popleft()]:
            if node not in seen and node not in without:
                seen.add(node)
                waiting.append(node)
    return seen


def reverse(successors: Successors) -> dict[str, list[str]]:
    """Turn all edges round."""
    turned: dict[str, list[str]] = {node: [] for node in successors}
    for node, targets in successors.items():
        for target in targets:
            turned[target].append(node)
    return turned


def shortest_path(successors: Successors, a: str, b: str) -> tuple[str, ...] | None:
    """Give a shortest way from a to b, both included; None when there is none."""
    origin: dict[str, str] = {a: a}
    waiting = deque([a])
    while waiting and b not in origin:
        node = waiting.popleft()
        for target in successors[node]:
            if target not in origin:
                origin[target] = node
                waiting.append(target)
    if b not in origin:
        return None
    way = [b]
    while way[-1] != a:
        way.append(origin[way[-1]])
    return tuple(reversed(way))


def simple_paths(successors: Successors, start: str, ends: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Give the ways from the start to any of the ends that pass no node twice."""
    backward = reverse(successors)
    path = [start]
    if start in ends:
        yield (start,)
    trail = [iter(_hopeful(successors, backward, path, ends))]
    while trail:
        node = next(trail[-1], None)
        if node is None:
            trail.pop()
            path.pop()
            continue
        path.append(node)
        if node in ends:
            yield tuple(path)
        trail.append(iter(_hopeful(successors, backward, path, ends)))


def cycles(successors: Successors, limit: int) -> tuple[tuple[str, ...], ...]:
    """Give the cycles that pass no node twice, each once, from its first node in order of the keys; at most `limit`."""
    found: list[tuple[str, ...]] = []
    left = dict(successors)
    for root in successors:
        # All cycles through earlier roots are found: without these roots, none is found twice.
        left = {node: [target for target in targets if target in left] for node, targets in left.items()}
        for cycle in _cycles_through(left, root):
            if len(found) == limit:
                return tuple(found)
            found.append(cycle)
        del left[root]
    return tuple(found)


def _cycles_through(successors: Successors, root: str) -> Iterator[tuple[str, ...]]:
    """Give the cycles through one node: a simple way from it to a node before it closes one."""
    closing = {node for node, targets in successors.items() if root in targets}
    return simple_paths(successors, root, closing)


def _hopeful(successors: Successors, backward: Successors, path: list[str], ends: Collection[str]) -> list[str]:
    """Give the next nodes of a path from which an end can still be reached without crossing the path."""
    alive = reachable(backward, ends, without=frozenset(path))
    return [node for node in successors[path[-1]] if node in alive]
