"""The wheel carries all that runs: modules, scripts in Lua, type markers, the command."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Builds it as a publisher would, without a network: hatchling is part of the dev extra."""
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [path] = out.glob("fsm_workers-*.whl")
    return zipfile.Path(path)


def content(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_every_file_of_both_packages_is_in_the_wheel(wheel: zipfile.Path) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("fsm", "workers")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    packed = {name for name in content(wheel) if ".dist-info/" not in name}

    assert packed == wanted


def test_scripts_in_lua_and_type_markers_are_in_the_wheel(wheel: zipfile.Path) -> None:
    names = content(wheel)

    assert {"fsm/py.typed", "workers/py.typed", "fsm/store/lua/claim.lua", "fsm/store/lua/commit.lua"} <= names


def test_the_wheel_installs_the_command_and_the_pytest_plugin_and_names_its_licence(wheel: zipfile.Path) -> None:
    [entry_points] = [name for name in content(wheel) if name.endswith(".dist-info/entry_points.txt")]
    [metadata] = [name for name in content(wheel) if name.endswith(".dist-info/METADATA")]

    installed = wheel.root.read(entry_points).decode().splitlines()
    assert {"fsm = fsm.cli:main", "[pytest11]", "fsm = fsm.testing.plugin"} <= set(installed)
    assert "License-Expression: MIT" in wheel.root.read(metadata).decode().splitlines()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in content(wheel))
