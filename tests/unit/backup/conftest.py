"""A small backup in a directory of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fsm.backup.directory import Backups
from fsm.backup.form import SavedFSM, saved_event, saved_fsm, saved_machine

CALL = b'["workers.jobs.transition",null,["shop","order-1","pay",{"amount":12}],{}]'


def fsm(name: str = "order-1", version: int = 4) -> SavedFSM:
    """An FSM with an event in its mailbox and one that is delayed."""
    snapshot = [
        b"machine",
        b"Order",
        b"state",
        b"paying",
        b"version",
        b"%d" % version,
        b"payload",
        b'{"items": ["tea"]}',
    ]
    mail = saved_event(b"j1", [b"event", b"pay", b"data", CALL, b"fsm", name.encode()], "shop", name)
    later = saved_event(b"j2", [b"event", b"pay", b"data", CALL], "shop", name, "1795267135163")
    return saved_fsm(name.encode(), snapshot, [], [mail], [later], [b"e1", b'{"func":"bank.charge"}'])


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    """The directory of the backups of the namespace `shop`."""
    return Backups(tmp_path / "backups", "shop")


@pytest.fixture
def save(backups: Backups) -> Callable[..., str]:
    """Write a backup of one FSM in this version, and give its id."""

    def run(version: int = 4, *, max_snapshots: int = 10) -> str:
        with backups.writing(redis="7.0.15", max_snapshots=max_snapshots) as writer:
            writer.write(saved_machine(b"Order", b'{"diagram":"[*] --> cart"}'))
            writer.write(fsm(version=version))
        return writer.header.id

    return run
