from __future__ import annotations

from itertools import islice

from fsm.machine.paths import cycles, reachable, shortest_path, simple_paths


def complete(size: int) -> dict[str, list[str]]:
    names = [f"n{number}" for number in range(size)]
    return {name: [other for other in names if other != name] for name in names}


def test_reachable_includes_the_starts_and_leaves_out_what_it_must_not_cross() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}
    assert reachable(graph, ["a"]) == {"a", "b", "c"}
    assert reachable(graph, ["a", "d"], without={"b"}) == {"a", "d"}
    assert reachable(graph, ["a"], without={"a"}) == set()


def test_the_shortest_path_is_found_round_a_long_one() -> None:
    graph = {"a": ["b", "e"], "b": ["c"], "c": ["d"], "d": [], "e": ["d"]}
    assert shortest_path(graph, "a", "d") == ("a", "e", "d")


def test_simple_paths_pass_no_node_twice_and_go_on_behind_an_end() -> None:
    graph = {"a": ["b", "c"], "b": ["a", "c"], "c": ["b"]}
    assert list(simple_paths(graph, "a", {"b", "c"})) == [("a", "b"), ("a", "b", "c"), ("a", "c"), ("a", "c", "b")]


def test_paths_of_a_dense_graph_come_one_by_one() -> None:
    # 30 nodes have more simple paths than there are atoms: the first come at once all the same.
    assert len(set(islice(simple_paths(complete(30), "n0", {"n29"}), 50))) == 50


def test_dead_ends_are_not_searched() -> None:
    # Behind the only way out stands a thicket that leads nowhere: without looking ahead, this would not end.
    graph = {"start": ["n0", "end"], "end": [], **complete(30)}
    assert list(simple_paths(graph, "start", {"end"})) == [("start", "end")]


def test_a_way_may_be_longer_than_pythons_stack() -> None:
    graph = {str(number): [str(number + 1)] for number in range(1_500)} | {"1500": []}
    assert len(next(simple_paths(graph, "0", {"1500"}))) == 1_501


def test_cycles_come_once_each_with_their_first_node_first() -> None:
    graph = {"a": ["a", "b"], "b": ["c", "a"], "c": ["b", "a"], "d": ["a"]}
    assert cycles(graph, 100) == (("a",), ("a", "b"), ("a", "b", "c"), ("b", "c"))


def test_cycles_are_bounded() -> None:
    assert len(cycles(complete(20), 7)) == 7
