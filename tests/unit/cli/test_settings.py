import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def file(shop: str) -> Path:
    """A pyproject.toml where the command runs."""
    path = Path("pyproject.toml").absolute()
    path.write_text('[tool.fsm]\nbatch = 64\neffects = false\nqueues = ["b", "a"]\n', encoding="utf-8")
    return path


def test_each_setting_is_shown_with_its_origin_and_variable(
    fsm: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSM_LEASE", "1m")
    monkeypatch.setattr("socket.gethostname", lambda: "edge-7")

    done = fsm("config", "--namespace", "shop")

    assert done.exit_code == 0
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"file: {file}",
        "",
        "url\tredis://localhost:6379/0\tdefault\tFSM_URL",
        "namespace\tshop\targument\tFSM_NAMESPACE",
        "app\t\tdefault\tFSM_APP",
        "queues\tb,a\tpyproject.toml\tFSM_QUEUES",
        "batch\t64\tpyproject.toml\tFSM_BATCH",
        "concurrency\t1\tdefault\tFSM_CONCURRENCY",
        "lease\t1m\tenvironment\tFSM_LEASE",
        "host\tedge-7\tdefault\tFSM_HOST",
        "processes\t\tdefault\tFSM_PROCESSES",
        "shutdown_timeout\t30s\tdefault\tFSM_SHUTDOWN_TIMEOUT",
        "effects\t0\tpyproject.toml\tFSM_EFFECTS",
        "effects_allow\t\tdefault\tFSM_EFFECTS_ALLOW",
        "durability\tmemory\tdefault\tFSM_DURABILITY",
        "log_level\tinfo\tdefault\tFSM_LOG_LEVEL",
    ]


def test_json_has_values_as_they_would_be_written(fsm: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "edge-7")
    told = json.loads(fsm("config", "--json").stdout)

    assert told["file"] == str(file)
    assert {one["name"]: one["value"] for one in told["settings"]} == {
        "url": "redis://localhost:6379/0",
        "namespace": "default",
        "app": None,
        "queues": ["b", "a"],
        "batch": 64,
        "concurrency": 1,
        "lease": "15s",
        "host": "edge-7",
        "processes": None,
        "shutdown_timeout": "30s",
        "effects": 0,
        "effects_allow": [],
        "durability": "memory",
        "log_level": "info",
    }
    assert told["settings"][4] == {
        "name": "batch",
        "value": 64,
        "origin": "pyproject.toml",
        "variable": "FSM_BATCH",
    }


@pytest.mark.parametrize("arguments", [("config",), ("config", "--json")])
def test_passwords_are_masked(fsm: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("FSM_URL", "redis://ann:secret@host/0")

    done = fsm(*arguments)

    assert "redis://ann:***@host/0" in done.stdout
    assert "secret" not in done.output


def test_without_a_file_it_says_so(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm.config.tool_file", lambda *_: None)

    assert fsm("config").stdout.startswith("file: none")
    assert json.loads(fsm("config", "--json").stdout)["file"] is None


def test_a_misspelt_variable_is_warned_of(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSM_NAMSPACE", "shop")

    done = fsm("config")

    assert done.exit_code == 0
    assert done.stderr == "fsm: warning: FSM_NAMSPACE is no variable of ours, did you mean FSM_NAMESPACE?\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "FSM_BATCH: must be a whole number from 1 to 1000, not 'many'"),
        (("--namespace", "a:b"), "FSM_BATCH"),
    ],
)
def test_a_wrong_value_is_one_sentence(
    fsm: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], text: str
) -> None:
    monkeypatch.setenv("FSM_BATCH", "many")

    done = fsm("config", *arguments)

    assert done.exit_code == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_namespace_is_told(fsm: Run) -> None:
    done = fsm("config", "--namespace", "a:b")

    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "namespace 'a:b'" in done.stderr
