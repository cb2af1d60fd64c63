"""The command line as real processes over a real Redis."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

SHOP = '''
from pathlib import Path

from fsm import Machine, Reject, Transition, on


class Door(Machine):
    diagram = """
    stateDiagram-v2
        [*] --> closed
        closed --> open : push
        open --> closed : pull
        closed --> closed : hold
        closed --> closed : break
        open --> gone : leave
        gone --> [*]
    """

    @on("push")
    def push(self, t: Transition) -> None:
        t.reply("ajar")

    @on("pull")
    def pull(self, t: Transition) -> None:
        raise Reject("stuck")

    @on("hold")
    def hold(self, t: Transition) -> None:
        Path("in-hand").write_text(t.name)
        t.payload["said"] = Path("go-on").read_text()

    @on("break")
    def smash(self, t: Transition) -> None:
        raise ValueError("no glass")
'''
Fsm = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-c", "from fsm.cli import main; main(prog_name='fsm')"]
# A loaded machine may take its time to import; what is promised is measured with its own bounds.
DEADLINE = 30


@pytest.fixture
def environment(redis_url: str, raw_redis: redis.Redis, tmp_path: Path) -> dict[str, str]:
    """The application in its directory, and how a shell would be set up for it; Redis is empty."""
    (tmp_path / "door_shop.py").write_text(SHOP, encoding="utf-8")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FSM_") and name != "FORCE_COLOR"}
    return ours | {"FSM_URL": redis_url, "FSM_APP": "door_shop", "PYTHONWARNINGS": "error"}


@pytest.fixture
def fsm(environment: dict[str, str], tmp_path: Path) -> Fsm:
    """Run a command to its end; both outputs are pipes."""

    def run(*arguments: str, command: list[str] = COMMAND, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
            **more,
        )

    return run


@pytest.fixture
def running(environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Run a command beside the test; it is killed if the test leaves it behind."""

    @contextmanager
    def start(*arguments: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


def keys_of_holders(client: redis.Redis) -> list[bytes]:
    return [key for pattern in ("fsm:*:lock:*", "fsm:*:claims:*", "fsm:*:held") for key in client.keys(pattern)]


def test_the_main_job_from_start_to_purge(fsm: Fsm) -> None:
    assert fsm("start", "Door", "front", "back").stdout == "started\tfront\nstarted\tback\n"
    assert fsm("transition", "front", "push").returncode == 0
    assert fsm("transition", "back", "break").returncode == 0
    worker = fsm("worker", "--burst")
    assert (worker.returncode, worker.stdout) == (0, "")
    assert "machines Door" in worker.stderr

    front, back = json.loads(fsm("state", "front", "back", "--json").stdout)
    listed = [line.split("\t")[:4] for line in fsm("ls").stdout.splitlines()]
    log = [line.split("\t")[1:6] for line in fsm("log", "front").stdout.splitlines()]
    machines = json.loads(fsm("machines", "--json").stdout)
    info = json.loads(fsm("info", "--json").stdout)

    assert (front["state"], front["history"], front["allowed"]) == ("open", ["closed", "open"], ["pull", "leave"])
    assert back["error"]["message"] == "no glass"
    assert sorted(listed) == [["back", "Door", "closed", "running"], ["front", "Door", "open", "running"]]
    assert log == [["front", "Door", "[*]", "closed", "closed"], ["front", "Door", "push", "closed", "open"]]
    assert [(one["name"], one["states"]) for one in machines] == [("Door", {"closed": 1, "open": 1, "gone": 0})]
    assert info["fsms"] == {"Door": {"closed": 1, "open": 1, "gone": 0}}
    assert (info["alive"], info["held"], info["workers"]) == (2, 0, [])
    assert info["version"]
    assert info["memory"] > 0
    assert [(one["name"], one["ready"], one["failed"]) for one in info["queues"]] == [("fsm", 0, 1)]

    purged = fsm("purge", "front", "back", "--yes")
    assert (purged.returncode, purged.stdout) == (0, "purged\tfront\npurged\tback\n")
    assert json.loads(fsm("ls", "--json").stdout) == []


def test_waiting_tells_how_it_ended(fsm: Fsm, running: Callable[..., Any]) -> None:
    fsm("start", "Door", "front")

    with running("worker", "--no-effects") as worker:
        done = fsm("transition", "front", "push", "--wait", "--timeout", "20", "--json")
        refused = fsm("transition", "front", "pull", "--wait", "--timeout", "20")
        not_allowed = fsm("transition", "front", "break", "--wait", "--timeout", "20")
        ticked = fsm("tick", "front", "--wait", "--timeout", "20")
        about = json.loads(fsm("info", "--json").stdout)
        worker.send_signal(signal.SIGINT)
        assert worker.wait(5) == 0

    assert done.returncode == 0
    assert {name: json.loads(done.stdout)[name] for name in ("state", "ok", "reply")} == {
        "state": "open",
        "ok": True,
        "reply": "ajar",
    }
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "fsm: event 'pull' of FSM 'front' in state 'open': stuck\n"
    assert not_allowed.returncode == 1
    assert "allowed here: pull, leave" in not_allowed.stderr
    # A machine without `on_timer`: seen to be 0, as for an event that is refused softly.
    assert (ticked.returncode, "no on_timer" in ticked.stdout) == (1, True)
    (seen,) = about["workers"]
    assert (seen["pid"], seen["queues"], seen["is_ours"]) == (worker.pid, ["fsm"], True)


def test_an_idle_worker_ends_at_once_and_leaves_nothing(
    fsm: Fsm, running: Callable[..., Any], raw_redis: redis.Redis
) -> None:
    fsm("start", "Door", "front")

    with running("worker", "--no-effects") as worker:
        assert fsm("transition", "front", "push", "--wait", "--timeout", "20").returncode == 0
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(5)
        said = worker.stderr.read()

    assert code == 0
    assert said.rstrip().endswith("has ended")
    assert keys_of_holders(raw_redis) == []
    assert raw_redis.zcard("fsm:default:workers") == 0


def test_a_busy_worker_finishes_what_it_has_in_hand_and_leaves_nothing(
    fsm: Fsm, running: Callable[..., Any], raw_redis: redis.Redis, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "in-hand")
    os.mkfifo(tmp_path / "go-on")
    fsm("start", "Door", "front", "back")
    fsm("transition", "front", "hold")

    with running("worker", "--no-effects") as worker:
        # Opening it waits for the handler, and writing lets the handler go on.
        held = (tmp_path / "in-hand").read_text(encoding="utf-8")
        locked = keys_of_holders(raw_redis)
        fsm("transition", "front", "push")
        worker.send_signal(signal.SIGTERM)
        (tmp_path / "go-on").write_text("bye", encoding="utf-8")
        code = worker.wait(5)

    assert held == "front"
    assert locked
    assert code == 0
    assert keys_of_holders(raw_redis) == []
    front = json.loads(fsm("state", "front", "--json").stdout)
    assert front["payload"] == {"said": "bye"}
    # What came while it was stopping waits for the next worker, or was done on the way.
    assert (front["state"], front["waiting"]) in {("closed", 1), ("open", 0)}


def test_a_name_in_use_is_refused_and_the_worker_of_that_name_goes_on(fsm: Fsm, running: Callable[..., Any]) -> None:
    fsm("start", "Door", "front")

    with running("worker", "--no-effects", "--name", "joe") as joe:
        assert fsm("transition", "front", "push", "--wait", "--timeout", "20").returncode == 0
        second = fsm("worker", "--no-effects", "--name", "joe", "--log-level", "error")
        assert fsm("transition", "front", "leave", "--wait", "--timeout", "20").returncode == 0
        joe.send_signal(signal.SIGTERM)
        assert joe.wait(5) == 0

    assert second.returncode == 2
    assert second.stderr.startswith("fsm: --name: 'joe' is in use")
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("state", "nobody"), 1, "no FSM 'nobody'"),
        (("ls", "--url", "redis://127.0.0.1:1"), 1, "cannot be reached"),
        (("worker", "--url", "redis://127.0.0.1:1"), 1, "cannot be reached"),
        (("ls", "--url", "ftp://x"), 2, "does not begin with one of these schemes"),
        (("worker", "--app", "no_such_shop"), 2, "no module 'no_such_shop'"),
        (("purge", "nobody"), 2, "--yes"),
    ],
)
def test_errors_are_sentences_with_an_exit_code(fsm: Fsm, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = fsm(*arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_piped_output_has_no_escape_codes(fsm: Fsm) -> None:
    fsm("start", "Door", "front")
    fsm("worker", "--burst")

    for arguments in (("ls",), ("state", "front"), ("log",), ("machines",), ("info",), ("check", "door_shop")):
        done = fsm(*arguments)

        assert done.returncode == 0, arguments
        assert done.stdout, arguments
        assert "\x1b" not in done.stdout + done.stderr, arguments


@pytest.mark.parametrize(("more", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_person_sees_a_table_in_colour_unless_told_otherwise(
    fsm: Fsm, environment: dict[str, str], tmp_path: Path, more: dict[str, str], is_coloured: bool
) -> None:
    fsm("start", "Door", "front")
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:  # noqa: PTH123 - a terminal has no path
        subprocess.run(
            [*COMMAND, "ls"],
            cwd=tmp_path,
            env=environment | {"TERM": "xterm"} | more,
            stdout=theirs,
            check=True,
            timeout=DEADLINE,
        )
        os.close(theirs)
        seen = screen.read(65536).decode()

    assert "machine" in seen
    assert "front" in seen
    assert ("\x1b[36m" in seen) is is_coloured


def test_a_reader_that_goes_away_is_no_error(fsm: Fsm, running: Callable[..., Any]) -> None:
    fsm("start", "Door", *(f"door-{number:04}" for number in range(2000)))

    for arguments in (("ls",), ("ls", "--json")):
        with running(*arguments) as process:
            process.stdout.readline()
            process.stdout.close()
            code = process.wait(DEADLINE)
            said = process.stderr.read()

        assert (code, said) == (0, "")


def test_following_shows_what_comes_until_ctrl_c(fsm: Fsm, running: Callable[..., Any]) -> None:
    fsm("start", "Door", "front")
    fsm("worker", "--burst")

    with running("log", "front", "--follow", "--json") as follower:
        first = json.loads(follower.stdout.readline())
        fsm("transition", "front", "push")
        fsm("worker", "--burst")
        second = json.loads(follower.stdout.readline())
        follower.send_signal(signal.SIGINT)
        code = follower.wait(5)
        said = follower.stderr.read()

    assert (first["event"], second["event"], second["to"]) == ("[*]", "push", "open")
    assert (code, said) == (130, "")


def test_python_m_workers_is_the_same_worker(fsm: Fsm) -> None:
    fsm("start", "Door", "front")

    done = fsm("--burst", "--app", "door_shop:Door", command=[sys.executable, "-m", "workers"])

    assert done.returncode == 0
    assert json.loads(fsm("state", "front", "--json").stdout)["status"] == "running"
