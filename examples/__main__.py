"""`python -m examples [NAME …]`: run the examples one after the other, each with a worker beside it.

The Redis is one of our own, in a temporary directory that is taken away in the end, with all that the examples write.
Every package here that can be run is an example, but for `dpkg`, which brings a server and workers itself. Exit code
0: each has ended with 0; 1: one has not; 2: wrong use; 128 + n: ended by signal n.

Who calls this: `make examples`, and people.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from examples.dpkg.processes import Workers
from fsm import FSMError
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["found", "main"]

_HERE = Path(__file__).parent
_OTHERS = {"dpkg"}
# Enough to see what an example does.
_ARGUMENTS = {"orders": ("--orders", "8")}
# Some seconds are usual; they wait a minute for a worker themselves.
_PATIENCE_S = 90.0
_LOOK_EVERY_S = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; gives the exit code."""
    examples = found()
    parser = argparse.ArgumentParser(prog="python -m examples", description="Run the examples, one after the other.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(examples)}")
    names: list[str] = parser.parse_args(arguments).names or examples
    if unknown := [name for name in names if name not in examples]:
        parser.error(f"no example {unknown[0]!r}: there are {', '.join(examples)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    begin = time.monotonic()
    try:
        with EmbeddedServer() as server, TemporaryDirectory(prefix="fsm-examples-") as folder:
            failed = [name for name in names if not _run(name, server.url, Path(folder))]
    except FSMError as error:
        print(f"examples: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(f"\n{', '.join(names)}: done in {time.monotonic() - begin:.0f} s", flush=True)
    return 0


def found() -> list[str]:
    """Give the names of the examples that can be run here."""
    return sorted(path.parent.name for path in _HERE.glob("*/__main__.py") if path.parent.name not in _OTHERS)


def _stop(number: int, _frame: FrameType | None) -> None:
    """End in order: worker, server and folder are cleared away."""
    raise SystemExit(128 + number)


def _run(name: str, url: str, folder: Path) -> bool:
    """Run one example; tells whether all went well."""
    # Read, not imported: one that cannot be imported fails in its own process.
    about = ast.get_docstring(ast.parse((_HERE / name / "__init__.py").read_text(encoding="utf-8"))) or ""
    print(f"\n== {name}: {about.splitlines()[0] if about else ''}", flush=True)
    path = os.pathsep.join(filter(None, [str(_HERE.parent), os.environ.get("PYTHONPATH")]))
    # One namespace each, and one folder for all: what they keep beside Redis has names of its own.
    environment = {**os.environ, "FSM_URL": url, "FSM_NAMESPACE": name, "PYTHONPATH": path}
    with Workers(1, url, name, f"examples.{name}", folder) as workers:
        example = subprocess.Popen(  # noqa: S603 - our own module, run by the Python that runs us
            [sys.executable, "-m", f"examples.{name}", *_ARGUMENTS.get(name, ())], cwd=folder, env=environment
        )
        try:
            return _watch(name, example, workers)
        finally:
            example.kill()
            example.wait()


def _watch(name: str, example: subprocess.Popen[bytes], workers: Workers) -> bool:
    """Wait for the end of an example, but not longer than for its worker; tells whether all went well."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            code = example.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            problems = workers.deaths()
            if time.monotonic() > deadline:
                problems.append(f"not done in {_PATIENCE_S:g} s")
        else:
            problems = [f"ended with code {code}"] if code else []
            if not problems:
                return True
        if problems:
            print("\n".join(f"examples.{name}: {problem}" for problem in problems), file=sys.stderr)
            return False


if __name__ == "__main__":
    sys.exit(main())
