import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import fakeredis
import pytest
import redis
from click.testing import Result

from fsm.errors import StoreError

Run = Callable[..., Result]


def unplaced(cause: redis.RedisError) -> StoreError:
    """Make the error of a request that does not know its URL."""
    error = StoreError("Redis at  cannot be reached")
    error.__cause__ = cause
    return error


class FakeWorker:
    """Notes what it is made of, and ends as it is told."""

    made: ClassVar[dict[str, Any]] = {}
    ends: ClassVar[BaseException | None] = None
    is_asked_to_end: ClassVar[bool] = True
    is_hurried: ClassVar[bool] = False
    faults: ClassVar[Exception | None] = None

    def __init__(self, app: Any, url: str | None, queues: list[str], **rest: Any) -> None:
        FakeWorker.made = {"machines": sorted(app.behaviours), "url": url, "queues": queues, **rest}
        self.name = rest["name"] or "drawn"
        self.hostname = rest["host"]
        self.birth_date: Any = None
        self.connection = fakeredis.FakeRedis()
        self._stop_requested = False
        self.fault: Exception | None = None
        self.is_forced = False
        self.watch = SimpleNamespace(bury=None)

    def open_app(self) -> None:
        FakeWorker.made |= {"is_open": True}

    def work(self, **options: Any) -> None:
        FakeWorker.made |= options
        self.birth_date = "now"
        if isinstance(self.ends, SystemExit):
            signal.raise_signal(signal.SIGTERM)
        self.fault = self.faults
        self.is_forced = self.is_hurried
        if self.ends is not None:
            raise self.ends
        self._stop_requested = self.is_asked_to_end

    def teardown(self) -> None:
        FakeWorker.made |= {"is_torn_down": True}


class FakeEffects:
    """Notes how it is started, and what becomes of it."""

    made: ClassVar[list[Any]] = []

    def __init__(
        self, count: int, url: str, queues: tuple[str, ...], name: str, host: str, bury: Any, level: str
    ) -> None:
        self.count = count
        FakeEffects.made += [url, queues, name, level, host, count]

    def __getattr__(self, verb: str) -> Callable[[], None]:
        # Nothing is started beside a worker whose services may be missing.
        return lambda: FakeEffects.made.append(verb if "is_open" in FakeWorker.made else f"{verb} too early")


class FakeHost:
    """Notes what it is made of."""

    made: ClassVar[dict[str, Any]] = {}
    code: ClassVar[int] = 0
    name = "host"
    bury_effects = None

    def __init__(self, url: str, keys: Any, options: list[str], count: int, **more: Any) -> None:
        FakeHost.made |= {"url": url, "namespace": keys.namespace, "options": options, "count": count, **more}

    def run(self, beside: Any) -> int:
        FakeHost.made["effects"] = beside.count
        return self.code


@pytest.fixture(autouse=True)
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.worker.TransitionWorker", FakeWorker)
    monkeypatch.setattr("workers.effects.EffectsCrew", FakeEffects)
    monkeypatch.setattr(FakeWorker, "made", {})
    monkeypatch.setattr(FakeEffects, "made", [])
    monkeypatch.setattr("workers.host.Host", FakeHost)
    monkeypatch.setattr(FakeHost, "made", {})
    monkeypatch.setattr("socket.gethostname", lambda: "edge-7")


@pytest.mark.usefixtures("shop")
def test_a_worker_is_made_of_its_options(fsm: Run) -> None:
    done = fsm(
        *("worker", "--app", "cli_shop:Door", "--url", "redis://somewhere", "--namespace", "shop", "--burst"),
        *("--queue", "b", "--queue", "a", "--batch", "7", "--lease", "1m", "--name", "joe", "--log-level", "debug"),
    )

    assert done.exit_code == 0, done.output
    assert FakeWorker.made == {
        "machines": ["Door"],
        "url": "redis://somewhere",
        "queues": ["b", "a"],
        "namespace": "shop",
        "lease_ms": 60_000,
        "batch": 7,
        "concurrency": 1,
        "name": "joe",
        "host": "edge-7",
        "is_open": True,
        "burst": True,
        "logging_level": "DEBUG",
    }


