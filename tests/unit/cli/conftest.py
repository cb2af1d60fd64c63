"""The command line over fakeredis: a terminal's or a pipe's view of it, without processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import pytest
from click.testing import CliRunner, Result

from fsm.cli import main
from fsm.client import Client

SHOP = '''
from fsm import Machine, Reject, Settings, Transition, on


class Door(Machine):
    """A door that may stick."""

    diagram = """
    stateDiagram-v2
        [*] --> closed
        closed --> open : push
        open --> closed : pull
        closed --> closed : break
        open --> gone : leave
        gone --> [*]
    """

    @on("push")
    def push(self, t: Transition) -> None:
        t.payload["pushes"] = t.payload.get("pushes", 0) + 1
        t.reply({"pushes": t.payload["pushes"]})

    @on("pull")
    def pull(self, t: Transition) -> None:
        raise Reject("stuck")

    @on("break")
    def smash(self, t: Transition) -> None:
        raise ValueError("no glass")


class Lamp(Machine):
    settings = Settings(queue="lamps", endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> dark
        dark --> bright : switch
        bright --> dark : switch
    """

    def __init__(self, *, bulb: str) -> None:
        self.bulb = bulb
'''


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An application in the current directory, by the name of its module."""
    (tmp_path / "cli_shop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for variable in ("FSM_URL", "FSM_APP", "FSM_NAMESPACE"):
        monkeypatch.delenv(variable, raising=False)
    before = set(sys.modules)
    yield "cli_shop"
    for name in set(sys.modules) - before:
        if name.startswith("cli_"):
            del sys.modules[name]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> fakeredis.FakeServer:
    """The server that every client of the command line meets."""
    server = fakeredis.FakeServer()
    monkeypatch.setattr("fsm.client.connect", lambda *_, **__: fakeredis.FakeRedis(server=server))
    return server


@pytest.fixture
def client(fake: fakeredis.FakeServer) -> Iterator[Client]:
    """A client of the same Redis."""
    with Client() as made:
        yield made


@pytest.fixture
def fsm(shop: str, fake: fakeredis.FakeServer) -> Callable[..., Result]:
    """Run the command with these arguments."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, prog_name="fsm")

    return run


@pytest.fixture
def work(fake: fakeredis.FakeServer, shop: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Apply all that waits, by a real worker over the same Redis."""

    def run() -> None:
        from fsm.app import App, load  # noqa: PLC0415 - the application is there now
        from workers.worker import TransitionWorker  # noqa: PLC0415

        monkeypatch.setattr("workers.worker.connect", lambda *_, **__: fakeredis.FakeRedis(server=fake))
        # RQ listens in a thread, which hangs up while ours is saying that it may: over fakeredis that raises in it.
        monkeypatch.setattr(TransitionWorker, "subscribe", lambda _: None)
        app: App = load(f"{shop}:Door")
        TransitionWorker(app, None, ["fsm"]).work(burst=True, logging_level="ERROR")

    return run
