from typing import Any

import pytest

from examples.approval import Approval, Document
from examples.approval import __main__ as program
from examples.approval.machine import NEEDED, ROLES
from fsm import InvalidDataError, NotAllowedError, Outcome, RejectedError, StaleVersionError
from fsm.testing import Trial, cover, trial

TEXT = "We pay in 30 days."


def send(document: Trial[Document], who: str, event: str, **data: Any) -> Outcome:
    return document.send(event, data or None, meta={"actor": who})


def in_review(**approvals: str) -> Trial[Document]:
    return trial(Approval, state="review", payload=Document(TEXT, "ann", approvals))


@pytest.mark.parametrize(
    "votes",
    [
        (("lea", "legal"), ("max", "money")),
        (("max", "money"), ("lea", "legal")),
        (("tom", "technology"), ("lea", "legal")),
    ],
)
def test_two_of_three_approve_in_any_order(votes: tuple[tuple[str, str], ...]) -> None:
    document = trial(Approval)
    send(document, "ann", "edit", text=TEXT)
    send(document, "ann", "submit")
    states = [send(document, who, "approve", role=role).state for who, role in votes]
    assert states == ["review", "approved"]
    assert document.status == "finished"
    assert document.payload.approvals == {role: who for who, role in votes}


def test_the_last_approval_is_told_who_approved() -> None:
    assert send(in_review(legal="lea"), "max", "approve", role="money").reply == {
        "approved by": {"legal": "lea", "money": "max"}
    }


def test_an_edit_makes_all_approvals_void() -> None:
    document = in_review(legal="lea")
    send(document, "ann", "edit", text="We pay never.")
    assert document.payload == Document("We pay never.", "ann")
    assert send(document, "max", "approve", role="money").state == "review"


def test_nobody_approves_a_text_that_was_edited_meanwhile() -> None:
    document = in_review(legal="lea")
    read = document.version
    send(document, "ann", "edit", text="We pay never.")
    with pytest.raises(StaleVersionError) as stale:
        document.send("approve", {"role": "money"}, meta={"actor": "max"}, if_version=read)
    assert stale.value.details == {"version": read + 1, "if_version": read}
    assert document.payload.approvals == {}


@pytest.mark.parametrize(
    ("who", "role", "why"),
    [
        ("lea", "money", "lea has approved this text already"),
        ("leo", "legal", "lea has approved this text for legal already"),
        ("ann", "money", "ann wrote this text, and cannot approve it"),
        ("max", "taste", "nobody speaks for 'taste'"),
        ("", "money", "nobody says who this is"),
    ],
)
def test_an_approval_that_does_not_count_is_refused_and_changes_nothing(who: str, role: str, why: str) -> None:
    document = in_review(legal="lea")
    with pytest.raises(RejectedError, match=why):
        send(document, who, "approve", role=role)
    assert document.payload.approvals == {"legal": "lea"}
    assert document.state == "review"


def test_a_refusal_tells_the_sender_s_program_what_it_needs_to_know() -> None:
    with pytest.raises(RejectedError) as taken:
        send(in_review(legal="lea"), "leo", "approve", role="legal")
    assert taken.value.details == {"approvals": {"legal": "lea"}}
    with pytest.raises(RejectedError) as unknown:
        send(in_review(), "leo", "approve", role="taste")
    assert unknown.value.details == {"roles": list(ROLES)}


def test_a_rejection_has_a_reason_and_the_next_text_begins_anew() -> None:
    document = in_review(legal="lea")
    send(document, "max", "reject", reason="too dear")
    assert (document.state, document.payload.objection) == ("rejected", "max: too dear")
    send(document, "ann", "edit", text="We pay less.")
    assert document.payload == Document("We pay less.", "ann")
    assert document.state == "review"


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_rejection_without_a_reason_is_refused(reason: str) -> None:
    document = in_review()
    with pytest.raises(RejectedError, match="say why"):
        send(document, "max", "reject", reason=reason)


def test_what_nobody_wrote_is_not_submitted() -> None:
    document = trial(Approval)
    with pytest.raises(RejectedError, match="there is no text yet"):
        send(document, "ann", "submit")


def test_only_the_author_takes_a_document_back() -> None:
    document = in_review()
    with pytest.raises(RejectedError, match="max cannot take it back"):
        send(document, "max", "withdraw")
    assert send(document, "ann", "withdraw").state == "withdrawn"


def test_a_vote_without_a_role_is_refused_by_its_type() -> None:
    with pytest.raises(InvalidDataError):
        send(in_review(), "max", "approve", part="money")


def test_a_draft_is_not_approved() -> None:
    with pytest.raises(NotAllowedError) as refusal:
        send(trial(Approval), "max", "approve", role="money")
    assert refusal.value.allowed == ("edit", "submit", "withdraw")


def test_there_are_more_roles_than_are_needed() -> None:
    assert len(ROLES) > NEEDED


# Ways through the diagram: who does what, with what.
WAYS = [
    "ann edit:a, ann edit:b, ann submit, ann edit:c, lea approve:legal, max approve:money",
    "ann edit:a, ann submit, lea reject:no, ann edit:b, lea reject:no, ann withdraw",
    "ann edit:a, ann submit, ann withdraw",
    "ann edit:a, ann withdraw",
]
DATA = {"edit": "text", "approve": "role", "reject": "reason"}


def test_these_ways_walk_every_edge_and_end() -> None:
    with cover(Approval) as walked:
        for way in WAYS:
            document = trial(Approval)
            for step in way.split(", "):
                who, _, what = step.partition(" ")
                event, _, value = what.partition(":")
                send(document, who, event, **({DATA[event]: value} if value else {}))
            assert document.status == "finished"
    assert walked.missing == ()


def test_wrong_use_is_told_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--url", "http://localhost"]) == 2
    assert "examples.approval: URL 'http://localhost'" in capsys.readouterr().err


def test_an_unreachable_redis_is_told_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--url", "redis://localhost:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
