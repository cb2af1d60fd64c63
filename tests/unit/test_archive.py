from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fsm
from fsm import BackupError, Client, ConfigError, Machine, UnknownFSMError

if TYPE_CHECKING:
    from pathlib import Path


class Door(Machine):
    """A door."""

    diagram = """
    stateDiagram-v2
        [*] --> closed
        closed --> open : push
        open --> closed : pull
        closed --> [*] : wreck
    """


def test_a_world_in_memory_is_saved_and_goes_on_in_another(tmp_path: Path) -> None:
    with Client("memory://") as client:
        client.start_fsm(Door, "front")
        client.transition("front", "push", delay="1h")
        before = client.state("front")
        saved = client.backup(tmp_path)
    assert (saved.fsms, saved.path, saved.broken) == (1, tmp_path / "default.fsm.gz", ())
    assert saved.size == saved.path.stat().st_size
    assert saved.as_json()["id"] == saved.id

    with Client("memory://") as client:
        restored = client.restore(tmp_path)
        assert (restored.restored, restored.is_whole, restored.id) == (1, True, saved.id)
        assert client.state("front") == before
        client.fsm(Door, "front").call("push")
        assert client.state("front").state == "open"
        assert restored.as_json()["left"] == []


def test_progress_is_told_with_how_many_there_are(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with Client("memory://?effects=off") as client:
        client.start_many(Door, [f"door-{number}" for number in range(120)])
        client.backup(tmp_path, progress=lambda *so_far: told.append(so_far))
        client.restore(tmp_path, progress=lambda *so_far: told.append(so_far))

    assert told == [(0, 120), (100, 120), (120, 120)]


def test_an_fsm_goes_from_one_world_to_another(tmp_path: Path) -> None:
    file = tmp_path / "front.fsm.gz"
    with Client("memory://") as client:
        client.start_fsm(Door, "front")
        assert client.export_fsm("front", file).fsms == 1
        with pytest.raises(UnknownFSMError):
            client.export_fsm("nobody", tmp_path / "nobody.fsm.gz")
        with pytest.raises(BackupError, match="there is such a file"):
            client.export_fsm("front", file)
    with Client("memory://", namespace="copy") as client:
        with pytest.raises(BackupError, match="it is of namespace 'default'"):
            client.import_fsm(file)
        assert client.import_fsm(file, into="copy").restored == 1
        assert client.state("front").state == "closed"
    assert [path.name for path in tmp_path.iterdir()] == ["front.fsm.gz"]


def test_a_whole_namespace_is_not_imported_for_an_fsm(tmp_path: Path) -> None:
    # Seen to fail where nobody looked: with `replace`, all that was in its way would have been purged.
    with Client("memory://") as client:
        client.start_fsm(Door, "front")
        saved = client.backup(tmp_path)
        with pytest.raises(BackupError, match="of a whole namespace: `fsm backup restore` takes it"):
            client.import_fsm(saved.path, replace=True)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "front.fsm.gz"
    with Client("memory://") as client:
        client.start_fsm(Door, "front")
        client.export_fsm("front", file)
        with pytest.raises(BackupError, match="an id names a snapshot in a directory"):
            client.restore(file, "20261122T041500.123Z-0a1b2c")
        with pytest.raises(BackupError, match="no id of a backup"):
            client.restore(tmp_path, "../front")
        with pytest.raises(ConfigError):
            client.restore(file, into="no name")
        with pytest.raises(BackupError, match="nothing was touched"):
            client.restore(tmp_path / "nowhere")


def test_what_they_give_is_public() -> None:
    assert fsm.Saved.__name__ == "Saved"
    assert fsm.Restored.__name__ == "Restored"
