"""The example `approval` with a real worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from examples.approval import Approval, Document
from examples.approval.desk import Desk, TextChangedError
from fsm import StaleVersionError

if TYPE_CHECKING:
    from fsm import Client
    from tests.integration.conftest import Processes

APP = ("--app", "examples.approval")


def test_the_demo_tells_what_people_do(client: Client, processes: Processes) -> None:
    processes.worker(*APP)
    demo = processes.run("-m", "examples.approval", "--run", "1")
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, out
    assert "no, the text was changed meanwhile" in out
    assert "no, lea has approved this text already" in out
    assert (client.state("contract-1").state, client.state("poem-1").state) == ("approved", "withdrawn")


def test_two_who_read_the_same_text_both_approve_it_at_the_same_moment(client: Client, processes: Processes) -> None:
    processes.worker(*APP)
    name = "contract"
    client.start_fsm(Approval, name, Document("We pay.", "ann"), state="review")
    read = client.state(name, Approval)
    votes = [("lea", "legal"), ("max", "money")]
    with ThreadPoolExecutor(2) as people:
        outcomes = [people.submit(Desk(client, who).approve, name, read, role) for who, role in votes]
    assert sorted(outcome.result().state for outcome in outcomes) == ["approved", "review"]
    assert client.state(name, Approval).payload.approvals == {"legal": "lea", "money": "max"}


def test_an_approval_that_waits_behind_an_edit_is_stale_when_its_turn_comes(
    client: Client, processes: Processes
) -> None:
    document = client.start_fsm(Approval, "contract", Document("We pay.", "ann"), state="review")
    read = document.state()
    document.transition("edit", {"text": "We pay never."}, meta={"actor": "ann"})
    vote = document.transition(
        "approve", {"role": "legal"}, if_version=read.version, meta={"actor": "lea"}, result=True
    )
    processes.worker(*APP)
    with pytest.raises(StaleVersionError):
        vote.result(30)
    with pytest.raises(TextChangedError, match=r"from 'We pay\.' to 'We pay never\.'") as changed:
        Desk(client, "lea").approve("contract", read, "legal")
    assert changed.value.now.payload == Document("We pay never.", "ann")