def test_defaults_come_from_the_environment_and_the_application(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSM_APP", "cli_shop:Door")
    monkeypatch.setenv("FSM_NAMESPACE", "shop")

    assert fsm("worker", "--lease", "2.5").exit_code == 0

    made = FakeWorker.made
    assert (made["queues"], made["namespace"], made["url"], made["burst"]) == (["fsm.shop"], "shop", None, False)
    assert (made["lease_ms"], made["batch"]) == (2500, 128)


def test_settings_of_a_worker_come_from_the_environment_and_the_file(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text('[tool.fsm]\nbatch = 64\nlease = 2\nqueues = "a"\n', encoding="utf-8")
    for name, value in (("QUEUES", "b, a"), ("LEASE", "1m"), ("LOG_LEVEL", "debug")):
        monkeypatch.setenv(f"FSM_{name}", value)

    assert fsm("worker", "--app", "cli_shop:Door", "--lease", "3s").exit_code == 0

    made = FakeWorker.made
    assert (made["queues"], made["batch"], made["lease_ms"]) == (["b", "a"], 64, 3000)
    assert made["logging_level"] == "DEBUG"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "--app: a worker must know its machines"),
        (("--app", "cli_missing"), "no module 'cli_missing'"),
        (("--app", "cli_shop"), "app: machine cli_shop.Lamp needs 'bulb', and there is no lifespan"),
        (("--app", "cli_shop:Door", "--lease", "soon"), "--lease: 'soon' is no length of time"),
        (("--app", "cli_shop:Door", "--lease", "0.1"), "between 500ms and 1h"),
        (("--app", "cli_shop:Door", "--lease", "2h"), "between 500ms and 1h"),
        (("--app", "cli_shop:Door", "--queue", "default"), "--queue: 'default' is not allowed"),
        (("--app", "cli_shop:Door", "--queue", "fsm-effects"), "--queue: 'fsm-effects' is not allowed"),
        (("--app", "cli_shop:Door", "--namespace", "a:b"), "namespace 'a:b'"),
        (("--app", "cli_shop:Door", "--batch", "0"), "--batch"),
        (("--app", "cli_shop:Door", "--effects", "many"), "--effects: must be a whole number from 0 to 100, on (1) or"),
        (("--app", "cli_shop:Door", "--host", "a~b"), "--host: use 1 to 100 of the characters"),
        (("--app", "cli_shop:Door", "--processes", "0"), "--processes: must be a whole number from 1 to 500, or auto"),
        (("--app", "cli_shop:Door", "--shutdown-timeout", "0"), "--shutdown-timeout: '0' is not between 1s and 24h"),
        (("--app", "cli_shop:Door", "--effects-queue", "fsm"), "--effects-queue: 'fsm' carries events"),
        (("--app", "cli_shop:Door", "--effects-queue", "a\nb"), "--effects-queue: 'a\\nb' is no name"),
    ],
)
def test_wrong_options_are_told_before_anything_is_done(fsm: Run, arguments: tuple[str, ...], text: str) -> None:
    done = fsm("worker", *arguments)

    assert done.exit_code == 2
    assert text in done.stderr
    assert FakeWorker.made == {}


@pytest.mark.parametrize("package", ["workers/__init__.py", "workers.py", "fsm/__init__.py", "fsm.py"])
def test_a_users_package_of_our_name_is_refused(fsm: Run, package: str) -> None:
    path = Path(package)
    path.parent.mkdir(exist_ok=True)
    path.write_text("", encoding="utf-8")

    done = fsm("worker", "--app", "cli_shop:Door")

    assert done.exit_code == 2
    assert f"{path.absolute()} has the name of ours" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("There exists an active worker named 'joe' already"), 2, "--name: 'joe' is in use"),
        (redis.ConnectionError("Error 111 refused"), 1, "Redis at redis://localhost:6379/0 cannot be reached"),
        (unplaced(redis.ConnectionError("Error 111 refused")), 1, "Redis at redis://localhost:6379/0 cannot be"),
        (StoreError("Redis at x has version 5: use Redis 6.2"), 1, "fsm: Redis at x has version 5"),
    ],
)
def test_a_worker_that_cannot_begin_says_why(
    fsm: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str
) -> None:
    monkeypatch.setattr(FakeWorker, "ends", error)

    done = fsm("worker", "--app", "cli_shop:Door", "--name", "joe")

    assert done.exit_code == code
    assert text in done.stderr
    assert "Traceback" not in done.output


def test_a_worker_that_nobody_asked_to_end_has_failed(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorker, "is_asked_to_end", False)

    done = fsm("worker", "--app", "cli_shop:Door")

    assert done.exit_code == 1
    assert "ended without being asked to" in done.stderr
    assert fsm("worker", "--app", "cli_shop:Door", "--burst").exit_code == 0


