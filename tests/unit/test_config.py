from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fsm.config import check_namespace, origin, resolve, tool_settings
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
    for variable in ("FSM_URL", "FSM_NAMESPACE", "FSM_APP"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_setting_the_defaults_hold() -> None:
    assert resolve("url", None) == "redis://localhost:6379/0"
    assert resolve("namespace", None) == "default"
    assert resolve("app", None) is None
    assert {origin("url"), origin("namespace"), origin("app")} == {"default"}


@pytest.mark.parametrize("name", ["url", "namespace", "app"])
def test_an_argument_beats_the_environment_and_that_beats_the_file_and_that_the_default(
    name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(elsewhere, f'[tool.fsm]\n{name} = "from-file"\n')
    assert (resolve(name, None), origin(name)) == ("from-file", "pyproject.toml")
    monkeypatch.setenv(f"FSM_{name.upper()}", "from-env")
    assert (resolve(name, None), origin(name)) == ("from-env", "environment")
    assert (resolve(name, "given"), origin(name, "given")) == ("given", "argument")


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
        ('[tool.fsm]\nulr = "redis://a"\n', "ulr: is unknown: the keys are app, namespace, url"),
        ("[tool.fsm]\nurl = 6379\n", "url: must be text in quotes, not 6379"),
        ('[tool]\nfsm = "redis://a"\n', "must be a table"),
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
