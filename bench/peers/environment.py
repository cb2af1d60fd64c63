"""`python -m bench.peers.environment`: install the peers, each into an environment of its own.

One that cannot be installed does not sink the others; what pip or npm said is kept, and the benchmark tells it. What is
there already, as `bench/requirements-peers.txt` wants it, is left alone.

Who calls this: `make bench-peers`. `bench.peers.catalogue` asks `found` what there is.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NODE", "Environment", "found", "main"]

NODE = ROOT / "bench" / "peers" / "node"
_HOME = ROOT / ".venv-peers"
_WANTED = ROOT / "bench" / "requirements-peers.txt"
# SAQ imports typing_extensions, and does not say that it needs it.
_SHARED = ("redis[hiredis]", "orjson", "uvloop", "typing_extensions")
_TOLD = 300
_LONG_S = 600
_VERSIONS = (
    "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a peer runs, or why it cannot.

    Args:
        program: The interpreter, absolute.
        versions: Of what is installed in it, by name.
        missing: Why it cannot; empty if it can.
    """

    program: str = ""
    versions: dict[str, str] | None = None
    missing: str = ""


def found(package: str) -> Environment:
    """Look up what was installed for a package; RQ is in our own environment, BullMQ in Node's."""
    if package == "rq":
        return Environment(sys.executable, _ours())
    try:
        kept: dict[str, Any] = json.loads(_note(package).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Environment(missing=f"{package} is not installed: run `make bench-peers`")
    if kept["missing"]:
        return Environment(missing=kept["missing"])
    if kept["wanted"] != _wanted()[package] or not Path(kept["program"]).exists():
        return Environment(missing=f"{package} is not installed as it is wanted now: run `make bench-peers`")
    return Environment(kept["program"], kept["versions"])


def main() -> None:
    """Install what is not there, and say what is missing."""
    _HOME.mkdir(exist_ok=True)
    for package, wanted in _wanted().items():
        there = found(package)
        if there.missing:
            print(f"installing {package} into {_HOME.name}", file=sys.stderr, flush=True)
            install = _install_node if package == "bullmq" else _install
            try:
                kept = {"wanted": wanted, "missing": "", **install(package, wanted)}
            except (OSError, subprocess.SubprocessError) as error:
                kept = {"wanted": wanted, "missing": f"{package} cannot be installed: {_why(error)}"}
            _note(package).write_text(json.dumps(kept), encoding="utf-8")
            there = found(package)
        if there.missing:
            print(f"missing: {there.missing}", file=sys.stderr, flush=True)


def _wanted() -> dict[str, str]:
    """What is wanted of each package: its line, and for BullMQ the lock file as a whole."""
    lines = [line for line in _WANTED.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    wanted = {re.split(r"[\[=<>]", line, maxsplit=1)[0]: line for line in lines}
    wanted["bullmq"] = " ".join((NODE / "package.json").read_text(encoding="utf-8").split())
    return wanted


def _install(package: str, wanted: str) -> dict[str, Any]:
    home = _HOME / package
    shutil.rmtree(home, ignore_errors=True)
    # The environments share the pip of ours: one of its own each would take longer than what it installs.
    _run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    program = str(home / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", program, "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", wanted, *_SHARED])
    return {"program": program, "versions": json.loads(_run([program, "-c", _VERSIONS]))}


def _install_node(package: str, wanted: str) -> dict[str, Any]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        problem = "node or npm is not on PATH"
        raise FileNotFoundError(problem)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    _run([npm, "ci", "--prefix", str(NODE), *options])
    versions = {"node": _run([node, "--version"]).strip().removeprefix("v")}
    for name in json.loads(wanted)["dependencies"]:
        about = json.loads((NODE / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
        versions[name] = about["version"]
    if package not in versions:
        problem = f"npm did not install {package}"
        raise FileNotFoundError(problem)
    return {"program": node, "versions": versions}


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(  # noqa: S603 - our own commands, no shell
        command, cwd=ROOT, capture_output=True, text=True, timeout=_LONG_S, check=True
    )
    return done.stdout


def _why(error: Exception) -> str:
    """Say in a line what an installer said last."""
    if isinstance(error, subprocess.CalledProcessError):
        # npm says what is wrong first, pip last, both in lines that say error.
        lines = [line for line in error.stderr.splitlines() if "error" in line.lower()]
        return " ".join(" ".join(lines).split())[:_TOLD] or str(error)
    return str(error)


def _ours() -> dict[str, str]:
    return json.loads(_run([sys.executable, "-c", _VERSIONS]))


def _note(package: str) -> Path:
    return _HOME / f"{package}.json"


if __name__ == "__main__":
    main()
