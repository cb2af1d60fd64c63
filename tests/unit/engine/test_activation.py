"""One claimed FSM in a worker's hands, over the real scripts and fakeredis."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fsm.engine import HandlerTimeout, derived_id
from fsm.store import calls
from fsm.store.requests import run
from fsm.verbs import view
from tests.unit.engine.office import KEYS, Office
from workers import activation
from workers.executors import InlineExecutor

if TYPE_CHECKING:
    import fakeredis


@pytest.fixture
def office(fake_redis: fakeredis.FakeRedis) -> Office:
    return Office(fake_redis)


def test_events_are_run_in_order_with_the_hard_events_between_them(office: Office) -> None:
    office.start()
    ids = office.send("put", "put", "pack", "lose", "put")

    assert office.turn() == ["REST"]

    assert office.machine.seen == ["begin", "put", "put", "send", "put"]
    snapshot = office.snapshot()
    assert (snapshot.state, snapshot.status, snapshot.version) == ("lost", "running", 7)
    assert snapshot.payload == {"items": [0, 1, 4]}
    assert snapshot.history == ("open", "packed", "sent", "lost")
    assert {office.standing(job_id) for job_id in [*ids, "pack-2--h1"]} == {"done"}
    assert [(line["event"], line["from"], line["to"], line["version"]) for line in office.log() if "from" in line] == [
        ("begin", "open", "open", 1),
        ("put", "open", "open", 2),
        ("put", "open", "open", 3),
        ("pack", "open", "packed", 4),
        ("send", "packed", "sent", 5),
        ("lose", "sent", "lost", 6),
        ("put", "lost", "lost", 7),
    ]
    assert office.standing("lose-3--s1") == "failed"
    assert not office.redis.exists(KEYS.lock("p"), KEYS.held)


def test_time_that_is_over_ends_the_turn_after_one_event_and_loses_nothing(office: Office) -> None:
    office.start()
    office.send("put", "put")

    assert office.turn(seconds=-1) == ["READY"]
    assert office.mailbox() == ["put-0", "put-1"]
    assert office.turn() == ["REST"]
    assert office.snapshot().payload == {"items": [0, 1]}


@pytest.mark.parametrize("how", ["deleted", "cancelled"])
def test_what_an_operator_took_away_is_passed_over_and_reported_once(office: Office, how: str) -> None:
    office.start()
    office.send("put", "put", "put")
    if how == "deleted":
        office.redis.delete(KEYS.job("put-1"))
    else:
        office.edit("put-1", status="canceled")

    assert office.turn() == ["REST"]

    assert office.snapshot().payload == {"items": [0, 2]}
    assert [line["error"] for line in office.log() if line["job"] == "put-1"] == [f"{how} by an operator"]
    assert office.standing("put-1") == {"deleted": "unknown", "cancelled": "cancelled"}[how]


def test_an_event_of_another_life_of_the_name_is_taken_away(office: Office) -> None:
    office.start()
    office.send("put", "put")
    office.edit("put-0", born="7")

    office.turn()

    assert office.snapshot().payload == {"items": [1]}
    assert office.standing("put-0") == "gone"
    assert [line["error"] for line in office.log() if line["job"] == "put-0"] == ["sent to an earlier life"]


def test_events_behind_the_end_are_told_that_the_fsm_has_finished(office: Office) -> None:
    office.start()
    ids = office.send("pack", "deliver", "put", "put", asked=True)

    office.turn()

    assert office.snapshot().status == "finished"
    assert [office.standing(job_id) for job_id in ids] == ["done", "done", "refused", "refused"]
    result = run(office.redis, view(KEYS, "put-2")).result
    assert (result["refused"], result["reason"]) == ("finished", "the FSM has finished in state 'sent'")
    assert office.redis.xlen(KEYS.result("put-3")) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'["workers.jobs.transition",null,["default","p"],{}]',
        zlib.compress(b'["workers.jobs.transition",null,["default","p","put",%s],{}]' % (b"[" * 300 + b"]" * 300)),
        zlib.compress(b"no call"),
    ],
    ids=["empty", "no JSON", "no text", "no call", "too short", "too deep", "compressed"],
)
def test_a_record_edited_by_hand_fails_by_name_and_delays_nobody(office: Office, data: bytes) -> None:
    office.start()
    office.send("put", "put", "put")
    office.edit("put-1", data=data)

    assert office.turn() == ["REST"]

    assert office.snapshot().payload == {"items": [0, 2]}
    assert office.standing("put-1") == "failed"
    error = run(office.redis, view(KEYS, "put-1")).result
    assert "edited by hand" in error["message"] or error["type"] == "PayloadError"


def test_a_record_that_rq_compressed_is_read(office: Office) -> None:
    office.start()
    office.send("put")
    data = office.redis.hget(KEYS.job("put-0"), "data")
    assert data is not None
    office.edit("put-0", data=zlib.compress(data))

    office.turn()

    assert office.snapshot().payload == {"items": [0]}


def test_data_that_are_no_json_inside_a_whole_record_are_refused(office: Office) -> None:
    office.start()
    office.send("put")
    office.edit("put-0", data=b'["workers.jobs.transition",null,["default","p","put",{"a":],{}]')

    office.turn()

    assert office.standing("put-0") == "refused"
    assert run(office.redis, view(KEYS, "put-0")).result["refused"] == "invalid_data"


@pytest.mark.parametrize("place", ["done", "failed", "gone", "nonsense"])
def test_an_id_that_was_put_into_the_mailbox_again_by_hand_is_not_applied_again(office: Office, place: str) -> None:
    office.start()
    office.send("put")
    office.turn()
    office.edit("put-0", place=place)
    office.redis.rpush(KEYS.mailbox("p"), "put-0")
    office.redis.zadd(KEYS.ready("fsm"), {"p": 1})

    assert office.turn() == ["REST"]

    assert office.snapshot().payload == {"items": [0]}
    assert office.redis.hget(KEYS.job("put-0"), "place") == place.encode()


def test_what_was_applied_and_then_cancelled_by_rq_stays_applied_though_its_id_lies_there_twice(office: Office) -> None:
    # Seen to fail where `canceled` is heard before the place: what was done was told as gone, and could be requeued.
    office.start()
    (job_id,) = office.send("put")
    office.turn()
    office.edit(job_id, status="canceled")
    office.send("pack")
    office.redis.rpush(KEYS.mailbox("p"), job_id)

    assert office.turn() == ["REST"]
    assert office.standing(job_id) == "done"


@pytest.mark.parametrize("meta", [b"{", b"[1]", b"\xff", b"7", b'{"a":%s}' % (b"[" * 300 + b"]" * 300)])
def test_meta_that_cannot_be_read_are_none(office: Office, meta: bytes) -> None:
    office.start()
    office.send("put", meta=b'{"actor":"ada"}')
    office.edit("put-0", meta=meta)

    office.turn()

    assert office.standing("put-0") == "done"
    assert "meta" not in office.log()[-1]


def test_meta_go_to_the_log_as_they_were_sent_whatever_the_handler_does_to_its_own(office: Office) -> None:
    office.start()
    office.send("put", meta=b'{"actor":"ada"}')

    office.turn()

    assert office.log()[-1]["meta"] == {"actor": "ada"}


def test_a_history_edited_by_hand_begins_anew(office: Office) -> None:
    office.start()
    office.turn()
    office.redis.hset(KEYS.snapshot("p"), "history", "[broken")
    office.send("pack")

    office.turn()

    assert office.snapshot().history == ("open", "packed", "sent")


def test_a_history_that_an_earlier_version_wrote_goes_on(office: Office) -> None:
    # Seen to fail without the reading of JSON in `read_history`: the old list stayed one state of a strange name.
    office.start()
    office.turn()
    office.redis.hset(KEYS.snapshot("p"), "history", '["lost","half packed"]')
    office.send("pack")

    office.turn()

    assert office.snapshot().history == ("lost", "half packed", "open", "packed", "sent")
    assert office.redis.hget(KEYS.snapshot("p"), "history") == b"lost>half packed>open>packed"


def test_a_failure_is_noted_until_an_event_is_done(office: Office) -> None:
    office.start()
    office.machine.__dict__["broken"] = "put"
    office.send("put")
    office.turn()

    error = office.snapshot().error
    assert error is not None
    assert (error["event"], error["job"], error["type"], error["message"]) == ("put", "put-0", "ValueError", "as told")
    assert office.standing("put-0") == "failed"

    office.send("find", "pack")
    office.turn()

    assert office.snapshot().error is None
    refused = office.snapshot().refused
    assert refused is not None
    assert (refused["event"], refused["refused"], refused["allowed"]) == ("find", "not_allowed", ["put", "pack"])


def test_what_is_no_error_leaves_no_note_in_the_snapshot(office: Office) -> None:
    office.start()
    office.machine.__dict__["broken"] = "ask"
    ids = office.send("lose", "pack", "ask")

    office.turn()

    assert (office.snapshot().error, office.snapshot().refused) == (None, None)
    assert [office.standing(job_id) for job_id in ids] == ["refused", "done", "failed"]
    assert not office.redis.exists("rq:failed:fsm")
    assert office.log()[-1]["error"] == "as told"


# Suspects: FSMs on which workers died.


def test_a_suspect_runs_one_event_at_a_time_and_owes_its_hard_event(office: Office) -> None:
    office.start()
    office.turn()
    office.send("pack", "lose")
    office.redis.hset(KEYS.snapshot("p"), "tries", 1)

    assert office.turn() == ["READY"]

    assert office.machine.seen == ["begin"]
    fields = office.redis.hgetall(KEYS.snapshot("p"))
    assert (fields[b"state"], fields[b"owes"]) == (b"packed", b"pack-0--h1")
    assert (fields[b"tries"], fields[b"probation"]) == (b"0", b"2")
    assert office.standing("pack-0--h1") == "waiting"
    assert office.redis.lrange(KEYS.urgent("p"), 0, -1) == [b"pack-0--h1"]

    assert office.turn() == ["REST"]

    assert office.machine.seen == ["begin", "send"]
    assert (office.snapshot().state, office.standing("pack-0--h1")) == ("lost", "done")
    assert b"owes" not in office.redis.hgetall(KEYS.snapshot("p"))
    assert not office.redis.exists(KEYS.urgent("p"))


def test_a_suspect_whose_hard_event_waits_is_not_cleared(office: Office) -> None:
    # Seen to fail without the look at `block.owes` in `_clear`: its hard event came in a batch with others, and
    # where it was that which killed its worker, they were charged with it.
    office.start()
    office.turn()
    office.send("pack")
    office.redis.hset(KEYS.snapshot("p"), "tries", 1)

    assert office.turn() == ["READY"]

    assert office.redis.hget(KEYS.snapshot("p"), "tries") == b"0"
    assert office.turn() == ["REST"]
    assert office.standing("pack-0--h1") == "done"
    assert not {b"tries", b"probation"} & set(office.redis.hkeys(KEYS.snapshot("p")))


@pytest.mark.parametrize("how", ["deleted", "cancelled", "born", "done"])
def test_deaths_on_an_event_that_was_taken_away_are_not_charged_to_the_next(office: Office, how: str) -> None:
    # Seen to fail without `block.taken` where a suspect is cleared: the next event was abandoned without being run.
    office.start()
    office.turn()
    ids = office.send("put", "put")
    office.redis.hset(KEYS.snapshot("p"), "tries", 3)
    take_away(office, ids[0], how)

    assert office.turn() == ["READY"]
    assert office.turn() == ["REST"]

    assert office.snapshot().payload == {"items": [1]}
    assert office.standing(ids[1]) == "done"


@pytest.mark.parametrize(("tries", "standing"), [(2, "done"), (3, "failed")])
def test_an_event_is_abandoned_after_more_deaths_than_the_settings_allow(
    office: Office, tries: int, standing: str
) -> None:
    office.start()
    office.turn()
    office.send("put", "put")
    office.redis.hset(KEYS.snapshot("p"), "tries", tries)

    assert office.turn() == ["READY"]

    assert office.standing("put-0") == standing
    assert office.snapshot().tries == 0
    assert office.turn() == ["REST"]
    assert office.snapshot().payload["items"][-1] == 1
    if standing == "failed":
        result = run(office.redis, view(KEYS, "put-0")).result
        assert (result["failed"], result["message"]) == ("abandoned", "workers died 3 times on this event")
        assert "put" in office.machine.seen
        assert office.machine.seen.count("put") == 1


# An FSM that owes its entry event to itself.


def take_away(office: Office, job_id: str, how: str) -> None:
    if how == "deleted":
        office.redis.delete(KEYS.job(job_id))
    elif how == "dropped":
        office.redis.delete(KEYS.job(job_id))
        office.redis.lrem(KEYS.mailbox("p"), 1, job_id)
    else:
        office.edit(
            job_id, **{"cancelled": {"status": "canceled"}, "born": {"born": "7"}, "done": {"place": "done"}}[how]
        )


HOWS = pytest.mark.parametrize("how", ["deleted", "dropped", "cancelled", "born", "done"])


@HOWS
def test_an_entry_event_that_was_taken_away_is_made_again_before_other_mail(office: Office, how: str) -> None:
    entry = office.start()
    office.send("put")
    take_away(office, entry, how)

    assert office.turn() == ["REST"]

    assert office.machine.seen == ["begin", "put"]
    assert (office.snapshot().status, office.snapshot().version) == ("running", 2)
    made = derived_id("put-0" if how == "dropped" else entry, "entry")
    assert office.standing(made) == "done"


def test_an_entry_event_that_was_deleted_is_made_again_also_where_nothing_else_waits(office: Office) -> None:
    take_away(office, office.start(), "deleted")

    assert office.turn() == ["REST"]

    assert (office.snapshot().status, office.machine.seen) == ("running", ["begin"])


def test_where_the_entry_event_that_was_made_again_fails_the_mail_stays(office: Office) -> None:
    take_away(office, office.start(), "dropped")
    office.send("put", "put")
    office.machine.__dict__["broken"] = "begin"

    office.turn()

    assert office.snapshot().status == "failed"
    assert office.mailbox() == ["put-0", "put-1"]
    assert office.machine.seen == ["begin"]
    assert office.standing("put-0") == "waiting"


@pytest.mark.parametrize(("tries", "status", "seen"), [(1, "running", ["begin"]), (3, "failed", [])])
def test_a_suspect_runs_the_entry_event_that_was_made_again_alone(
    office: Office, tries: int, status: str, seen: list[str]
) -> None:
    take_away(office, office.start(), "dropped")
    office.send("put")
    office.redis.hset(KEYS.snapshot("p"), "tries", tries)

    office.turn()

    assert (office.snapshot().status, office.machine.seen, office.mailbox()) == (status, seen, ["put-0"])


def test_an_entry_record_edited_by_hand_starts_the_fsm_all_the_same(office: Office) -> None:
    office.edit(office.start(), data="nonsense")

    office.turn()

    assert office.snapshot().status == "running"


# Faults of the step itself.


def test_a_time_out_that_rings_outside_of_user_code_writes_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rung(*_: Any) -> None:
        raise HandlerTimeout

    office.start()
    office.turn()
    office.send("put")
    monkeypatch.setattr(activation, "step", rung)

    with pytest.raises(RuntimeError, match="event 'put' of FSM 'p' rang outside of its handlers"):
        office.turn()

    assert office.mailbox() == ["put-0"]
    assert office.snapshot().version == 1


def test_the_decision_of_a_step_stands_where_its_time_is_over_just_then(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            raise HandlerTimeout

    office.start()
    monkeypatch.setattr(InlineExecutor, "timed", lambda *_, **__: Late())

    office.turn()

    assert office.snapshot().status == "running"
    assert orjson.loads(office.redis.hget(KEYS.job("entry-p"), "result") or b"")["version"] == 1


# What a waiter follows, and how long it is remembered.


def result_of(office: Office, job_id: str) -> dict[str, Any]:
    result: dict[str, Any] = orjson.loads(office.redis.hget(KEYS.job(job_id), "result") or b"{}")
    return result


def kept(office: Office) -> dict[str, int]:
    """Seconds until the records of done events are dropped, by id."""
    now, _ = office.redis.time()
    return {
        job_id: round(end - int(now))
        for batch, end in office.redis.zrange(KEYS.ended, 0, -1, withscores=True)
        for job_id in batch.decode().split()[1:]
    }


def test_an_event_that_a_hard_one_follows_names_its_job(office: Office) -> None:
    office.start()
    office.send("put", "pack")

    office.turn()

    assert result_of(office, "pack-1")["next"] == "pack-1--h1"
    assert "next" not in result_of(office, "put-0")
    assert "next" not in result_of(office, "pack-1--h1")


def test_an_event_whose_hard_one_is_left_to_the_next_claim_names_its_job_too(office: Office) -> None:
    office.start()
    office.turn()
    office.send("pack")
    office.redis.hset(KEYS.snapshot("p"), "tries", 1)

    office.turn()

    assert result_of(office, "pack-0")["next"] == "pack-0--h1"
    assert office.standing("pack-0--h1") == "waiting"
    office.turn()
    assert office.standing("pack-0--h1") == "done"


def test_an_event_with_a_key_is_remembered_for_a_day_with_the_hard_events_that_follow_it(office: Office) -> None:
    office.start()
    office.send("put", "pack", more=("key", "k"))
    office.send("lose", more=())

    office.turn()

    seconds = kept(office)
    assert all(86_300 < seconds[job_id] <= 86_400 for job_id in ("put-0", "pack-1", "pack-1--h1"))
    assert all(seconds[job_id] <= 60 for job_id in ("entry-p", "lose-0"))


def test_a_key_is_remembered_also_where_the_fsm_had_finished_or_an_operator_took_the_event(office: Office) -> None:
    office.start()
    office.send("pack", "deliver", "put", more=("key", "k"))
    office.redis.hset(KEYS.job("put-2"), "status", "queued")
    office.turn()
    assert (result_of(office, "put-2")["refused"], kept(office)["put-2"] > 86_300) == ("finished", True)

    office.start("q")
    office.send("put", name="q", more=("key", "k"))
    office.edit("put-0", status="canceled")
    office.turn()
    assert office.redis.ttl(KEYS.job("put-0")) > 86_400


def test_a_version_is_compared_with_that_at_the_time_of_the_event(office: Office) -> None:
    office.start()
    office.turn()
    office.send("put", "put", more=("if_version", 1))

    office.turn()

    assert (office.standing("put-0"), office.standing("put-1")) == ("done", "refused")
    assert office.snapshot().payload == {"items": [0]}


def test_a_version_edited_by_hand_into_nonsense_refuses_its_event(office: Office) -> None:
    office.start()
    office.send("put")
    office.edit("put-0", if_version="soon")

    office.turn()

    assert result_of(office, "put-0")["refused"] == "stale_version"


def test_a_suspect_is_cleared_step_by_step(office: Office) -> None:
    office.start()
    office.turn()
    office.send(*["put"] * 12)
    office.redis.hset(KEYS.snapshot("p"), "tries", 2)
    applied = []
    for _ in range(4):
        office.turn()
        applied.append(len(office.snapshot().payload["items"]))

    assert applied == [1, 3, 7, 12]
    assert not {b"tries", b"probation"} & set(office.redis.hkeys(KEYS.snapshot("p")))


def test_a_poison_deep_in_a_mailbox_kills_few_workers_and_no_innocent_is_charged(office: Office) -> None:
    # Seen to kill 36 workers while a suspect was cleared by one event: all the others then came in one claim again.
    office.start()
    office.turn()
    office.send(*["put"] * 40)
    office.machine.poison.append(33)
    deaths = 0
    while office.mailbox():
        try:
            office.turn()
        except KeyboardInterrupt:
            deaths += 1
            run(office.redis, calls.recover(KEYS, ["w"]))

    assert deaths < 15
    assert office.snapshot().payload["items"] == [n for n in range(40) if n != 33]
    assert [line["job"] for line in office.log() if "error" in line] == ["put-33"]
    assert office.standing("put-33") == "failed"
