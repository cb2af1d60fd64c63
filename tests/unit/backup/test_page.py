"""What docs/backup-format.md shows is what is written and read."""

import gzip
import json
import re
from pathlib import Path

import pytest

from fsm.backup import directory
from fsm.backup.directory import Backups
from fsm.backup.file import _END, _SEAL, _SEAL_SIZE
from fsm.backup.form import Header, SavedFSM, SavedLog, SavedMachine, read_line, write_line

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "backup-format.md").read_text("utf-8")
LINES = re.findall(r"^```json\n(.*?)\n```", PAGE, re.DOTALL | re.MULTILINE)
KINDS = [json.loads(line)["kind"] for line in LINES]


def test_each_kind_of_line_is_shown() -> None:
    assert KINDS == ["header", "machine", "fsm", "log", "end", "seal"]
    assert [kind for kind in re.findall(r"^### (\w+)$", PAGE, re.MULTILINE) if kind in KINDS] == KINDS


@pytest.mark.parametrize(
    ("line", "kind"), list(zip(LINES[:4], (Header, SavedMachine, SavedFSM, SavedLog), strict=True))
)
def test_a_line_of_the_page_is_read_and_written_as_it_is_shown(line: str, kind: type) -> None:
    read = read_line(line.encode())

    assert type(read) is kind
    assert write_line(read).decode() == line


def test_each_field_of_an_fsm_is_in_the_table() -> None:
    table = PAGE[PAGE.index("### fsm") : PAGE.index("### log")]

    for field in SavedFSM.__struct_fields__:
        assert re.search(rf"^\|[^|]*`{field}`[^|]*\|", table, re.MULTILINE), field


def test_the_last_two_lines_are_padded_as_they_are_shown() -> None:
    end, seal = json.loads(LINES[4]), json.loads(LINES[5])

    assert (_END % (end["fsms"], end["lines"])).strip() == LINES[4]
    assert (_SEAL % (seal["bytes"], seal["sha256"])).strip() == LINES[5]
    assert f"the last {_SEAL_SIZE} bytes of the file" in PAGE


def test_an_id_is_what_the_page_says() -> None:
    (shown,) = re.findall(r"An id is exactly `([^`]+)`", PAGE)

    assert directory._ID.pattern.replace("\\", "") == shown


def test_a_file_has_three_members(tmp_path: Path) -> None:
    backups = Backups(tmp_path, "shop")
    with backups.writing():
        pass

    whole = backups.stable.read_bytes()
    assert whole.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 3
    assert len(gzip.decompress(whole[-_SEAL_SIZE:]).splitlines()) == 1