def test_a_signal_while_it_starts_ends_it_cleanly(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(FakeWorker, "ends", SystemExit())

    done = fsm("worker", "--app", "cli_shop:Door")

    assert done.exit_code == 0
    assert FakeWorker.made["is_torn_down"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("shop")
def test_an_effects_worker_is_kept_beside_it_to_its_end(fsm: Run) -> None:
    fsm("worker", "--app", "cli_shop:Door", "--name", "joe", "--log-level", "error")

    made = ["redis://localhost:6379/0", ("fsm-effects",), "joe", "error", "edge-7", 1]
    assert FakeEffects.made == [*made, "start", "end"]


@pytest.mark.usefixtures("shop")
def test_an_effects_worker_serves_the_queues_that_it_is_told(fsm: Run) -> None:
    fsm("worker", "--app", "cli_shop:Door", "--effects-queue", "b", "--effects-queue", "a", "--effects-queue", "b")

    assert FakeEffects.made[1] == ("b", "a")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("option", ["--no-effects", "--burst", "--effects=0"])
def test_there_is_no_effects_worker_where_none_is_wanted(fsm: Run, option: str) -> None:
    assert fsm("worker", "--app", "cli_shop:Door", option).exit_code == 0

    assert FakeEffects.made == []


@pytest.mark.usefixtures("shop")
def test_there_are_as_many_effects_workers_as_are_wanted_on_the_host_that_is_told(fsm: Run) -> None:
    assert fsm("worker", "--app", "cli_shop:Door", "--effects", "3", "--host", "shop-1").exit_code == 0

    assert FakeEffects.made[4:6] == ["shop-1", 3]
    assert FakeWorker.made["host"] == "shop-1"


@pytest.mark.usefixtures("shop")
def test_a_worker_that_is_hurried_waits_for_no_effect(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorker, "is_hurried", True)

    fsm("worker", "--app", "cli_shop:Door")

    assert FakeEffects.made[6:] == ["start", "kill", "end"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("way", ["faults", "ends"])
def test_a_worker_that_fails_waits_for_no_effect(fsm: Run, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(FakeWorker, way, StoreError("it broke"))

    assert fsm("worker", "--app", "cli_shop:Door").exit_code == 1

    assert FakeEffects.made[6:] == ["start", "leave"]


def test_a_host_gives_its_workers_what_it_was_given_and_the_url_where_nobody_sees_it(
    fsm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not imported here: what an application does at import, its workers do.
    options = ("--url", "redis://:secret@somewhere", "--namespace", "shop", "--app", "cli_missing", "--queue", "b")
    monkeypatch.setenv("FSM_PROCESSES", "3")

    done = fsm("worker", *options, "--queue", "a", "--lease", "1m", "--shutdown-timeout", "5", "--effects-queue", "e")

    assert done.exit_code == 0, done.output
    assert FakeHost.made == {
        "url": "redis://:secret@somewhere",
        "namespace": "shop",
        "options": [
            *("--namespace", "shop", "--app", "cli_missing", "--batch", "128", "--lease", "60000ms"),
            *("--concurrency", "1", "--host", "edge-7"),
            *("--shutdown-timeout", "5000ms", "--log-level", "info"),
            *("--queue", "b", "--queue", "a", "--effects-queue", "e"),
        ],
        "count": 3,
        "name": "",
        "host": "edge-7",
        "is_burst": False,
        "shutdown_s": 5.0,
        "effects": 1,
    }
    assert FakeWorker.made == {}
    assert FakeEffects.made[1:3] == [("e",), "host"]


@pytest.mark.usefixtures("shop")
def test_a_worker_of_a_host_is_no_host(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSM_PROCESSES", "3")
    monkeypatch.setattr("workers.command.end_with_parent", lambda _is_asked: None)

    assert fsm("worker", "--app", "cli_shop:Door", "--child", "--no-effects").exit_code == 0

    assert FakeHost.made == {}
    assert FakeWorker.made["machines"] == ["Door"]


def test_a_host_ends_as_its_workers_do(fsm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeHost, "code", 1)

    done = fsm("worker", "--app", "cli_shop:Door", "--processes", "auto", "--burst")

    assert done.exit_code == 1
    assert FakeHost.made["count"] >= 1
    assert FakeHost.made["is_burst"]
    assert not FakeHost.made["effects"]
