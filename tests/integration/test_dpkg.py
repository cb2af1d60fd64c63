"""The example on real input: real processes, as a person starts them."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from examples.dpkg.log import StatusLine, read
from examples.dpkg.machine import STATUSES, UNKNOWN, Package
from examples.dpkg.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from fsm import Client
    from tests.integration.conftest import Processes

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "dpkg" / "dpkg.log"
GOOD = {"failed": 0, "refused": 0, "mismatches": 0}
# Stand before ours on the path of the worker processes.
HANGS = """
import os, pathlib, time
told = pathlib.Path(__file__).with_name(f"{os.getpid()}.tmp")
told.write_text(os.environ["FSM_URL"] + "\\n" + os.readlink("/proc/self/fd/1"))
told.rename(told.with_suffix(".pid"))
while True:
    time.sleep(60)
"""
DIES = "import sys; sys.exit('nothing works here')"
SABOTAGES = """
import os, sys
sys.path.pop(0)
os.chdir("/")
for name in [name for name in sys.modules if name.split(".")[0] == "workers"]:
    del sys.modules[name]
from examples.dpkg.machine import Package
honest = Package.note
def note(self, t, change):
    if t.name == "doomed":
        raise RuntimeError("the disk is full")
    honest(self, t, change)
    if t.name == "doubled":
        t.payload.changes += 1
Package.note = note
from workers.__main__ import run
run()
"""


def line(package: str, status: str) -> str:
    return f"2025-06-24 14:36:25 status {status} {package} 1.0-1\n"


class Run:
    """Starts the example in a folder of its own, where another package `workers` may hide ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def sabotage(self, code: str) -> Path:
        package = self.folder / "workers"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(code)
        return package

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FSM_")}
        if server := os.environ.get("FSM_SERVER"):
            environment["FSM_SERVER"] = server
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.dpkg", *map(str, arguments)],
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def json(self, *arguments: object) -> tuple[int, dict[str, Any], str]:
        code, out, err = self("--json", *arguments)
        assert out.count("\n") == 1
        return code, json.loads(out), err

    def log(self, text: str) -> Path:
        path = self.folder / "some.log"
        path.write_text(text)
        return path

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=20)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path)
    yield started
    started.end()


def told(package: Path) -> dict[int, list[Path]]:
    """Give what workers that hang have told: process id -> folders of their server and of their output."""
    return {
        int(path.stem): [Path(line.removeprefix("unix://")).parent for line in path.read_text().splitlines()]
        for path in package.glob("*.pid")
    }


def is_alive(pid: int) -> bool:
    try:
        # A process that has ended and that nobody has waited for yet is not alive.
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_sample_ends_with_every_package_where_its_log_says(run: Run) -> None:
    code, result, err = run.json("--workers", 2)
    assert result.pop("seconds") > 0
    assert result == {"packages": 361, "transitions": 1848, **GOOD}
    assert code == 0, err


def test_a_pipe_gets_progress_in_plain_lines_and_the_result_as_the_last(run: Run) -> None:
    code, out, err = run("--workers", 1)
    *progress, result = out.splitlines()
    assert progress[-1] == "1848 of 1848 status lines applied: 17 unpacked, 2 triggers-pending, 342 installed"
    assert json.loads(result)["packages"] == 361
    assert "\x1b" not in out + err
    assert code == 0


