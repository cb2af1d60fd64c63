"""What applications call, over fakeredis and a worker without a process."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
from rq.job import JobStatus

import fsm.client
from fsm import (
    CallTimeoutError,
    Client,
    ConfigError,
    FailedError,
    FSMExistsError,
    FSMFinishedError,
    KeyConflictError,
    Machine,
    MailboxFullError,
    PayloadError,
    RefusedError,
    Settings,
    StoreError,
    Transition,
    UnknownFSMError,
    on,
)
from tests.unit.engine.office import Office, Parcel

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)


class Shop(Machine[Cart]):
    settings = Settings(max_mailbox=3, queue="shop")
    diagram = """
    stateDiagram-v2
        [*] --> open
        open --> open : add
        open --> [*] : close
    """

    @on("add")
    def add(self, t: Transition[Cart], item: str) -> None:
        t.payload.items.append(item)


@pytest.fixture
def client(fake_redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(fsm.client, "connect", lambda _url: fake_redis)
    with Client("redis://:secret@nowhere:1", namespace="default") as made:
        yield made


@pytest.fixture
def office(fake_redis: fakeredis.FakeRedis) -> Office:
    return Office(fake_redis)


def test_a_client_connects_at_the_first_call_and_again_after_it_was_closed(
    monkeypatch: pytest.MonkeyPatch, fake_redis: fakeredis.FakeRedis
) -> None:
    connected = []
    monkeypatch.setattr(fsm.client, "connect", lambda url: connected.append(url) or fake_redis)
    client = Client("redis://nowhere:1", namespace="default")
    assert connected == []

    client.exists("p")
    client.exists("p")
    client.close()
    client.close()
    client.exists("p")

    assert connected == ["redis://nowhere:1"] * 2


def test_a_client_shows_itself_without_its_password(client: Client) -> None:
    assert "secret" not in repr(client)
    assert "nowhere:1" in repr(client)


@pytest.mark.parametrize("namespace", ["a:b", "a b", "é", "a/b", "x" * 65, "a\n"])
def test_a_namespace_that_cannot_be_is_refused_by_name(namespace: str) -> None:
    with pytest.raises(ConfigError, match=r"namespace .*: use 1 to 64 of the characters"):
        Client("redis://nowhere:1", namespace=namespace)


def test_an_fsm_goes_its_way(client: Client, office: Office) -> None:
    parcel = client.start_fsm(Parcel, "p", {"to": "ada"})
    job = parcel.transition("put", 1, meta={"actor": "ada"})
    assert (job.status(), parcel.state().status, parcel.allowed()) == ("waiting", "starting", ("put", "pack"))

    office.turn()

    outcome = job.result()
    assert (outcome.ok, outcome.state, outcome.version, outcome.job_id) == (True, "open", 2, job.id)
    assert (job.status(), job.rq_job().get_status()) == ("done", JobStatus.FINISHED)
    assert parcel.state().payload == {"to": "ada", "items": [1]}
    assert [line["event"] for line in parcel.log()] == ["begin", "put"]
    assert client.job(job.id).name == "p"
    assert client.fsm("p").state().version == 2
    assert [snapshot.name for snapshot in client.snapshots(machine="Parcel", state="open", status="running")] == ["p"]
    assert client.counts()["Parcel"]["open"] == 1
    assert client.machines()["Parcel"]["start"] == "open"


def test_what_was_refused_is_told(client: Client, office: Office) -> None:
    parcel = client.start_fsm(Parcel, "p")
    job = parcel.transition("deliver")

    office.turn()

    assert job.status() == "refused"
    with pytest.raises(RefusedError, match="allowed here: put, pack"):
        job.result()


def test_by_name_alone_values_are_plain_and_with_the_class_they_are_typed(client: Client) -> None:
    shop = client.start_fsm(Shop, "s", Cart(["tea"]))
    client.start_fsm(Shop, "t", {"items": ["milk"]})

    assert client.state("s").payload == {"items": ["tea"]}
    assert shop.state().payload == Cart(["tea"])
    assert client.fsm(Shop, "t").state().payload == Cart(["milk"])
    assert client.state("s").queue == "shop"
    with pytest.raises(PayloadError):
        shop.transition("add", 7)
    assert client.transition("s", "add", 7).status() == "waiting"


def test_a_payload_that_is_not_of_the_class_is_an_error_of_the_store(client: Client) -> None:
    client.start_fsm(Parcel, "p", {"other": 1})

    with pytest.raises(StoreError, match="the payload of FSM 'p' is not of the type of Shop"):
        client.state("p", Shop)


def test_starting_twice_is_refused_also_when_the_first_has_finished(client: Client, office: Office) -> None:
    client.start_fsm(Parcel, "p")
    with pytest.raises(FSMExistsError, match="'p' exists already in namespace 'default'"):
        client.start_fsm(Parcel, "p")
    client.transition_many([("p", "pack"), ("p", "deliver")])
    office.turn()

    with pytest.raises(FSMExistsError):
        client.start_fsm(Shop, "p")
    assert client.state("p").status == "finished"


def test_unknown_and_finished_fsms_take_no_events(client: Client, office: Office) -> None:
    for ask in (client.state, client.allowed, client.purge, lambda name: client.transition(name, "put")):
        with pytest.raises(UnknownFSMError, match="no FSM 'p' in namespace 'default'"):
            ask("p")
    assert not client.exists("p")
    client.start_fsm(Parcel, "p")
    client.transition_many([("p", "pack"), ("p", "deliver")])
    office.turn()

    with pytest.raises(FSMFinishedError, match="'p' has finished in state 'sent'"):
        client.transition("p", "put")
    assert client.exists("p")
    assert client.allowed("p") == ()


def test_the_same_event_sent_again_with_its_id_is_applied_once(client: Client, office: Office) -> None:
    client.start_fsm(Parcel, "p")
    client.start_fsm(Parcel, "q")
    first = client.transition("p", "put", 1, job_id="mine")
    again = client.transition("p", "put", 1, job_id="mine")
    office.turn()
    late = client.transition("p", "put", 1, job_id="mine")

    assert first == again == late
    assert client.state("p").payload == {"items": [1]}
    for name, event in (("q", "put"), ("p", "pack")):
        with pytest.raises(KeyConflictError, match="key 'mine' was used for another event"):
            client.transition(name, event, job_id="mine")


@pytest.mark.parametrize("job_id", ["", "a--b", "a b", "a:b", "é", "x" * 129, 7, "a\n"])
def test_job_ids_that_cannot_be_are_refused(client: Client, job_id: Any) -> None:
    client.start_fsm(Parcel, "p")

    with pytest.raises(PayloadError, match="job_id: a job id"):
        client.transition("p", "put", job_id=job_id)


def test_a_full_mailbox_refuses_and_keeps_what_it_has(client: Client) -> None:
    client.start_fsm(Shop, "s")
    client.transition_many([("s", "add", "a"), ("s", "add", "b")], machine=Shop)

    with pytest.raises(MailboxFullError, match=r"mailbox of FSM 's' is full \(3 events\)"):
        client.transition("s", "add", "c")

    verdicts = client.transition_many([("s", "add", "d"), ("s", "add", "e"), ("gone", "add"), ("gone", "add")])
    assert [type(verdict.error) for verdict in verdicts] == [
        MailboxFullError, RefusedError, UnknownFSMError, RefusedError,
    ]  # fmt: skip
    assert client.redis.llen("fsm:default:mailbox:s") == 3


def test_where_one_of_many_is_wrong_none_is_sent(client: Client) -> None:
    client.start_fsm(Parcel, "p")

    with pytest.raises(PayloadError):
        client.transition_many([("p", "put", 1), ("p", "put", float("nan"))])
    with pytest.raises(PayloadError):
        client.start_many(Parcel, ["q", ""])

    assert client.redis.llen("fsm:default:mailbox:p") == 1
    assert not client.exists("q")


def test_a_caller_that_waits_too_long_is_told_that_the_event_stays(client: Client, office: Office) -> None:
    client.start_fsm(Parcel, "p")

    with pytest.raises(CallTimeoutError, match=r"not applied within 0\.05 s") as raised:
        client.call("p", "put", 1, timeout=0.05)

    office.turn()
    assert client.job(raised.value.job_id).result().ok


def test_a_caller_is_woken_by_the_end(client: Client, office: Office) -> None:
    client.start_fsm(Parcel, "p")
    job = client.transition("p", "put", 1, result=True)
    outcomes = []
    caller = threading.Thread(target=lambda: outcomes.append(job.result(20)))
    caller.start()

    office.turn()
    caller.join()

    assert outcomes[0].ok


def test_an_event_that_was_taken_back_is_not_applied(client: Client, office: Office) -> None:
    client.start_fsm(Parcel, "p")
    job = client.transition("p", "put", 1)
    done = client.transition("p", "put", 2)

    assert job.cancel()
    assert job.status() == "cancelled"
    office.turn()

    assert job.cancel()
    assert not done.cancel()
    assert (job.status(), done.status()) == ("cancelled", "done")
    assert client.state("p").payload == {"items": [2]}
    with pytest.raises(FailedError, match="an operator took it away before it was applied"):
        job.result()


def test_an_end_that_rq_wrote_over_is_told_as_it_was(client: Client, office: Office) -> None:
    client.start_fsm(Parcel, "p")
    job = client.transition("p", "put", 1)
    office.turn()
    job.rq_job().cancel()

    assert job.status() == "done"
    assert job.result().ok


def test_a_job_that_is_not_there_is_unknown(client: Client) -> None:
    job = client.job("abc")
    assert job.status() == "unknown"
    with pytest.raises(FailedError, match="has no record"):
        job.result()
    with pytest.raises(StoreError, match="abc has no record"):
        job.rq_job()
    with pytest.raises(PayloadError):
        client.job("a b")


def test_a_purged_fsm_is_gone_and_its_name_is_free(client: Client, office: Office) -> None:
    parcel = client.start_fsm(Parcel, "p", {"life": 1})
    job = parcel.transition("put", 1)

    parcel.purge()

    assert not parcel.exists()
    with pytest.raises(FailedError, match="purged with its FSM"):
        job.result()
    client.start_fsm(Parcel, "p", {"life": 2})
    office.turn()
    assert client.state("p").payload == {"life": 2}
    assert client.state("p").version == 1


def test_a_purge_of_another_life_of_the_name_does_nothing(client: Client) -> None:
    client.start_fsm(Parcel, "p")

    with pytest.raises(UnknownFSMError):
        client.purge("p", born="7")

    assert client.exists("p")


def test_the_log_can_be_followed_from_now_on(client: Client, office: Office) -> None:
    client.start_fsm(Parcel, "p")
    office.turn()
    client.transition("p", "put", 1)
    lines = client.log("p", follow=True, after="$")
    assert [line["event"] for line in client.log()] == ["begin"]
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(next(lines)["event"]))
    reader.start()

    while reader.is_alive():
        client.transition("p", "put", 2)
        office.turn()
    reader.join()

    assert heard == ["put"]


def test_a_handle_has_the_verbs_of_the_client(client: Client) -> None:
    handle = client.fsm(Shop, "s")
    assert not handle.exists()
    with pytest.raises(PayloadError, match="name: the name of an FSM is text, not NoneType"):
        client.fsm(Shop)
    with pytest.raises(PayloadError, match="must not be empty"):
        client.fsm("")
