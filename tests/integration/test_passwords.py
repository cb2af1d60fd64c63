"""A password is seen nowhere: not in what our processes write, not in `ps`, not in Redis, and in no error."""

from __future__ import annotations

import secrets
import subprocess
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import redis
from click.testing import CliRunner

from fsm import Client, FSMError, StoreError
from fsm.cli import main
from fsm.store.connection import connect
from fsm.store.embedded import EmbeddedServer
from fsm.testing.processes import Workers
from tests.integration.conftest import Processes
from tests.integration.effect_machines import Desk
from tests.integration.machines import Trouble
from tests.integration.test_connection import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Drawn, since all processes of this computer are looked at, and tests may run twice at a time.
FIRST, LAST = secrets.token_hex(6), secrets.token_hex(6)
PASSWORD = f"{FIRST}/@#{LAST}"
FORMS = (FIRST, LAST, quote(PASSWORD, safe=""))
APP = "tests.integration.effect_machines"


class Vault:
    """A server that lets in only those who know the password, by TCP."""

    def __init__(self, server: EmbeddedServer, port: int) -> None:
        self.server = server
        self.admin: Any = connect(server.url)
        self.host = f"127.0.0.1:{port}"
        self.url = f"redis://ann:{FORMS[-1]}@{self.host}/0"
        self.allow()

    def allow(self, *rules: str) -> None:
        self.admin.execute_command(
            "ACL", "SETUSER", "ann", "reset", "on", f">{PASSWORD}", "allchannels", *(rules or ("+@all", "~*"))
        )

    def hang_up(self) -> None:
        """End all connections of the user."""
        self.admin.execute_command("CLIENT", "KILL", "USER", "ann")

    def values(self) -> str:
        """All that stands in this Redis."""
        read = {
            b"hash": self.admin.hgetall,
            b"list": lambda key: self.admin.lrange(key, 0, -1),
            b"set": self.admin.smembers,
            b"zset": lambda key: self.admin.zrange(key, 0, -1),
            b"string": self.admin.get,
            b"stream": self.admin.xrange,
        }
        return "\n".join(f"{key} {read[self.admin.type(key)](key)}" for key in self.admin.keys("*"))


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    port = free_port()
    with EmbeddedServer({"port": str(port), "bind": "127.0.0.1"}) as server:
        yield Vault(server, port)


def check(text: str) -> None:
    """See that no form of the password is in a text."""
    for form in FORMS:
        assert form not in text, text[max(0, text.index(form) - 300) :][:700]


def command_lines() -> str:
    """The command lines of all processes."""
    return subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True).stdout


def test_a_worker_and_its_children_show_no_password_whatever_happens_to_them(
    vault: Vault, until: Callable[..., Any], tmp_path: Path
) -> None:
    """Seen to fail with `--url` in the command of `EffectsProcess`, and with the URL unmasked in `explain`."""
    processes = Processes(vault.url)
    worker = processes.run("-m", "workers", "--app", APP, "--log-level", "debug", "--lease", "1s")
    book = tmp_path / "book"
    try:
        with Client(vault.url, namespace="default") as client:
            desk = client.start_fsm(Desk, "desk")
            desk.call("ask", {"func": "nap", "args": [str(book), 1]}, timeout=30)
            until(book.exists, 30)
            lines = command_lines()
            assert "workers.effects" in lines
            check(lines)
            desk.call("ask", {"func": "decline", "args": [str(book)]}, timeout=30)
            with pytest.raises(FSMError):
                desk.call("ask", {"no": "func"}, timeout=30)
            until(lambda: len(desk.state().payload) == 2, 30)
        # Hung up on; forbidden something; not let in any more.
        vault.hang_up()
        vault.allow("+@all", "-zpopmin", "~*")
        until(lambda: worker.poll() is not None, 30)
        vault.admin.execute_command("ACL", "SETUSER", "ann", "resetpass", ">another")
        late = processes.run("-m", "workers", "--app", APP, "--burst")
        outputs = [process.communicate(timeout=60)[0] for process in (worker, late)]
    finally:
        vault.allow()
        processes.end()

    assert "Traceback" in outputs[0]
    for output, said in zip(outputs, ("does not allow this to our user", "does not let us in"), strict=True):
        assert said in output
        assert "redis://ann:***@" in output
        check(output)
    check(vault.values())


def test_errors_show_no_password_with_all_that_they_came_from(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the URL unmasked in `explain`, and in `_wrong`."""
    monkeypatch.setattr("fsm.store.connection._REPEATS", 0)
    wrong = [
        vault.url.replace("/0", "/99"),
        vault.url.replace(vault.host, f"127.0.0.1:{free_port()}"),
        vault.url.replace(vault.host, "127.0.0.1:65536"),
        vault.url.replace("ann:", "bob:"),
        vault.url.replace("%23", "#"),
        vault.url.replace("%2F", "/"),
        vault.url.replace("/0", "/database"),
        vault.url.replace("redis://", ""),
        f"redis://{vault.host}/0?username=ann&password={FORMS[-1]}&nonsense=1",
        f"redis://{vault.host}/0?username=bob&password={FORMS[-1]}",
        f"unix:///nowhere?password={FORMS[-1]}",
    ]
    for url in wrong:
        client = Client(url, namespace="default")
        check(repr(client))
        with pytest.raises(FSMError) as raised:
            client.exists("x")
        check("".join(traceback.format_exception(raised.value)))
        check(repr(raised.value))
        check(repr(vars(raised.value)))


def test_what_may_be_printed_of_a_client_shows_no_password(vault: Vault) -> None:
    """Seen to fail with the URL unmasked in `Client.__repr__`."""
    vault.allow()
    with Client(vault.url, namespace="default") as client:
        trouble = client.start_fsm(Trouble, "t")
        job = trouble.transition("fail")
        for shown in (client, trouble, job, client.redis, client.redis.connection_pool):
            check(repr(shown))
        vault.allow("+@all", "-evalsha", "~*")
        with pytest.raises(StoreError, match="does not allow this to our user") as raised:
            trouble.transition("fail")
        vault.allow()
    check("".join(traceback.format_exception(raised.value)))
    assert isinstance(raised.value.__cause__, redis.RedisError)


@pytest.mark.parametrize("trouble", ["none", "away", "wrong password", "no rights"])
def test_the_command_line_shows_no_password(vault: Vault, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    vault.allow(*(("+@all", "-hgetall", "~*") if trouble == "no rights" else ()))
    url = {
        "away": vault.url.replace(vault.host, f"127.0.0.1:{free_port()}"),
        "wrong password": vault.url.replace("ann:", "bob:"),
    }.get(trouble, vault.url)
    monkeypatch.setenv("FSM_URL", url)
    monkeypatch.setattr("fsm.store.connection._REPEATS", 0)

    for command in ("info", "info --json", "config", "config --json", "machines", "state x", "ls", "start x:Y y"):
        done = CliRunner().invoke(main, command.split())
        check(done.output)
        check(done.stderr)
        assert "Traceback" not in done.output
        # The error as it is raised, whoever prints it.
        check("".join(traceback.format_exception(done.exception)) if done.exception else "")


def test_a_worker_that_a_test_starts_shows_no_password(vault: Vault) -> None:
    """Seen to fail with `--url` in the command that `fsm.testing` starts."""
    vault.allow()
    with Client(vault.url, namespace="default") as client:
        workers = Workers(client)
        try:
            worker = workers.start("tests.integration.machines", "--no-effects")
            lines = command_lines()
            assert worker.name in lines
            check(lines)
        finally:
            assert workers.end() == []
