from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from fsm.errors import ConfigError
from fsm.machine import RetryPolicy, Settings


def test_settings_have_defaults() -> None:
    settings = Settings()
    assert (settings.name, settings.queue, settings.retry, settings.timer) == ("", None, None, None)
    assert (settings.timeout_ms, settings.result_ttl_ms, settings.dedup_ms) == (180_000, 60_000, 86_400_000)
    assert (settings.failure_ttl_ms, settings.timer_ms) == (30 * 86_400_000, None)
    assert (settings.max_attempts, settings.history, settings.definition_version) == (3, 5, 1)
    assert (settings.payload_limit, settings.max_mailbox, settings.endless) == (1_048_576, 10_000, False)
    assert dict(settings.refused) == {}


def test_settings_cannot_be_changed() -> None:
    refused: dict[str, Any] = {"beat": "ignore"}
    settings = Settings(refused=refused)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.queue = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.refused["pay"] = "ignore"  # type: ignore[index]
    refused["pay"] = "ignore"
    assert dict(settings.refused) == {"beat": "ignore"}


def test_what_is_not_given_is_inherited_field_by_field() -> None:
    base = Settings(name="base", queue="orders", timeout=5, history=0)
    settings = Settings(timeout="1m", history=5).inherit(base)
    assert (settings.queue, settings.timeout_ms, settings.history, settings.name) == ("orders", 60_000, 5, "")


def test_a_default_that_is_given_is_not_inherited_over() -> None:
    assert Settings(queue=None, endless=False).inherit(Settings(queue="orders", endless=True)) == Settings()


def test_inheritance_goes_on_over_several_bases() -> None:
    middle = Settings(timeout=5).inherit(Settings(queue="orders"))
    assert Settings(history=1).inherit(middle) == Settings(queue="orders", timeout=5, history=1)


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("name", "", "without colons"),
        ("name", "a:b", "without colons"),
        ("name", " a", "without colons"),
        ("name", "a\nb", "without colons"),
        ("name", "a" * 201, "1 to 200"),
        ("name", 3, "printable text"),
        ("queue", "", "A-Z a-z 0-9"),
        ("queue", "my queue", "A-Z a-z 0-9"),
        ("queue", "a:b", "A-Z a-z 0-9"),
        ("queue", "default", "use another name"),
        ("queue", "fsm-effects", "use another name"),
        ("queue", 3, "A-Z a-z 0-9"),
        ("timeout", 0, "more than 0"),
        ("timeout", -1, "1d12h"),
        ("timeout", "soon", "1d12h"),
        ("timeout", None, "1d12h"),
        ("timeout", True, "1d12h"),
        ("timeout", {"pay": "soon"}, "1d12h"),
        ("timeout", {"pay": "5m", "*": 0}, "more than 0"),
        ("result_ttl", 59, "at least 60 s"),
        ("result_ttl", timedelta(seconds=59), "at least 60 s"),
        ("failure_ttl", "1s", "at least 60 s"),
        ("dedup", 0, "more than 0"),
        ("timer", 0, "more than 0"),
        ("retry", 3, "RetryPolicy"),
        ("retry", {"pay": 3}, "RetryPolicy"),
        ("max_attempts", 0, "from 1"),
        ("max_attempts", 1.5, "whole number"),
        ("max_attempts", True, "whole number"),
        ("endless", 1, "True or False"),
        ("history", -1, "from 0"),
        ("payload_limit", 1, "from 2"),
        ("max_mailbox", 0, "from 1"),
        ("definition_version", 0, "from 1"),
        ("keep_finished", 59, "at least 60 s"),
        ("keep_finished", "for ever", "1d12h"),
        ("audit", 0, "from 1"),
        ("audit", 1.5, "whole number"),
        ("audit", None, "whole number"),
        ("refused", {"beat": "drop"}, '"ignore"'),
        ("refused", ["beat"], '"ignore"'),
        ("refused", {"beat": []}, '"ignore"'),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(setting: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Settings(**{setting: value})
    assert raised.value.setting == f"Settings({setting})"
    wrong = [*value.values()][-1] if setting == "timeout" and isinstance(value, dict) else value
    assert repr(wrong) in str(raised.value)
    assert allowed in str(raised.value)


def test_what_is_kept_of_an_fsm_that_has_finished_and_of_its_events_is_off_by_default() -> None:
    assert (Settings().keep_finished_ms, Settings().audit_length) == (None, 0)
    settings = Settings(keep_finished="30d", audit=True)
    assert (settings.keep_finished_ms, settings.audit_length) == (30 * 86_400_000, 10_000)
    assert Settings(keep_finished=None, audit=1).inherit(settings).audit_length == 1
    assert Settings(keep_finished=None, audit=False).inherit(settings).keep_finished_ms is None
    assert Settings().inherit(settings).audit_length == 10_000


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="timeuot"):
        Settings(timeuot=5)  # type: ignore[call-arg]


def test_a_retry_policy_has_defaults_and_lengths_of_time() -> None:
    policy = RetryPolicy()
    assert (policy.attempts, policy.delay_ms, policy.factor, policy.max_delay_ms) == (5, 1_000, 2.0, 300_000)
    assert (policy.jitter, policy.on) == (0.1, (Exception,))


def test_each_event_may_have_a_time_out_of_its_own() -> None:
    times = {"report": "10m", "*": "30s"}
    settings = Settings(timeout=times)
    times["report"] = "1s"

    assert [settings.timeout_for(event) for event in ("report", "pay")] == [600_000, 30_000]
    assert (settings.timeout_ms, settings.longest_timeout_ms) == (30_000, 600_000)
    assert Settings(timeout={"pay": 1}).timeout_for("add") == Settings().longest_timeout_ms == 180_000
    assert Settings().inherit(settings).timeout_for("report") == 600_000


def test_each_event_may_have_a_policy_of_its_own() -> None:
    thrice, twice = RetryPolicy(attempts=3), RetryPolicy(attempts=2)
    assert Settings(retry=thrice).retry_for("pay") is thrice
    settings = Settings(retry={"pay": twice})
    assert settings.retry_for("pay") is twice
    assert settings.retry_for("add") is Settings().retry_for("pay") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempts", 0),
        ("attempts", True),
        ("attempts", 2.0),
        ("delay", "soon"),
        ("delay", -1),
        ("max_delay", "1ms"),
        ("factor", 0.5),
        ("factor", float("nan")),
        ("factor", "2"),
        ("jitter", 1.5),
        ("jitter", -0.1),
        ("on", ()),
        ("on", [ValueError]),
        ("on", ValueError),
        ("on", (KeyboardInterrupt,)),
        ("on", ("ValueError",)),
    ],
)
def test_a_wrong_retry_policy_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        RetryPolicy(**{field: value})
    assert raised.value.setting == f"RetryPolicy({field})"
