"""A name may be any text: it goes through all scripts unharmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from fsm.engine.mail import Mail
from fsm.store import calls
from fsm.store.codec import event_data
from fsm.store.requests import run

if TYPE_CHECKING:
    from tests.store.conftest import Store

NAMES = [
    "with spaces  and\ttabs",
    "linux-image:amd64",
    "state:Ticket:open",
    "line one\nline two\r\n",
    "{braces} {a}.{b}",
    "*?[a-z]",
    '"quotes" and \\ backslash',
    "emoji \N{GRINNING FACE}\N{ZERO WIDTH JOINER}",
    "\x00\x01\x7f",
    "ü" * 256,
    "x" * 512,
    "-1",
    "BROKEN",
    "id:token",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_may_be_any_text(store: Store, name: str) -> None:
    assert len(name.encode()) <= 512
    store.idle(name)
    assert store.send(name, "note", "one", raw=b'{"n":1}') == "SENT"
    fsm = store.one()
    assert fsm.name == name
    assert event_data(fsm.mail[0].data, "default", name, "note") == b'{"n":1}'
    assert store.extend(fsm) == ["EXTENDED"]
    assert store.release(fsm) == ["RELEASED"]
    fsm = store.one("w2")
    store.lapse(name)
    assert store.recover() == (1, 0)
    fsm = store.one("w2")
    mail = Mail("one--s1", name, "note", b"null")
    lost = Mail("one--s2", f"{name[:100]} lost", "note", b"null")
    work = store.work(fsm).apply().out(mail, lost)
    work.block.log({"name": name})
    assert store.commit(work, worker="w2") == ["READY"]
    assert orjson.loads(store.log_lines()[-1])[0]["name"] == lost.name
    assert orjson.loads(store.log_lines()[-1])[1]["name"] == name
    assert store.cancel("one--s1") == "CANCELLED"
    assert [store.send(name, "note", job_id, more=("due", "+3600000")) for job_id in ("d1", "d2", "d3")] == ["SENT"] * 3
    assert store.cancel("d1") == "CANCELLED"
    assert run(store.redis, calls.due(store.keys, most=1, ahead_ms=3_700_000))[0] == 1
    assert store.mailbox(name)[-1] == "d2"
    assert store.purge(name) == "PURGED"
    assert [key for key in store.redis.keys("fsm:*") if name.encode() in key] == []


def test_names_that_look_like_each_others_keys_do_not_meet(store: Store) -> None:
    names = ["a", "a:b", "b", "mailbox:a", "snapshot:a", "lock:a", "fsm:default:snapshot:a"]
    store.idle(*names)
    for name in names:
        store.sent(name, "x" + name.replace(":", "-"))

    for fsm in store.claim().held:
        assert [mail.job_id for mail in fsm.mail] == ["x" + fsm.name.replace(":", "-")]
