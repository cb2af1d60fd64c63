"""Queries: each filter against brute force, pages that lose nobody, and cursors that are refused."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fakeredis import FakeRedis
from hypothesis import given, settings
from hypothesis import strategies as st

from fsm import ConfigError, PayloadError, verbs
from fsm.store.requests import run
from tests.store.conftest import Store, Ticket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm import Snapshot, Snapshots

STATES = ["open", "shut", "lost"]
STATUSES = ["starting", "running", "paused", "finished", "failed"]


def query(store: Store, **filters: Any) -> Snapshots:
    plan = verbs.query(store.keys, verbs.read_filters("query", filters))
    return verbs.carry(plan, lambda request: run(store.redis, request))


def pages(store: Store, **filters: Any) -> Iterator[Snapshots]:
    """All pages, one after the other."""
    found = query(store, **filters)
    yield found
    while found.cursor:
        found = query(store, **filters, cursor=found.cursor)
        yield found


def names(store: Store, **filters: Any) -> list[str]:
    return [one.name for page in pages(store, **filters) for one in page]


def put(store: Store, name: str, since: int, state: str = "open", status: str = "", **more: Any) -> None:
    """An FSM as a commit would have left it."""
    fields = {"machine": "Ticket", "state": state, "payload": "1", "version": 1, "updated_at": since, **more}
    fields.setdefault("born", since * 1000)
    if status == "paused":
        fields["paused"] = since
    elif status not in ("", "running"):
        fields["status"] = status
    store.redis.hset(store.keys.snapshot(name), mapping=fields)
    index = store.keys.finished_of if status == "finished" else store.keys.state
    store.redis.zadd(index("Ticket", state), {name: since})
    store.redis.sadd(store.keys.states, f"Ticket:{state}")
    if "error" in fields:
        store.redis.zadd(store.keys.errors("Ticket"), {name: since})


def move(store: Store, name: str, state: str = "shut") -> None:
    """Move an FSM now, by the clock of Redis."""
    seconds, micros = store.redis.time()
    before = store.redis.hget(store.keys.snapshot(name), "state").decode()
    store.redis.zrem(store.keys.state("Ticket", before), name)
    store.redis.sadd(store.keys.states, f"Ticket:{state}")
    store.redis.zadd(store.keys.state("Ticket", state), {name: seconds * 1000 + micros // 1000})
    store.redis.hset(store.keys.snapshot(name), "state", state)


def test_without_filters_all_come_page_by_page_those_that_have_finished_too(store: Store) -> None:
    for at in range(25):
        put(store, f"t{at:02}", 1000 + at)
    put(store, "over", 900, "shut", "finished")

    found = list(pages(store, limit=10))

    assert [one.name for page in found for one in page] == [*(f"t{at:02}" for at in range(25)), "over"]
    assert [len(page) for page in found] == [10, 10, 6]
    assert {page.as_of for page in found} == {found[0].as_of}
    assert abs(found[0].as_of - datetime.now(UTC)) < timedelta(minutes=1)


def test_what_was_started_just_now_is_found_at_once(store: Store) -> None:
    for at in range(30):
        store.idle(f"t{at}")
        assert f"t{at}" in names(store)


@pytest.mark.parametrize("limit", [1, 30])
def test_hundreds_of_the_same_ms_come_once_each_while_half_of_them_leave(store: Store, limit: int) -> None:
    # Seen to fail, with some missing, where `_behind` reads on at the number that was met (no overlap, no step back),
    # and with the same ones again, without end, where those of the same score and a smaller name are not passed over.
    count = 100 if limit == 1 else 400
    for at in range(count):
        put(store, f"t{at:04}", 5)
    chance = random.Random(limit)
    left = [f"t{at:04}" for at in range(0, count, 2)]
    chance.shuffle(left)
    met: Counter[str] = Counter()

    for page in pages(store, limit=limit):
        met.update(one.name for one in page)
        for name in [left.pop() for _ in range(min(len(left), 1 + limit // 2))]:
            move(store, name)

    assert {f"t{at:04}" for at in range(1, count, 2)} <= set(met)
    assert set(met.values()) == {1}


def test_of_the_same_ms_more_may_leave_between_two_pages_than_are_read_again(store: Store) -> None:
    # Seen to fail, with some missing, without the step back in `_behind`.
    for at in range(100):
        put(store, f"t{at:02}", 5)
    first = query(store, limit=60)
    for one in first[:40]:
        move(store, one.name)

    assert [one.name for one in query(store, limit=60, cursor=first.cursor)] == [f"t{at}" for at in range(60, 100)]


def test_whoever_stands_still_comes_once_and_nobody_twice_while_others_move(real_store: Store) -> None:
    # Seen to fail where a cursor is a rank (hundreds are missing), and where who came to his state after the first page
    # is not left out (hundreds come twice).
    store = real_store
    with store.redis.pipeline(transaction=False) as pipeline:
        for at in range(4000):
            fields = {"machine": "Ticket", "state": "open", "payload": "1", "version": 1}
            pipeline.hset(
                store.keys.snapshot(f"t{at}"), mapping={**fields, "born": at * 1000 + 1000, "updated_at": at + 1}
            )
            pipeline.zadd(store.keys.state("Ticket", "open"), {f"t{at}": at + 1})
        pipeline.sadd(store.keys.states, "Ticket:open", "Ticket:shut")
        pipeline.execute()
    moving = [f"t{at}" for at in range(4000) if at % 2]
    random.Random(1).shuffle(moving)
    met: Counter[str] = Counter()

    for page in pages(store, limit=300):
        met.update(one.name for one in page)
        for name in [moving.pop() for _ in range(min(len(moving), 200))]:
            move(store, name)

    assert {f"t{at}" for at in range(0, 4000, 2)} <= set(met)
    assert set(met.values()) == {1}


def test_an_fsm_on_which_a_page_ended_may_be_purged_or_move(store: Store) -> None:
    for at in range(6):
        put(store, f"t{at}", 5 if at < 4 else 6)
    first = query(store, limit=2)
    assert store.purge("t1") == "PURGED"
    move(store, "t0")

    second = query(store, limit=2, cursor=first.cursor)
    move(store, "t3")

    assert [one.name for one in second] == ["t2", "t3"]
    assert [one.name for one in query(store, cursor=second.cursor)] == ["t4", "t5"]


@pytest.mark.parametrize("newer", [["shut", "lost", "open"], ["open", "lost"], []])
def test_a_deploy_between_two_pages_loses_nobody_and_gives_nobody_twice(store: Store, newer: list[str]) -> None:
    # Seen to fail where states came in the order of the diagram: those of `lost` were missing, and came twice.
    at = 0
    store.redis.hset(store.keys.machines, "Ticket", json.dumps({"states": ["lost", "open", "shut"]}))
    for state in STATES:
        for _ in range(3):
            put(store, f"t{at}", at, state)
            at += 1

    found = query(store, limit=4)
    met = [one.name for one in found]
    store.redis.hset(store.keys.machines, "Ticket", json.dumps({"states": newer}))
    while found.cursor:
        found = query(store, limit=4, cursor=found.cursor)
        met += (one.name for one in found)

    assert sorted(met) == [f"t{number}" for number in range(9)]


def test_a_cursor_goes_on_behind_a_state_that_nobody_knows_any_more(store: Store) -> None:
    # Seen to fail, as an error, where the place of a cursor had to be in an index that is known.
    for at, state in enumerate(["lost", "open", "open", "shut"]):
        put(store, f"t{at}", 5, state)
    cursor = query(store, limit=2).cursor
    store.redis.srem(store.keys.states, "Ticket:open")
    store.redis.delete(store.keys.state("Ticket", "open"))

    assert [one.state for one in query(store, cursor=cursor)] == ["shut"]


def test_who_came_to_his_state_before_the_clock_was_set_back_is_found(store: Store) -> None:
    # Seen to fail, with nobody found for an hour, where all that is later than now is left out.
    now = int(store.redis.time()[0]) * 1000
    put(store, "a", now + 3_600_000)
    put(store, "b", 5)
    put(store, "over", now + 1_800_000, "shut", "finished")
    put(store, "bad", now + 3_600_000, error=b"{}")
    store.redis.zadd(store.keys.state("Ticket", "open"), {"by hand": float("inf")})

    assert names(store, limit=1) == ["b", "a", "bad", "over"]
    assert names(store, failed=True) == ["bad"]
    assert names(store, in_state_longer_than=1) == ["b"]


def test_a_clock_that_stands_still_is_not_waited_for(store: Store) -> None:
    # Tests stop the clock of their process, by which a world in memory goes. Seen to fail, for it never ended, where
    # the next ms was waited for without end.
    put(store, "a", 5)

    def ask_by_that_clock(request: Any) -> Any:
        reply = run(store.redis, request)
        return [[7, 0], *reply[1:]] if request.commands[0] == ("TIME",) else reply

    assert [
        one.name for one in verbs.carry(verbs.query(store.keys, verbs.read_filters("query", {})), ask_by_that_clock)
    ]


def test_who_moved_while_a_page_was_read_is_not_told_to_be_long_in_a_state(store: Store) -> None:
    # Seen to fail without the comparison of the place with that in the index.
    put(store, "a", 5)
    put(store, "b", 5)
    store.redis.hset(store.keys.snapshot("a"), "state", "shut")  # and its commit adds it there now

    assert names(store, in_state_longer_than="1d") == ["b"]
    assert names(store) == ["a", "b"]


# Of an FSM: when it was started, came to its state and was written, each some ms later; state, status, has an error.
_fsms = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(0, 20), st.integers(0, 20), st.sampled_from(STATES), st.sampled_from(STATUSES),
        st.booleans(),
    ),
    max_size=25,
)  # fmt: skip
# One filter or two: of more, hardly any FSM is what is asked for but for one of them.
_filter = st.one_of(
    st.fixed_dictionaries({name: values})
    for name, values in {
        "machine": st.sampled_from(["Ticket", "Other"]),
        "state": st.sampled_from(STATES),
        "status": st.sampled_from(STATUSES),
        "failed": st.booleans(),
        "started_after": st.integers(0, 30),
        "updated_before": st.integers(0, 70),
        "in_state_longer_than": st.integers(45, 100),
    }.items()
)
_asked = st.builds(lambda one, other: {**one, **other}, _filter, st.one_of(st.just({}), _filter))


@settings(max_examples=120, deadline=None)
@given(_fsms, _asked, st.integers(1, 30))
def test_each_filter_finds_what_looking_at_all_of_them_finds(fsms: list[Any], asked: Any, limit: int) -> None:
    # Seen to fail with each line of `_fits` taken out, but those of machine and state, which the index tells; and with
    # `high` of `_scores` a unit greater for those long in their state.
    store = Store(FakeRedis())
    now = int(store.redis.time()[0]) * 1000
    # One unit is a minute, so that the time which the test takes is nothing.
    begin = now - 100 * 60_000
    wanted = []
    for at, (started, moved, written, state, status, has_error) in enumerate(fsms):
        born = begin + started * 60_000
        since, updated = born + moved * 60_000, born + (moved + written) * 60_000
        more = {"born": born * 1000, "updated_at": updated}
        put(store, f"t{at:02}", since, state, status, **more, **({"error": b"{}"} if has_error else {}))
        if (
            asked.get("machine", "Ticket") == "Ticket"
            and asked.get("state", state) == state
            and asked.get("status", status) == status
            and asked.get("failed", has_error) == has_error
            and ("started_after" not in asked or started > asked["started_after"])
            and ("updated_before" not in asked or started + moved + written < asked["updated_before"])
            and ("in_state_longer_than" not in asked or 100 - started - moved >= asked["in_state_longer_than"] + 1)
        ):
            wanted.append(f"t{at:02}")
    filters: dict[str, Any] = dict(asked)
    for name in ("started_after", "updated_before"):
        if name in filters:
            filters[name] = datetime.fromtimestamp((begin + filters[name] * 60_000) / 1000, UTC)
    if "in_state_longer_than" in filters:
        # Half a unit more: those of exactly this length are longer there by what the test has taken.
        filters["in_state_longer_than"] = filters["in_state_longer_than"] * 60 + 30

    assert sorted(names(store, **filters, limit=limit)) == wanted


def test_what_matches_exactly_is_left_out_by_filters_of_time(store: Store) -> None:
    put(store, "a", 1000, born=1_000_001)
    born, written = datetime.fromtimestamp(1.000001, UTC), datetime.fromtimestamp(1, UTC)
    before = timedelta(microseconds=1)

    assert (names(store, started_after=born), names(store, started_after=born - before)) == ([], ["a"])
    assert (names(store, updated_before=written), names(store, updated_before=written + before)) == ([], ["a"])


def test_a_damaged_snapshot_comes_beside_the_others(store: Store) -> None:
    for name in ("a", "b", "c"):
        put(store, name, 5)
    store.redis.hset(store.keys.snapshot("b"), "version", "x")
    store.redis.delete(store.keys.snapshot("c"))
    store.redis.set(store.keys.snapshot("c"), "by hand")
    store.redis.zadd(store.keys.state("Ticket", "open"), {"ghost": 6})

    found = query(store)

    assert {one.name: one.status for one in found} == {"a": "running", "b": "damaged", "c": "damaged"}
    assert names(store, status="damaged") == ["b", "c"]
    assert names(store, status="running") == ["a"]
    assert names(store, failed=False) == ["a"]


def test_a_page_looks_at_so_many_and_no_more(real_store: Store) -> None:
    store = real_store
    with store.redis.pipeline() as pipeline:
        for at in range(2500):
            fields = {"machine": "Ticket", "state": "open", "payload": "1", "version": 1, "born": 1, "updated_at": 1}
            pipeline.hset(store.keys.snapshot(f"t{at:04}"), mapping=fields)
            pipeline.zadd(store.keys.state("Ticket", "open"), {f"t{at:04}": at})
        pipeline.sadd(store.keys.states, "Ticket:open")
        pipeline.execute()
    put(store, "last", 3000, status="paused")

    found = list(pages(store, status="paused"))

    assert [len(page) for page in found] == [0, 0, 1]


def test_those_with_an_error_come_by_when_they_failed(store: Store) -> None:
    put(store, "b", 7, error=b"{}")
    put(store, "a", 9, "shut", "finished", error=b"{}")
    put(store, "c", 3)
    store.redis.zadd(store.keys.errors("Ticket"), {"c": 1})  # an index that does not hold is no answer

    assert names(store, failed=True) == names(store, machine="Ticket", failed=True) == ["b", "a"]
    assert names(store, failed=True, state="shut", limit=1) == ["a"]
    assert names(store, failed=True, status="running") == ["b"]
    assert names(store, failed=True, machine="Other") == []


def test_of_those_with_an_error_it_counts_how_long_they_are_in_their_state(store: Store) -> None:
    # Seen to fail without ZSCORE: the index of errors tells when they failed.
    now = int(store.redis.time()[0]) * 1000
    put(store, "long", 1000, error=b"{}")
    put(store, "over", 1000, "shut", "finished", error=b"{}")
    put(store, "short", now - 1000, error=b"{}")
    store.redis.zadd(store.keys.errors("Ticket"), {"long": now - 1000, "short": 1000})

    assert names(store, failed=True, in_state_longer_than="1h") == ["over", "long"]


def test_an_fsm_that_failed_after_its_last_commit_is_found_by_when_that_was(store: Store) -> None:
    # A failure that is noted beside the snapshot leaves `updated_at`. Seen to fail where the index of errors, which
    # tells when they failed, was read up to `updated_before` only.
    put(store, "a", 1000, error=b"{}")
    store.redis.zadd(store.keys.errors("Ticket"), {"a": 5000})

    assert names(store, failed=True, updated_before=datetime.fromtimestamp(2, UTC)) == ["a"]


def test_an_index_of_its_own_is_read_for_what_is_indexed(real_store: Store) -> None:
    store = real_store
    with store.redis.pipeline() as pipeline:
        for at in range(5000):
            fields = {"machine": "Ticket", "state": "open", "payload": "1", "version": 1, "born": 1, "updated_at": 1}
            pipeline.hset(store.keys.snapshot(f"t{at:04}"), mapping=fields)
            pipeline.zadd(store.keys.state("Ticket", "open"), {f"t{at:04}": at})
        pipeline.sadd(store.keys.states, "Ticket:open")
        pipeline.execute()
    put(store, "x", 9000, error=b"{}")
    put(store, "y", 9000, "shut", "finished")

    for asked in ({"failed": True}, {"status": "finished"}, {"state": "open"}, {"in_state_longer_than": "1d"}):
        # One more reads the machines.
        store.redis.config_resetstat()
        query(store, **asked, limit=10)
        stats = store.redis.info("commandstats")
        calls = {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hgetall", "hmget", "zrange")}
        assert calls["hgetall"] <= 11, asked
        assert (calls["hmget"], calls["zrange"]) <= (10, 4), asked


def test_nobody_is_met_in_the_ms_in_which_the_first_page_began(store: Store) -> None:
    # Who moves in that ms behind our back has it as his time, and would come twice. Seen to fail with `if True` in the
    # place of the comparison in `_begin`.
    put(store, "a", 5)
    times = [[7, 1_000], [7, 1_500], [7, 1_999], [7, 2_000]]

    def ask_by_that_clock(request: Any) -> Any:
        commands = request.commands
        if commands[0] != ("TIME",):
            assert not times or commands[0][0] not in ("ZRANGE", "HGETALL") or commands[0][1].endswith(":machines")
            return run(store.redis, request)
        reply = run(store.redis, request)
        return [times.pop(0), *reply[1:]]

    found = verbs.carry(verbs.query(store.keys, verbs.read_filters("query", {})), ask_by_that_clock)

    assert (times, [one.name for one in found]) == ([], ["a"])
    assert found.as_of.timestamp() == 7.001


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"stat": "x"}, r"query\(stat=…\): no such filter, did you mean 'state'\? filters are machine, state, status"),
        ({"status": "purging"}, "'purging' is no status: use starting, running, paused, finished, failed or damaged"),
        ({"failed": 1}, "1 is not allowed: use True or False"),
        ({"machine": Ticket}, "is no name: use text"),
        ({"started_after": datetime(2026, 1, 1)}, "use an aware datetime"),  # noqa: DTZ001 - that is what is refused
        ({"updated_before": "2026-01-01"}, "use an aware datetime"),
        ({"in_state_longer_than": "soon"}, "in_state_longer_than"),
        ({"limit": 0}, "a page has 1 to 1000 FSMs, not 0"),
        ({"limit": 1001}, "a page has 1 to 1000 FSMs, not 1001"),
        ({"limit": True}, "a page has 1 to 1000 FSMs, not True"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_to_do(store: Store, asked: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        query(store, **asked)


def cursor_of(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


SEAL = verbs.read_filters("query", {}).seal()
BAD = [
    "x", "naïve", "W10", cursor_of("state", "Ticket", "open"), cursor_of("keys", "Ticket", "open", 1, "a", 1, 1, SEAL),
    cursor_of("state", "Ticket", "open", "1", "a", 1, 1, SEAL), cursor_of("state", "Ticket", "open", 1, 7, 1, 1, SEAL),
    cursor_of("state", 7, "open", 1, "a", 1, 1, SEAL), cursor_of("state", "Ticket", "open", 1, "a", -1, 1, SEAL),
    cursor_of("state", "Ticket", "open", 2**60, "a", 1, 1, SEAL),
    cursor_of("state", "Ticket", "open", 1, "日", 1, 1, SEAL),
    cursor_of("state", "Ticket", "open", 1, "a", 1, 2**50, SEAL),
    cursor_of("state", "Ticket", "open", True, "a", 1, 1, SEAL), 7, b"W10",
]  # fmt: skip


@pytest.mark.parametrize("cursor", BAD)
def test_what_is_no_cursor_is_refused(store: Store, cursor: Any) -> None:
    put(store, "a", 5)

    with pytest.raises(PayloadError, match="is no cursor: give the one of the page before"):
        query(store, cursor=cursor)


def test_a_cursor_goes_with_its_filters(store: Store) -> None:
    for name in "abc":
        put(store, name, 5)
    cursor = query(store, machine="Ticket", limit=1).cursor

    assert [one.name for one in query(store, machine="Ticket", limit=2, cursor=cursor)] == ["b", "c"]
    with pytest.raises(PayloadError, match="is a cursor of other filters"):
        query(store, cursor=cursor)


def test_names_of_any_text_are_found_page_by_page(store: Store) -> None:
    odd = ["with:colons:x", "two\nlines", " ", "naïve 日本", "a/b@c~d", "z" * 512, "\x00"]
    for name in odd:
        put(store, name, 5)

    assert sorted(names(store, limit=1)) == sorted(odd)


def read(snapshot: Snapshot) -> tuple[str, str]:
    return snapshot.name, snapshot.state


def test_one_that_moves_between_index_and_snapshot_is_told_as_it_is_and_not_in_a_state_where_it_is_not(
    store: Store,
) -> None:
    store.idle("a", "b")
    store.redis.hset(store.keys.snapshot("b"), "state", "shut")

    # Seen to fail without the lines of state and of machine in `_fits`.
    assert [read(one) for one in query(store)] == [("a", "open"), ("b", "shut")]
    assert names(store, state="open") == ["a"]
    store.redis.hset(store.keys.snapshot("b"), "machine", "Other")
    assert names(store, machine="Ticket") == ["a"]
