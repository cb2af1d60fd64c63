from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from fsm.config import (
    SETTINGS,
    check_namespace,
    find,
    origin,
    resolve,
    tool_file,
    tool_settings,
    unknown_variables,
)
from fsm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory without settings, and an environment without ours."""
    (tmp_path / "pyproject.toml").write_text("", encoding="utf-8")
    folder = tmp_path / "project" / "inner"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for variable in [name for name in os.environ if name.startswith("FSM_")]:
        monkeypatch.delenv(variable)
    return folder


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_setting_the_defaults_hold() -> None:
    assert resolve("url", None) == "redis://localhost:6379/0"
    assert resolve("namespace", None) == "default"
    assert resolve("app", None) is None
    assert (resolve("lease"), resolve("batch"), resolve("log_level")) == (15_000, 128, "info")
    assert resolve("concurrency") == 1
    assert (resolve("queues"), resolve("effects")) == ((), 1)
    assert {origin(name) for name in SETTINGS} == {"default"}


@pytest.mark.parametrize("name", ["url", "namespace", "app"])
def test_an_argument_beats_the_environment_and_that_beats_the_file_and_that_the_default(
    name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(elsewhere, f'[tool.fsm]\n{name} = "from-file"\n')
    assert (resolve(name, None), origin(name)) == ("from-file", "pyproject.toml")
    monkeypatch.setenv(f"FSM_{name.upper()}", "from-env")
    assert (resolve(name, None), origin(name)) == ("from-env", "environment")
    assert (resolve(name, "given"), origin(name, "given")) == ("given", "argument")


@pytest.mark.parametrize(
    ("name", "in_file", "variable", "argument", "values"),
    [
        ("lease", "2", "1m", "500ms", (2000, 60_000, 500)),
        ("lease", '"1.5"', "2.5", "3", (1500, 2500, 3000)),
        ("batch", "64", "7", 9, (64, 7, 9)),
        ("batch", '"64"', "1000", 1, (64, 1000, 1)),
        ("concurrency", "16", "128", 2, (16, 128, 2)),
        ("log_level", '"WARNING"', "debug", "error", ("warning", "debug", "error")),
        ("processes", "2", "3", "4", (2, 3, 4)),
        ("shutdown_timeout", "2", "1m", "1500ms", (2000, 60_000, 1500)),
        ("queues", '["a", "b", "a"]', "c, d", ["e"], (("a", "b"), ("c", "d"), ("e",))),
        ("queues", '"a,b"', "c", ("d", "e"), (("a", "b"), ("c",), ("d", "e"))),
        ("effects", "3", "2", "0", (3, 2, 0)),
        ("effects", "false", "on", 5, (0, 1, 5)),
        ("effects", '"off"', "Yes", True, (0, 1, 1)),
        ("host", '"edge-1"', "edge_2.local", "e", ("edge-1", "edge_2.local", "e")),
        ("effects_allow", '["a.b"]', "c.*, d.e", ["f.g"], (("a.b",), ("c.*", "d.e"), ("f.g",))),
    ],
)
def test_settings_of_a_worker_are_read_wherever_they_stand(
    name: Any,
    in_file: str,
    variable: str,
    argument: Any,
    values: tuple[Any, ...],
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(elsewhere, f"[tool.fsm]\n{name} = {in_file}\n")
    assert (resolve(name), origin(name)) == (values[0], "pyproject.toml")
    monkeypatch.setenv(f"FSM_{name.upper()}", variable)
    assert (resolve(name), origin(name)) == (values[1], "environment")
    assert (resolve(name, argument), origin(name, argument)) == (values[2], "argument")


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("FSM_BATCH", "many", "whole number from 1 to 1000"),
        ("FSM_BATCH", "9" * 5000, "whole number from 1 to 1000"),
        ("FSM_BATCH", "1001", "whole number from 1 to 1000"),
        ("FSM_LEASE", "2h", "between 500ms and 1h"),
        ("FSM_LEASE", "inf", "write seconds"),
        ("FSM_SHUTDOWN_TIMEOUT", "0.5", "between 1s and 24h"),
        ("FSM_PROCESSES", "0", "whole number from 1 to 500, or auto"),
        ("FSM_PROCESSES", "all", "whole number from 1 to 500, or auto"),
        ("FSM_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("FSM_QUEUES", "a,,b", "use 1 to 200 of the characters"),
        ("FSM_QUEUES", "a b", "use 1 to 200 of the characters"),
        ("FSM_QUEUES", "fsm-effects", "use another name"),
        ("FSM_EFFECTS", "perhaps", "must be a whole number from 0 to 100, on (1) or off (0)"),
        ("FSM_EFFECTS", "101", "must be a whole number from 0 to 100"),
        ("FSM_HOST", "edge:1", "use 1 to 100 of the characters"),
        ("FSM_HOST", "edge~1", "use 1 to 100 of the characters"),
        ("FSM_HOST", "e" * 101, "use 1 to 100 of the characters"),
        ("FSM_NAMESPACE", "a:b", "use 1 to 64 of the characters"),
    ],
)
def test_a_wrong_variable_is_named_with_what_is_allowed(
    variable: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        find(variable.removeprefix("FSM_").lower())
    assert str(caught.value).startswith(f"{variable}: ")
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "host"),
    [("edge-7.shop", "edge-7.shop"), ("a/b:c~d", "a-b-c-d"), ("", "localhost"), ("e" * 200, "e" * 100)],
)
def test_a_host_is_called_as_its_machine_unless_told(monkeypatch: pytest.MonkeyPatch, machine: str, host: str) -> None:
    # Seen to fail without `_NO_HOST`: a machine's name that can be no host's ended every worker on it.
    monkeypatch.setattr("socket.gethostname", lambda: machine)

    assert (resolve("host"), origin("host")) == (host, "default")
    assert resolve("host", "edge-9") == "edge-9"


def test_auto_is_a_process_a_core_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 3, 5}, raising=False)

    assert resolve("processes", "auto") == 3
    assert resolve("processes") is None


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("lease", "2h", "--lease: '2h' is not between"),
        ("batch", 0, "--batch: must be"),
        ("concurrency", 1001, "--concurrency: must be a whole number from 1 to 1000"),
        ("queues", ["default"], "--queue: 'default' is not allowed"),
        ("log_level", "loud", "--log-level: must be one of"),
    ],
)
def test_a_wrong_argument_is_named_as_its_option(name: str, argument: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(name, argument)
    assert str(caught.value).startswith(said)


def test_empty_text_and_lists_in_the_file_say_nothing_but_false_does(elsewhere: Path) -> None:
    write(elsewhere, '[tool.fsm]\nurl = ""\nqueues = []\neffects = false\n')
    assert (origin("url"), origin("queues"), origin("effects")) == ("default", "default", "pyproject.toml")


def test_variables_that_look_like_ours_are_told_from_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FSM_URL", "FSM_SERVER", "FSM_LAESE", "FSM_COLOUR_OF_THE_SKY", "MY_FSM_URL"):
        monkeypatch.setenv(variable, "1")
    assert unknown_variables() == {"FSM_COLOUR_OF_THE_SKY": "", "FSM_LAESE": "FSM_LEASE"}


def test_the_file_that_decides_is_told(elsewhere: Path) -> None:
    above = write(elsewhere.parent, "")
    assert tool_file() == above
    path = write(elsewhere, "")
    assert tool_file() == path


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSM_URL", "")
    assert origin("url") == "default"


def test_an_empty_argument_is_an_argument_so_that_it_is_refused_and_not_replaced() -> None:
    assert resolve("url", "") == ""


def test_a_given_value_does_not_need_the_file_to_be_right(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(elsewhere, "[broken")
    monkeypatch.setenv("FSM_APP", "shop")
    assert resolve("url", "redis://a") == "redis://a"
    assert resolve("app", None) == "shop"


def test_settings_are_found_further_up(elsewhere: Path) -> None:
    write(elsewhere.parent, '[tool.fsm]\nurl = "redis://up"\napp = "shop"\nnamespace = "n"\n')
    assert tool_settings() == {"url": "redis://up", "app": "shop", "namespace": "n"}
    assert tool_settings(elsewhere) == tool_settings(elsewhere.parent)


def test_the_nearest_file_decides_even_without_our_table(elsewhere: Path) -> None:
    write(elsewhere.parent, '[tool.fsm]\nurl = "redis://up"\n')
    write(elsewhere, '[project]\nname = "inner"\n')
    assert tool_settings() == {}


def test_a_directory_called_pyproject_toml_is_passed_over(elsewhere: Path) -> None:
    (elsewhere / "pyproject.toml").mkdir()
    assert tool_settings() == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.fsm", "is not TOML"),
        ('[tool.fsm]\nurl = "a"\nurl = "b"\n', "is not TOML"),
        ('[tool.fsm]\nulr = "redis://a"\n', "ulr: is unknown, did you mean url? the keys are app, batch, conc"),
        ("[tool.fsm]\nurl = 6379\n", "url: must be text in quotes, not 6379"),
        ('[tool]\nfsm = "redis://a"\n', "must be a table"),
        ("[tool.fsm]\nxyz = 1\n", "xyz: is unknown: the keys are app, batch"),
        ('[tool.fsm]\nnamespace = "a:b"\n', "namespace: use 1 to 64 of the characters"),
        ("[tool.fsm]\nbatch = 0\n", "batch: must be a whole number from 1 to 1000, not 0"),
        ("[tool.fsm]\nbatch = true\n", "batch: must be a whole number from 1 to 1000, not True"),
        ("[tool.fsm]\nconcurrency = true\n", "concurrency: must be a whole number from 1 to 1000, not True"),
        ("[tool.fsm]\nbatch = 64.0\n", "batch: must be a whole number"),
        ('[tool.fsm]\nlease = "soon"\n', "lease: 'soon' is no length of time"),
        ("[tool.fsm]\nlease = nan\n", "lease: nan is negative"),
        ("[tool.fsm]\nlease = 0.1\n", "lease: 0.1 is not between 500ms and 1h"),
        ("[tool.fsm]\nlease = [1]\n", "lease: [1] is no length of time"),
        ('[tool.fsm]\nlog_level = "loud"\n', "log_level: must be one of debug, info, warning, error, not 'loud'"),
        ("[tool.fsm]\nqueues = 3\n", "queues: must be names of queues, as a list or divided by commas, not 3"),
        ('[tool.fsm]\nqueues = ["a", 3]\n', "queues: 3 is not allowed: use 1 to 200"),
        ('[tool.fsm]\nqueues = ["default"]\n', "queues: 'default' is not allowed, RQ's own"),
        (
            '[tool.fsm]\neffects = "maybe"\n',
            "effects: must be a whole number from 0 to 100, on (1) or off (0), not 'maybe'",
        ),
        ("[tool.fsm]\neffects = -1\n", "effects: must be a whole number from 0 to 100, on (1) or off (0), not -1"),
        ("[tool.fsm]\neffects = 1.0\n", "effects: must be a whole number from 0 to 100, on (1) or off (0), not 1.0"),
        ("[tool.fsm]\nhost = 1\n", "host: must be text in quotes, not 1"),
        ("[tool.fsm]\neffects_allow = 1\n", "effects_allow: must be dotted paths, as a list or divided by commas"),
        ('[tool.fsm]\neffects_allow = ["charge"]\n', "effects_allow: 'charge' is neither a function such as"),
        ('[tool.fsm]\neffects_allow = ["*"]\n', "'*' is neither a function such as"),
        ('[tool.fsm]\neffects_allow = ["shop.*.charge"]\n', "'shop.*.charge' is neither"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong_in_it(elsewhere: Path, text: str, said: str) -> None:
    path = write(elsewhere, text)
    with pytest.raises(ConfigError) as caught:
        tool_settings()
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_is_not_utf8_is_named(elsewhere: Path) -> None:
    path = elsewhere / "pyproject.toml"
    path.write_bytes(b'[tool.fsm]\nurl = "\xff"\n')
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        tool_settings()
    assert str(path) in str(caught.value)


def test_a_tool_that_is_no_table_holds_no_settings(elsewhere: Path) -> None:
    write(elsewhere, "tool = 3\n")
    assert tool_settings() == {}


@pytest.mark.parametrize("ns", ["default", "a", "A.b_c-9", "x" * 64, "..."])
def test_a_namespace_of_letters_digits_and_three_marks_is_good(ns: str) -> None:
    assert check_namespace(ns) == ns


@pytest.mark.parametrize("ns", ["", "a:b", "a b", "x" * 65, "ä", "a\n", "{a}", "*", "٣"])
def test_any_other_namespace_is_refused_by_name(ns: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_namespace(ns)
    assert repr(ns) in str(caught.value)


def test_an_embedded_server_that_a_file_names_is_meant_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.fsm]\nurl = "embedded://./data?db=1"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("FSM_URL", raising=False)

    assert resolve("url", None) == f"embedded://{tmp_path}/data?db=1"
    assert resolve("url", "embedded://./data") == "embedded://./data"
