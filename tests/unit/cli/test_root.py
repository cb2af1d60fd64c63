import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fsm.cli import main, root
from fsm.errors import ConfigError, StoreError

Run = Callable[..., Result]
COMMANDS = [
    *(
        "worker",
        "start",
        "transition",
        "state",
        "ls",
        "all",
        "count",
        "jobs",
        "timers",
        "history",
        "wait",
        "log",
        "machines",
        "info",
        "whois",
        "config",
        "retry",
        "skip",
        "tick",
        "pause",
        "resume",
        "purge",
        "synch",
        "sync",
        "drain",
        "backup",
        "storage",
        "check",
        "draw",
    ),
]


def run_raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Result:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(root.Commands, "get_command", lambda *_: broken)
    return CliRunner().invoke(main, ["ls"], prog_name="fsm")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (StoreError("Redis is away"), 1, "fsm: Redis is away\n"),
        (ConfigError("--x", "is wrong"), 2, "fsm: --x: is wrong\n"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_each_end_has_its_exit_code_and_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    done = run_raising(error, monkeypatch)

    assert (done.exit_code, done.stderr, done.stdout) == (code, text, "")


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(run_raising(ZeroDivisionError(), monkeypatch).exception, ZeroDivisionError)


def test_a_warning_is_a_sentence_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def warning() -> None:
        warnings.simplefilter("default")
        warnings.warn("Redis forgets", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(root.Commands, "get_command", lambda *_: warning)

    done = CliRunner().invoke(main, ["ls"], prog_name="fsm")

    assert (done.exit_code, done.stderr) == (0, "fsm: warning: Redis forgets\n")


def test_help_lists_the_commands_in_the_order_in_which_one_meets_them() -> None:
    done = CliRunner().invoke(main, ["--help"], prog_name="fsm")

    text = done.stdout[done.stdout.index("Run:\n") :]
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == COMMANDS
    assert re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE) == ["Run", "Look", "Put right", "Draw"]
    assert not [line for line in lines if line.endswith("...")]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_takes_the_options_of_the_whole_program(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"], prog_name="fsm")

    assert done.exit_code == 0
    for option in ("--url", "--namespace", "--app", "--version"):
        assert option in done.stdout


@pytest.mark.parametrize("arguments", [("--version",), ("ls", "--version")])
def test_the_version_is_told(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, arguments, prog_name="fsm")

    assert done.exit_code == 0
    assert done.stdout.startswith("fsm ")


def test_options_may_stand_before_and_behind_and_the_one_behind_wins(fsm: Run) -> None:
    fsm("start", "cli_shop:Door", "front", "--namespace", "shop")

    assert fsm("--namespace", "shop", "state", "front").exit_code == 0
    assert fsm("--namespace", "elsewhere", "state", "front", "--namespace", "shop").exit_code == 0
    assert fsm("--namespace", "shop", "state", "front", "--namespace", "elsewhere").exit_code == 1


def test_a_wrong_url_is_wrong_use() -> None:
    done = CliRunner().invoke(main, ["ls", "--url", "http://ann:secret@x"], prog_name="fsm")

    assert done.exit_code == 2
    assert done.stderr.startswith("fsm: URL 'http://ann:***@x'")
    assert "secret" not in done.output


def test_python_m_workers_is_fsm_worker_and_knows_its_own_package(tmp_path: Path) -> None:
    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workers", "--help"], cwd=folder, capture_output=True, text=True, check=False
        )

    helped = run(tmp_path)
    (tmp_path / "fsm.py").write_text("", encoding="utf-8")
    hidden = run(tmp_path)

    assert helped.returncode == 0
    assert helped.stdout.startswith("Usage: python -m workers worker [OPTIONS]")
    assert hidden.returncode == 1
    assert hidden.stderr.startswith("fsm: package `fsm` is not ours")
    assert hidden.stderr.count("\n") == 1
