"""Real workers for the integration tests: processes that are stopped, and waited for, after each test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench import page
from fsm import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from fsm.store.embedded import EmbeddedServer

    # Name of a benchmark and further options -> what it prints.
    Small = Callable[..., dict[str, Any]]

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.integration.machines"


class Processes:
    """Starts processes against one server, and ends what is left of them."""

    def __init__(self, url: str) -> None:
        # One that crashes says where: all else it would leave is a negative exit code.
        more = {"PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(ROOT)}
        self.environment = {**os.environ, "FSM_URL": url, "FSM_APP": APP, **more}
        self._url = url
        self._started: list[subprocess.Popen[str]] = []

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a Python process; its output is read when it ends."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def worker(self, *arguments: str, effects: bool = False) -> subprocess.Popen[str]:
        """Start a worker of ours; one for effects beside it costs another start of Python."""
        more = () if effects else ("--no-effects",)
        return self.run("-m", "workers", "--url", self._url, "--app", APP, *more, *arguments)

    def rq_worker(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a stock RQ worker."""
        code = "from rq.cli import main; main()"
        return self.run("-c", code, "worker", "-u", self._url, "-S", "rq.serializers.JSONSerializer", *arguments)

    def end(self) -> None:
        """Stop what still runs, and wait for it."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._started:
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                pytest.fail(f"process {process.args} did not stop on SIGTERM")


def wait_until_asked(process: subprocess.Popen[str]) -> None:
    """Wait until a worker with `--log-level debug` has heard a signal: it may be sent long before that is heard."""
    assert process.stdout is not None
    said = []
    while "got signal" not in (line := process.stdout.readline()):
        assert line, "".join(said)
        said.append(line)


@pytest.fixture(scope="session")
def small(redis_server: EmbeddedServer) -> Small:
    """Run a benchmark in its small form, and give what it prints."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}", "--small", "--json", "--rounds", "1", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "round 1" in done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        assert said["bench"] == name
        # The page has a place for what was measured. Seen to fail with another name for a setting of its rows.
        assert "Not measured" not in page.renew(f"<!-- table: {name} -->\n<!-- end -->", {name: said})
        return said

    return run


@pytest.fixture
def processes(raw_redis: redis.Redis, redis_url: str) -> Iterator[Processes]:
    """Processes against an emptied server."""
    started = Processes(redis_url)
    yield started
    started.end()


@pytest.fixture
def client(raw_redis: redis.Redis, redis_url: str) -> Iterator[Client]:
    """A client of an emptied server."""
    with Client(redis_url, namespace="default") as made:
        yield made


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait for a condition, for as long as a worker takes to start on a busy host; gives what the condition gave."""

    def wait(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"not so after {seconds:g} s: {condition}")
            time.sleep(0.01)
        return found

    return wait