def test_a_nasty_log_of_another_host_is_replayed_twice_on_one_redis_and_nothing_is_left(
    run: Run, redis_url: str, raw_redis: redis.Redis
) -> None:
    # Every edge of the machine, each with packages of two architectures.
    text = ""
    for edge in Package.graph.edges:
        for architecture in ("amd64", "i386"):
            package = f"{edge.source}.to.{edge.target}:{architecture}"
            if edge.source != UNKNOWN:
                text += line(package, edge.source)
            text += "2025-06-24 14:36:25 startup packages configure\n" + line(package, edge.target)
    nasty = (
        text.encode()
        + b"\xff\xfe\x80 \xc3\x28 status installed nobody 1\n"
        + b"\0" * 9000
        + line("after-a-crash", "half-installed").encode()
        + b"\n\n"
        + b"z" * 100_000
        + b"\n"
        + line("windows", "config-files").replace("\n", "\r\n").encode()
        + b"2025-06-24 14:36:25 conffile /etc/status keep\n"
        + line("old", "not-installed").replace("1.0-1", "<none>").encode()
        + b"2025-06-24 14:36:25 status installed cut-o"
    )
    log = run.folder / "dpkg.log.7.gz"
    log.write_bytes(gzip.compress(nasty))
    before = set(raw_redis.keys())
    for _ in range(2):
        code, result, err = run.json("--log", log, "--url", redis_url)
        del result["seconds"]
        pairs = 2 * len(Package.graph.edges)
        assert result == {"packages": pairs + 3, "transitions": 2 * pairs - 2 * len(STATUSES) + 3, **GOOD}
        assert code == 0, err
        # What is left belongs to RQ's register of dead workers, and ends by itself.
        left = {key for key in set(raw_redis.keys()) - before if raw_redis.ttl(key) == -1}
        assert left == set()
        assert not raw_redis.smembers("rq:queues")


def test_an_impossible_transition_is_counted_told_and_left_to_be_looked_at(
    run: Run, redis_url: str, raw_redis: redis.Redis
) -> None:
    log = run.log(line("sound", "installed") + line("odd", "installed") + line("odd", "config-files"))
    code, result, err = run.json("--log", log, "--url", redis_url)
    del result["seconds"]
    assert result == {"packages": 2, "transitions": 3, "failed": 0, "refused": 1, "mismatches": 1}
    assert code == 1
    assert "event 'config-files' of FSM 'odd' in state 'installed': not allowed here" in err
    namespace = err.partition("fsm --namespace ")[2].partition(" ")[0]
    assert raw_redis.hget(f"fsm:{namespace}:snapshot:odd", "state") == b"installed"


def test_a_refusal_is_counted_also_where_the_log_gets_right_again(run: Run) -> None:
    states = ("installed", "config-files", "half-configured", "half-installed", "installed")
    code, result, _ = run.json("--log", run.log("".join(line("odd", state) for state in states)))
    del result["seconds"]
    assert result == {"packages": 1, "transitions": 5, "failed": 0, "refused": 1, "mismatches": 0}
    assert code == 1


def test_failures_and_changes_that_were_counted_twice_are_noticed(run: Run) -> None:
    run.sabotage(SABOTAGES)
    lines = [line(name, state) for state in ("unpacked", "half-configured") for name in ("doomed", "doubled", "sound")]
    code, result, err = run.json("--log", run.log("".join(lines)))
    del result["seconds"]
    # From `unknown` both lines of the doomed package might have been applied, and both fail.
    assert result == {"packages": 3, "transitions": 6, "failed": 2, "refused": 0, "mismatches": 2}
    assert code == 1
    assert "the disk is full" in err
    assert "doubled: applied 4 changes out of 2" in err


def test_workers_that_die_are_noticed_with_what_they_said(run: Run) -> None:
    run.sabotage(DIES)
    code, result, err = run.json("--workers", 2)
    assert code == 1
    # They may be dead before the whole log was fed.
    assert result["mismatches"] == result["packages"] > 0
    assert err.count("has ended, with code 1\nnothing works here") == 2
    assert re.search(r"no worker is left, and (\d+) of \1 status lines wait", err)


