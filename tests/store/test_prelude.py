"""What the scripts share, where no script shows it: time as RQ writes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from rq.utils import str_to_date

from fsm.store import requests

if TYPE_CHECKING:
    import redis

LUA: Any = files("fsm.store") / "lua"


def rq_time(client: redis.Redis, seconds: int, micros: int) -> str:
    text, _ = requests.script("send")
    prelude = text[: text.rindex("--[[")]
    reply = client.eval(prelude + "return rq_time(tonumber(ARGV[1]), tonumber(ARGV[2]))", 0, seconds, micros)
    assert isinstance(reply, bytes)
    return reply.decode()


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2000, 2, 29, 23, 59, 59, 999_999, UTC),
        datetime(2024, 2, 28, 23, 59, 59, 1, UTC),
        datetime(2024, 2, 29, 0, 0, 0, 0, UTC),
        datetime(2024, 3, 1, 0, 0, 0, 10, UTC),
        datetime(2025, 12, 31, 23, 59, 59, 100_000, UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
        datetime(2100, 2, 28, tzinfo=UTC),
        datetime(2100, 3, 1, tzinfo=UTC),
        datetime(2400, 2, 29, tzinfo=UTC),
    ],
)
def test_a_time_is_written_as_rq_reads_it(any_redis: redis.Redis, moment: datetime) -> None:
    written = rq_time(any_redis, int(moment.replace(microsecond=0).timestamp()), moment.microsecond)

    assert written == moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert str_to_date(written.encode()) == moment


def test_every_day_of_a_century_has_its_date(fake_redis: redis.Redis) -> None:
    text, _ = requests.script("send")
    prelude = text[: text.rindex("--[[")]
    loop = "local t = {} for d = 0, 36524 do t[d + 1] = string.sub(rq_time(d * 86400, 0), 1, 10) end return t"
    days = fake_redis.eval(prelude + loop, 0)
    assert isinstance(days, list)

    assert [day.decode() for day in days] == [
        datetime.fromtimestamp(day * 86400, UTC).strftime("%Y-%m-%d") for day in range(36525)
    ]


def test_a_script_carries_what_it_needs_of_the_prelude_and_nothing_else() -> None:
    """Seen to fail with the whole prelude in front of each script."""
    text, _ = requests.script("claim")

    # `digits` is needed by `flush_ready`, which is needed by the claim.
    for needed in ("addressee", "flush_ready", "digits"):
        assert f"local function {needed}(" in text
    assert "local function ring_front(" not in text
    assert "rq_time" not in requests.script("ask")[0]


@pytest.mark.parametrize("name", sorted(path.stem for path in LUA.glob("*.lua") if path.stem != "prelude"))
def test_no_script_lacks_a_part_of_the_prelude_that_it_uses(name: str) -> None:
    """Seen to fail where the parts are taken in their own order: none then has what only another part uses."""
    shared = defined((LUA / "prelude.lua").read_text("utf-8"))
    text, _ = requests.script(name)

    code = re.sub(r"--\[\[.*?\]\]|--[^\n]*|'[^'\n]*'|\"[^\"\n]*\"", "", text, flags=re.DOTALL)
    # Not a field, as in `fsm.limit`.
    used = set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", code))
    assert {"call", "try", "digits", "head", "insist_on_primary"} <= shared
    assert (used & shared) - defined(text) == set()


def defined(text: str) -> set[str]:
    """What a script defines for all that stands behind it."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"^local (?:function )?([\w, ]+)", text, re.MULTILINE))))
