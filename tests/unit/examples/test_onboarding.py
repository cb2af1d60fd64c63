"""The machine of the example in trials, its mail server, and its two web applications in their own test clients."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import django.test
import pytest
from fastapi.testclient import TestClient

from examples.onboarding import Customer, Onboarding, Profile, SignUp, Token, Verdict, django_app, http, mail
from examples.onboarding.__main__ import Story, SurpriseError, main
from examples.onboarding.fastapi_app import make_app
from fsm import (
    CallTimeoutError,
    Client,
    HandlerError,
    InvalidDataError,
    NotAllowedError,
    RejectedError,
    StaleVersionError,
)
from fsm.testing import cover, trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fsm.testing import Trial

    Ask = Callable[..., "Reply"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ANN = Profile("Ann Lee", "NZ", 1990)


def signed_up() -> tuple[Trial[Customer], str]:
    """An onboarding whose mail is on its way, and the token in it."""
    onboarding = trial(Onboarding, name="ann", now=NOW)
    assert onboarding.send("sign_up", SignUp("ann@example.org")).state == "mailing"
    (effect,) = onboarding.enqueued
    assert effect.args[:2] == ("ann@example.org", "ann")
    return onboarding, effect.args[2]


def test_a_customer_gets_a_mail_and_proves_to_have_read_it() -> None:
    onboarding, token = signed_up()

    assert onboarding.succeed(mail.send, {"message": "1"}).state == "unconfirmed"
    assert onboarding.send("confirm", Token(token)).state == "confirmed"
    assert onboarding.payload == Customer(email="ann@example.org")


def test_the_payload_does_not_hold_the_token() -> None:
    onboarding, token = signed_up()

    assert token not in str(onboarding.payload)
    assert len(onboarding.payload.proof) == 64


def test_a_wrong_token_is_rejected_and_tells_whose_mail_to_look_for() -> None:
    onboarding, token = signed_up()

    with pytest.raises(RejectedError, match="wrong token") as refusal:
        onboarding.send("confirm", Token("guessed"))

    assert refusal.value.details == {"sent_to": "a…@example.org"}
    assert onboarding.send("confirm", Token(token)).ok


def test_a_token_confirms_once() -> None:
    onboarding, token = signed_up()
    onboarding.send("confirm", Token(token))

    with pytest.raises(NotAllowedError) as refusal:
        onboarding.send("confirm", Token(token))

    assert refusal.value.allowed == ("profile",)


def test_no_token_at_all_is_not_the_proof_of_a_mail_that_was_never_sent() -> None:
    onboarding = trial(Onboarding, state="unconfirmed", payload=Customer("ann@example.org"))

    with pytest.raises(RejectedError):
        onboarding.send("confirm", Token(""))


@pytest.mark.parametrize("is_sent", [True, False])
def test_an_answer_that_comes_after_the_confirmation_is_nothing_to_complain_of(is_sent: bool) -> None:
    onboarding, token = signed_up()
    onboarding.send("confirm", Token(token))

    answer = onboarding.succeed(mail.send, {}) if is_sent else onboarding.fail(mail.send, "cut off")

    assert answer is not None
    assert (answer.ok, onboarding.state, onboarding.refused) == (False, "confirmed", None)


def test_who_cannot_be_reached_signs_up_with_another_address() -> None:
    onboarding, token = signed_up()
    onboarding.fail(mail.send, mail.Undeliverable("nobody there"))
    assert (onboarding.state, onboarding.payload.problem) == ("unreachable", "nobody there")

    onboarding.send("sign_up", SignUp("ann@example.com"))

    (effect,) = onboarding.enqueued
    assert effect.args[0] == "ann@example.com"
    assert effect.args[2] != token
    assert onboarding.payload.problem == ""


@pytest.mark.parametrize("state", ["unconfirmed", "unreachable"])
def test_what_is_not_confirmed_in_three_days_expires(state: str) -> None:
    onboarding = trial(Onboarding, state=state)

    # What the timer of the diagram will send.
    onboarding.send("expire")

    assert (onboarding.state, onboarding.status) == ("expired", "finished")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"full_name": "Ann", "country": "NZ", "birth_year": "1990"}, "$.birth_year"),
        ({"full_name": "Ann", "country": "NZ"}, "$"),
        ({"full_name": "Ann", "country": "NZ", "birth_year": 1990, "admin": True}, "$.admin"),
    ],
)
def test_a_profile_of_another_shape_is_refused_with_the_path(given: dict[str, object], path: str) -> None:
    onboarding = trial(Onboarding, state="confirmed")

    with pytest.raises(InvalidDataError) as refusal:
        onboarding.send("profile", given)

    assert refusal.value.details["path"] == path
    assert onboarding.payload.profile is None


def test_who_is_under_age_is_rejected_with_the_limit() -> None:
    onboarding = trial(Onboarding, state="confirmed", now=NOW)

    with pytest.raises(RejectedError) as refusal:
        onboarding.send("profile", Profile("Tim", "NZ", 2009))

    assert refusal.value.details == {"at_least": 18}
    assert onboarding.send("profile", Profile("Tim", "NZ", 2008)).state == "reviewing"


def test_nobody_approves_a_profile_that_was_changed_meanwhile() -> None:
    onboarding = trial(Onboarding, state="confirmed")
    seen = onboarding.send("profile", ANN).version
    now = onboarding.send("profile", Profile("Ann Lee", "AU", 1990)).version

    with pytest.raises(StaleVersionError):
        onboarding.send("approve", if_version=seen)

    assert onboarding.send("approve", meta={"reviewer": "rae"}, if_version=now).state == "active"
    assert onboarding.payload.reviewer == "rae"


def test_who_declines_says_why() -> None:
    onboarding = trial(Onboarding, state="reviewing", payload=Customer("ann@example.org", profile=ANN))

    with pytest.raises(RejectedError, match="says why"):
        onboarding.send("decline", Verdict())
    onboarding.send("decline", Verdict("a full name, please"), meta={"reviewer": "rae"})

    assert onboarding.state == "confirmed"
    assert (onboarding.payload.problem, onboarding.payload.reviewer) == ("a full name, please", "rae")


def test_an_account_is_closed() -> None:
    assert trial(Onboarding, state="active").send("close").state == "closed"


def test_every_edge_was_walked() -> None:
    with cover(Onboarding) as walked:
        test_a_customer_gets_a_mail_and_proves_to_have_read_it()
        test_a_token_confirms_once()
        test_who_cannot_be_reached_signs_up_with_another_address()
        for state in ("unconfirmed", "unreachable"):
            test_what_is_not_confirmed_in_three_days_expires(state)
        test_nobody_approves_a_profile_that_was_changed_meanwhile()
        test_who_is_under_age_is_rejected_with_the_limit()
        test_who_declines_says_why()
        test_an_account_is_closed()

    assert walked.missing == ()


def test_a_mail_is_delivered_once_for_each_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONBOARDING_MAILS", str(tmp_path / "mails"))

    for _ in range(2):
        assert mail.send("ann@example.org", "ann", "secret", key="job-1") == {"message": "job-1"}

    assert mail.received("ann@example.org", "ann") == [{"to": "ann@example.org", "account": "ann", "token": "secret"}]
    assert [path.name for path in (tmp_path / "mails").iterdir()] == ["job-1.json"]
    assert (tmp_path / "mails").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("email", ["bob@nowhere.invalid", "no address"])
def test_a_mail_to_nobody_is_undeliverable(email: str) -> None:
    with pytest.raises(mail.Undeliverable, match="nobody can be reached at"):
        mail.send(email, "bob", "secret", key="job-1")


class Reply:
    """What came back, whichever framework answered."""

    def __init__(self, status: int, content: bytes, headers: Any) -> None:
        self.status = status
        self.body = json.loads(content)
        self.headers = headers


def by_fastapi(client: Client) -> Iterator[Ask]:
    with TestClient(make_app(client)) as web:

        def ask(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
            answer = web.request(method, path, json=body, headers=headers)
            return Reply(answer.status_code, answer.content, answer.headers)

        yield ask


def by_django(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    monkeypatch.setattr(django_app, "client", lambda: client)
    web = django.test.Client()

    def ask(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        answer = web.generic(method, path, json.dumps(body), "application/json", headers=headers)
        return Reply(answer.status_code, answer.content, answer.headers)

    return iter([ask])


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A world of its own in memory, with its mails in a directory of the test."""
    monkeypatch.setenv("ONBOARDING_MAILS", str(tmp_path))
    with Client("memory://") as made:
        yield made


