"""The pytest fixtures, in pytest runs of their own: real servers, real workers, and what a person is told."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fsm.store.embedded import EmbeddedServer

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
SHOP = '''
"""A module of an application."""

from fsm import App, Machine, on

def measure(name):
    return len(name)

class Door(Machine):
    diagram = """
    stateDiagram-v2
        [*] --> closed
        closed --> open : push
        closed --> closed : look
        closed --> measured : tell
        open --> [*] : leave
        measured --> [*] : leave
    """

    def __init__(self, colour="green"):
        self.colour = colour

    @on("look")
    def look(self, t):
        t.enqueue(measure, t.name, on_success="tell")
        t.reply(self.colour)

red = App([Door("red")])
'''


@pytest.fixture
def shop(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, redis_server: EmbeddedServer) -> pytest.Pytester:
    """A folder with a module `shop`, whose pytest knows our fixtures; `redis_server` says where there is no server."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(pytester.path))
    for variable in ("FSM_URL", "FSM_NAMESPACE", "FSM_APP"):
        monkeypatch.delenv(variable, raising=False)
    pytester.makepyfile(shop=SHOP)
    return pytester


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest as a user would, who has installed the package: there the plugin is found by itself."""
    is_installed = any(one.value == "fsm.testing.plugin" for one in entry_points(group="pytest11"))
    plugin = () if is_installed else ("-p", "fsm.testing.plugin")
    return pytester.runpytest_subprocess(*plugin, "-W", "error", *arguments, timeout=100)


def test_a_client_is_of_a_real_redis_that_is_empty_for_each_test(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        """
        import os
        import pytest
        from fsm import Client
        from shop import Door

        @pytest.mark.parametrize("number", [1, 2])
        def test_it_is_empty(fsm_client, number):
            assert fsm_client.redis.info("server")["redis_version"]
            assert fsm_client.redis.keys("*") == []
            fsm_client.start_fsm(Door, "door")

        def test_it_is_where_the_application_looks(fsm_url, fsm_client, monkeypatch):
            monkeypatch.setenv("FSM_URL", fsm_url)
            Client().start_fsm(Door, "door")
            assert fsm_client.exists("door")
        """
    )

    run(shop).assert_outcomes(passed=3)


@pytest.mark.slow
def test_workers_run_modules_classes_and_apps_of_the_test_module(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        """
        import pytest
        from fsm import App, Machine, on
        from shop import Door, red

        class Lamp(Machine):
            diagram = '''
            stateDiagram-v2
                [*] --> dark
                dark --> dark : ask
                dark --> [*] : burn
            '''

            def __init__(self, name="lamp"):
                self.name = name

            @on("ask")
            async def ask(self, t):
                t.reply(self.name)

        blue = App([Lamp("blue")])

        @pytest.mark.parametrize(
            ("machine", "app", "event", "reply"),
            [
                (Door, "shop:red", "look", "red"),
                (Door, red, "look", "red"),
                (Lamp, [Door, Lamp], "ask", "lamp"),
                (Lamp, App([Lamp]), "ask", "lamp"),
                (Lamp, blue, "ask", "blue"),
            ],
        )
        def test_it(fsm_client, fsm_worker, machine, app, event, reply):
            worker = fsm_worker(app, "--no-effects")
            assert worker.is_alive
            assert fsm_client.start_fsm(machine, "one").call(event).reply == reply

        def test_effects_are_run_as_well(fsm_client, fsm_worker):
            fsm_worker("shop")
            fsm_client.start_fsm(Door, "door").call("look")
            assert fsm_client.wait_for("door", "measured", timeout=20).state == "measured"

        def test_one_that_is_killed_is_no_fault_and_another_goes_on(fsm_client, fsm_worker):
            fsm_worker(Door, "--no-effects").kill()
            fsm_worker(Door, "--no-effects")
            assert fsm_client.start_fsm(Door, "door").call("push").state == "open"
        """
    )

    result = run(shop)

    result.assert_outcomes(passed=7)
    assert list(shop.path.glob("fsm-worker-*")) == []


@pytest.mark.slow
def test_what_is_wrong_is_told(shop: pytest.Pytester) -> None:
    shop.makepyfile(
        """
        import os
        import signal
        import time
        import pytest
        import fsm.testing.processes
        from fsm import App, ConfigError, Machine, on
        from shop import Door

        class Stubborn(Door):
            @on("push")
            def push(self, t):
                print("I push for ever", flush=True)
                time.sleep(60)

        def local():
            class Local(Door):
                pass
            return Local

        @pytest.mark.parametrize(
            ("app", "text"),
            [
                (local(), "Local has no name at the top of a module"),
                (Door("blue"), "this Door has no name at the top of a module"),
                (App([Door("blue")]), "made in the test, of more than classes"),
                (7, "not 7"),
                ([Door, "shop"], "not 'shop'"),
            ],
        )
        def test_refused(fsm_worker, app, text):
            with pytest.raises(ConfigError, match=text):
                fsm_worker(app)

        def test_no_such_module(fsm_worker):
            fsm_worker("no.such.module")

        def test_output(fsm_worker):
            fsm_worker(Door, "--no-effects")
            assert 0, "as told"

        def test_died(fsm_client, fsm_worker):
            os.kill(fsm_worker(Door, "--no-effects").pid, signal.SIGABRT)

        def test_stubborn(fsm_client, fsm_worker):
            fsm.testing.processes._END_S = 2.0
            worker = fsm_worker(Stubborn, "--no-effects")
            fsm_client.start_fsm(Stubborn, "one").transition("push")
            deadline = time.monotonic() + 10
            while "for ever" not in worker.output and time.monotonic() < deadline:
                time.sleep(0.02)
            print(f"pid {worker.pid} is meant")
            fsm_worker(Door, "--no-effects")
        """
    )

    result = run(shop)

    result.assert_outcomes(passed=7, failed=2, errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "E*fsm_worker(no.such.module), process * ended before it was at work:",
            "E*there is no module 'no'*",
            "*Captured output of fsm_worker(Door), process *",
            "*INFO fsm.worker worker test-* serves fsm of namespace default: machines Door",
            "*fsm_worker(Door), process * ended with code -6*",
            "*fsm_worker(Stubborn), process * did not stop within 2 s of SIGTERM, and was killed*",
            "*I push for ever*",
        ]
    )


@pytest.mark.parametrize(("ci", "outcome"), [("", {"skipped": 1}), ("true", {"errors": 1})])
def test_without_a_server_program_tests_are_skipped_and_fail_in_ci(
    shop: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setenv("FSM_SERVER", "/no/such/server")
    monkeypatch.setenv("CI", ci)
    shop.makepyfile("def test_it(fsm_client): pass")

    result = run(shop, "-rs")

    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(["*FSM_SERVER=/no/such/server is no Redis or Valkey server*"])


def test_the_plugin_brings_neither_redis_nor_rq_into_every_run_of_pytest() -> None:
    code = "import fsm.testing.plugin, sys; print(sorted({'redis', 'rq', 'orjson', 'msgspec'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