def test_without_progress_it_ends_and_stops_its_workers(run: Run) -> None:
    package = run.sabotage(HANGS)
    code, result, err = run.json("--patience", 0.5)
    assert code == 1
    assert (result["transitions"], result["failed"], result["refused"]) == (1848, 0, 0)
    assert "no progress for 0.5 s, and 1848 of 1848 status lines wait" in err
    assert len(told(package)) == 2
    assert not any(map(is_alive, told(package)))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_workers_and_server(run: Run, until: Callable[..., Any], number: int, code: int) -> None:
    package = run.sabotage(HANGS)
    process = run.start("--json")
    until(lambda: len(told(package)) == 2)
    pids, folders = list(told(package)), next(iter(told(package).values()))
    assert all(folder.exists() for folder in folders)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert "stopped; workers and server have ended" in err
    assert "Traceback" not in err
    assert not any(map(is_alive, pids))
    assert not any(folder.exists() for folder in folders)


def test_workers_and_server_do_not_outlive_one_that_was_killed(run: Run, until: Callable[..., Any]) -> None:
    package = run.sabotage(HANGS)
    process = run.start("--json")
    until(lambda: len(told(package)) == 2)
    pids, folders = list(told(package)), next(iter(told(package).values()))
    assert all(folder.exists() for folder in folders)
    process.kill()
    process.communicate(timeout=20)
    until(lambda: not any(map(is_alive, pids)))
    until(lambda: not any(folder.exists() for folder in folders))


def test_an_empty_log_is_no_fault(run: Run) -> None:
    code, result, _ = run.json("--log", run.log("2025-06-24 14:36:25 startup archives unpack\n"))
    del result["seconds"]
    assert (code, result) == (0, {"packages": 0, "transitions": 0, **GOOD})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--log", "nothing.log"], 2, "examples.dpkg: nothing.log cannot be read (No such file or directory)"),
        (["--url", "http://localhost"], 2, "examples.dpkg: URL 'http://localhost'"),
        (["--url", "redis://:secret@localhost:1/0"], 1, "cannot be reached"),
    ],
)
def test_what_cannot_begin_is_told_in_one_sentence(run: Run, arguments: list[str], code: int, said: str) -> None:
    ended, out, err = run("--json", *arguments)
    assert (ended, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
    assert "secret" not in err


def test_a_log_that_breaks_in_the_middle_ends_it(run: Run) -> None:
    packed = gzip.compress(SAMPLE.read_bytes())
    log = run.folder / "cut.gz"
    log.write_bytes(packed[: len(packed) // 2])
    code, out, err = run("--json", "--log", log)
    assert (code, out) == (2, "")
    assert "cut.gz is damaged gzip data" in err
    assert "Traceback" not in err


def test_a_full_mailbox_is_waited_for_and_keeps_the_order(client: Client, processes: Processes) -> None:
    at, full = "2025-06-24 14:36:25", Package.definition.settings.max_mailbox
    states = ("half-configured", "installed")
    lines = [StatusLine(at, states[number % 2], "busy", str(number)) for number in range(full)]
    # Out of order, the first of these would be refused.
    lines += [StatusLine(at, state, "busy", "late") for state in ("half-configured", "half-installed", "config-files")]
    lines += [StatusLine(at, "installed", "other", "late")]
    bursts = []

    def meanwhile() -> None:
        if client.redis.llen(client.keys.mailbox("busy")) >= full:
            worker = processes.worker("--app", "examples.dpkg.machine", "--burst")
            worker.communicate(timeout=60)
            bursts.append(worker.returncode)

    replay = Replay(client)
    replay.feed(lines, meanwhile)
    processes.worker("--app", "examples.dpkg.machine", "--burst").communicate(timeout=60)
    assert bursts == [0]
    assert replay.look().is_settled
    report = replay.report()
    assert (report.packages, report.transitions, report.told) == (2, full + 4, [])
    assert report.is_good


@pytest.mark.skipif(not Path("/var/log/dpkg.log").exists(), reason="this host is no Debian")
def test_the_log_of_this_host_is_replayed_without_a_fault(run: Run) -> None:
    log = Path("/var/log/dpkg.log")
    code, result, err = run.json("--log", log)
    assert result["packages"] == len({entry.package for entry in read(log)})
    assert {key: result[key] for key in GOOD} == GOOD
    assert code == 0, err