@pytest.fixture(params=["fastapi", "django"])
def ask(request: pytest.FixtureRequest, client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Make a request to one of the two applications."""
    yield from by_fastapi(client) if request.param == "fastapi" else by_django(client, monkeypatch)


def confirmed(ask: Ask, name: str = "ann") -> None:
    """Sign up, and confirm."""
    assert ask("POST", "/signups", {"account": name, "email": f"{name}@example.org"}).status == 201
    (letter,) = mail.received(f"{name}@example.org", name)
    assert ask("POST", f"/signups/{name}/confirm", {"token": letter["token"]}).status == 200


def reviewing(ask: Ask) -> str:
    """Sign up, confirm and tell the profile; gives what a reviewer sees as `ETag`."""
    confirmed(ask)
    assert ask("PUT", "/signups/ann/profile", vars(ANN)).body["state"] == "reviewing"
    return str(ask("GET", "/signups/ann").headers["ETag"])


def test_a_sign_up_is_answered_with_its_address_and_sends_a_mail(ask: Ask) -> None:
    reply = ask("POST", "/signups", {"account": "ann", "email": "ann@example.org"})

    assert (reply.status, reply.headers["Location"]) == (201, "/signups/ann")
    assert reply.body == {"name": "ann", "state": "mailing", "version": 2}
    assert ask("GET", reply.headers["Location"]).body == {
        "name": "ann",
        "state": "unconfirmed",
        "version": 3,
        "allowed": ["confirm", "expire"],
        "email": "ann@example.org",
        "profile": None,
        "problem": "",
        "reviewer": "",
    }
    assert len(mail.received("ann@example.org", "ann")) == 1


def test_a_sign_up_that_is_repeated_with_its_key_is_answered_the_same_and_sends_one_mail(ask: Ask) -> None:
    wanted, key = {"account": "ann", "email": "ann@example.org"}, {"Idempotency-Key": "form-1"}

    first, again = (ask("POST", "/signups", wanted, key) for _ in range(2))

    assert (first.status, first.body) == (again.status, again.body) == (201, first.body)
    assert len(mail.received("ann@example.org", "ann")) == 1


def test_a_key_for_another_address_is_a_conflict(ask: Ask) -> None:
    key = {"Idempotency-Key": "form-1"}
    ask("POST", "/signups", {"account": "ann", "email": "ann@example.org"}, key)

    reply = ask("POST", "/signups", {"account": "ann", "email": "tom@example.org"}, key)

    assert (reply.status, reply.body["title"]) == (422, "KeyConflictError")


def test_an_account_that_somebody_has_is_not_given_twice(ask: Ask) -> None:
    confirmed(ask)

    reply = ask("POST", "/signups", {"account": "ann", "email": "tom@example.org"}, {"Idempotency-Key": "form-2"})

    assert (reply.status, reply.body["title"], reply.body["allowed"]) == (409, "NotAllowedError", ["profile"])
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert ask("GET", "/signups/ann").body["email"] == "ann@example.org"


def test_what_is_no_account_starts_nothing(ask: Ask, client: Client) -> None:
    for account in ("", "A", "a/b", "x" * 33, 7, None):
        reply = ask("POST", "/signups", {"account": account, "email": "ann@example.org"})
        assert (reply.status, reply.body["path"]) == (422, "account"), account

    assert list(client.snapshots()) == []


def test_an_address_that_is_no_text_starts_nothing(ask: Ask, client: Client) -> None:
    reply = ask("POST", "/signups", {"account": "ann"})

    assert (reply.status, reply.body["path"]) == (422, "$.email")
    assert list(client.snapshots()) == []


def test_who_cannot_be_reached_is_told_so_and_signs_up_again(ask: Ask) -> None:
    ask("POST", "/signups", {"account": "bob", "email": "bob@nowhere.invalid"})
    seen = ask("GET", "/signups/bob").body
    assert (seen["state"], seen["problem"]) == ("unreachable", "nobody can be reached at bob@nowhere.invalid")

    ask("POST", "/signups", {"account": "bob", "email": "bob@example.org"})

    assert ask("GET", "/signups/bob").body["state"] == "unconfirmed"


def test_a_wrong_token_is_answered_with_its_details(ask: Ask) -> None:
    ask("POST", "/signups", {"account": "ann", "email": "ann@example.org"})

    reply = ask("POST", "/signups/ann/confirm", {"token": "guessed"})

    assert reply.status == 422
    assert reply.body["detail"] == "wrong token"
    assert reply.body["details"] == {"sent_to": "a…@example.org"}


def test_a_profile_of_another_shape_is_not_sent(ask: Ask, client: Client) -> None:
    confirmed(ask)
    version = client.state("ann").version

    for wrong, path in (({"birth_year": "1990"}, "$.birth_year"), ({"state": "active"}, "$.state")):
        reply = ask("PUT", "/signups/ann/profile", vars(ANN) | wrong)
        assert (reply.status, reply.body["path"]) == (422, path)

    assert ask("PUT", "/signups/ann/profile", []).status == 422
    assert client.state("ann").version == version


def test_a_reviewer_approves_what_was_read(ask: Ask, client: Client) -> None:
    etag = reviewing(ask)

    reply = ask("POST", "/signups/ann/review", {"decision": "approve"}, {"If-Match": etag, "X-Reviewer": "rae"})

    assert (reply.status, reply.body["state"]) == (200, "active")
    assert ask("GET", "/signups/ann").body["reviewer"] == "rae"
    assert list(client.log("ann"))[-1]["meta"] == {"reviewer": "rae"}


def test_what_was_changed_meanwhile_is_not_approved(ask: Ask) -> None:
    etag = reviewing(ask)
    ask("PUT", "/signups/ann/profile", vars(ANN) | {"country": "AU"})

    reply = ask("POST", "/signups/ann/review", {"decision": "approve"}, {"If-Match": etag})

    assert (reply.status, reply.body["title"]) == (412, "StaleVersionError")
    assert reply.body["details"]["if_version"] == int(etag.strip('"'))
    assert ask("GET", "/signups/ann").body["state"] == "reviewing"


def test_who_declines_says_why_and_the_customer_reads_it(ask: Ask) -> None:
    etag = reviewing(ask)
    assert ask("POST", "/signups/ann/review", {"decision": "decline"}, {"If-Match": etag}).status == 422
    etag = ask("GET", "/signups/ann").headers["ETag"]

    ask("POST", "/signups/ann/review", {"decision": "decline", "reason": "a full name, please"}, {"If-Match": etag})

    seen = ask("GET", "/signups/ann").body
    assert (seen["state"], seen["problem"]) == ("confirmed", "a full name, please")


def test_a_review_without_the_version_that_was_read_is_refused(ask: Ask) -> None:
    reviewing(ask)

    for headers in ({}, {"If-Match": "5"}, {"If-Match": "*"}, {"If-Match": '"x"'}, {"If-Match": '"-1"'}):
        reply = ask("POST", "/signups/ann/review", {"decision": "approve"}, headers)
        assert (reply.status, reply.body["path"]) == (422, "If-Match"), headers


def test_the_address_of_reviews_takes_no_other_event(ask: Ask) -> None:
    etag = reviewing(ask)

    reply = ask("POST", "/signups/ann/review", {"decision": "profile"}, {"If-Match": etag})

    assert (reply.status, reply.body["path"]) == (422, "decision")


def test_a_closed_account_takes_nothing_more(ask: Ask) -> None:
    etag = reviewing(ask)
    ask("POST", "/signups/ann/review", {"decision": "approve"}, {"If-Match": etag})
    assert ask("DELETE", "/signups/ann").body["state"] == "closed"

    reply = ask("PUT", "/signups/ann/profile", vars(ANN))

    assert (reply.status, reply.body["title"]) == (409, "FSMFinishedError")


def test_who_never_signed_up_is_not_found(ask: Ask) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/confirm")):
        assert ask(method, f"/signups/zoe{path}", {"token": "x"}).status == 404, method


def test_django_closes_connections_before_and_after_each_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(django_app, "close_old_connections", lambda: closed.append("closed"))

    with Client("memory://", app=django_app.app) as client:
        client.start_fsm(Onboarding, "ann", state="active").call("close")

    assert closed == ["closed", "closed"]


@pytest.mark.parametrize("framework", ["fastapi", "django"])
def test_an_outage_is_told_without_the_name_of_a_host(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("redis://localhost:1/0")
    (ask,) = by_fastapi(client) if framework == "fastapi" else by_django(client, monkeypatch)

    reply = ask("GET", "/signups/ann")

    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.body == {"title": "StoreError", "status": 503}


def test_an_event_that_waits_is_accepted() -> None:
    answer = http.answer_to(CallTimeoutError("ann", "confirm", "job-1", 5.0, "no worker listens"))

    assert (answer.status, answer.body) == (202, {"name": "ann", "job": "job-1"})
    assert answer.headers == {"Location": "/signups/ann"}


def test_a_failure_is_told_by_its_job_alone() -> None:
    details = {"type": "OSError", "message": "secret", "traceback": "secret"}

    answer = http.answer_to(HandlerError("ann", "profile", "confirmed", 4, "job-1", "OSError: secret", details))

    assert answer.status == 500
    assert answer.body == {"title": "HandlerError", "status": 500, "job": "job-1"}


def test_a_story_without_a_redis_ends_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "redis://localhost:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_a_wrong_url_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://localhost"]) == 2
    assert "examples.onboarding: URL 'http://localhost'" in capsys.readouterr().err


def test_a_story_that_goes_otherwise_says_at_which_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(http.STATUS, NotAllowedError, 418)

    with TestClient(make_app(client)) as web, pytest.raises(SurpriseError, match=r"answered 418, not 409"):
        Story(client, web, "a").tell()

    assert capsys.readouterr().out.splitlines()[-1].startswith("POST   /signups                         418")


def test_the_story_is_told_to_its_end(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(make_app(client)) as web:
        Story(client, web, "a").tell()

    assert capsys.readouterr().out.count("three days go by") == 1
