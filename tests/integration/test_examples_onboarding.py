"""The story of the onboarding example, and its Django application, with a real worker and its effects."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import django.test
import pytest

from examples.onboarding import django_app, mail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fsm import Client
    from tests.integration.conftest import Processes


@pytest.fixture(autouse=True)
def mails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Mails in a directory of the test, also for the processes that it starts."""
    monkeypatch.setenv("ONBOARDING_MAILS", str(tmp_path))


def test_the_story_is_told_to_its_end(client: Client, processes: Processes) -> None:
    processes.worker("--app", "examples.onboarding", effects=True)

    story = processes.run("-m", "examples.onboarding", "--run", "a")
    out, _ = story.communicate(timeout=90)

    assert story.returncode == 0, out
    statuses = re.findall(r"^[A-Z]+ +/signups\S* +(\d{3}) ", out, re.MULTILINE)
    assert set(statuses) == {"200", "201", "404", "409", "412", "422"}
    states = [client.state(name).state for name in ("ann-a", "bob-a", "eve-a")]
    assert states == ["closed", "unconfirmed", "expired"]
    assert len(mail.received("ann@example.org", "ann-a")) == 1


def test_a_worker_of_the_django_application_confirms_what_its_view_was_sent(
    client: Client, processes: Processes, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
) -> None:
    monkeypatch.setattr(django_app, "client", lambda: client)
    processes.worker("--app", "examples.onboarding.django_app", effects=True)
    web = django.test.Client()
    signed = web.post(
        "/signups", {"account": "ann", "email": "ann@example.org"}, "application/json", headers={"Idempotency-Key": "1"}
    )
    # 202 where the worker was still being started: the event is kept.
    assert signed.status_code in (201, 202)

    (letter,) = until(lambda: mail.received("ann@example.org", "ann"))
    confirmed = web.post("/signups/ann/confirm", {"token": letter["token"]}, "application/json")

    assert (confirmed.status_code, json.loads(confirmed.content)["state"]) == (200, "confirmed")
