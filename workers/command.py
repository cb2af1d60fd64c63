"""`fsm worker`: options, checks, logging, and the end of a worker process.

Who calls this: `fsm.cli`, which looks it up by name, and `python -m workers` by way of it.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
import redis

import fsm
from fsm import config
from fsm.app import load
from fsm.cli.place import placed
from fsm.errors import ConfigError, StoreError
from fsm.machine.settings import EFFECTS_QUEUE
from fsm.store.connection import explain
from fsm.store.keys import Keys, default_queue
from workers.countdown import Countdown
from workers.lifeline import end_with_parent
from workers.stderr import log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from fsm.app import App
    from fsm.cli.place import Place
    from workers.worker import TransitionWorker

__all__ = ["worker"]

_log = logging.getLogger("fsm.worker")
_STDERR = 2


@click.command()
@click.option(
    "--queue",
    "queues",
    metavar="NAME",
    multiple=True,
    help="Serve this queue; several in order.  [FSM_QUEUES, else [tool.fsm], else those of --app]",
)
@click.option("--burst", "is_burst", is_flag=True, help="End when nothing waits.")
@click.option(
    "--batch",
    type=click.IntRange(1, config.LARGEST_BATCH),
    help="Most FSMs in one claim.  [FSM_BATCH, else [tool.fsm], else 128]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, config.MOST_CONCURRENT),
    metavar="N",
    help="Run handlers of so many FSMs side by side.  [FSM_CONCURRENCY, else [tool.fsm], else 1]",
)
@click.option(
    "--lease", metavar="TIME", help="How long locks outlive a dead worker.  [FSM_LEASE, else [tool.fsm], else 15s]"
)
@click.option(
    "--effects",
    metavar="M",
    help="Run effects in so many processes beside this one; not with --burst.  [FSM_EFFECTS, else [tool.fsm], else 1]",
)
@click.option("--no-effects", "has_no_effects", is_flag=True, help="The same as --effects 0.")
@click.option(
    "--effects-queue",
    "effects_queues",
    metavar="NAME",
    multiple=True,
    help="Run effects of this queue; several in order.  [fsm-effects]",
)
@click.option(
    "--host",
    metavar="NAME",
    help="Belong to this host.  [FSM_HOST, else [tool.fsm], else the name of the machine]",
)
@click.option(
    "--processes",
    metavar="N",
    help="Run so many workers, and start one anew that dies; auto: one a core.  "
    "[FSM_PROCESSES, else [tool.fsm], else be the worker]",
)
@click.option(
    "--shutdown-timeout",
    metavar="TIME",
    help="How long it may take to end.  [FSM_SHUTDOWN_TIMEOUT, else [tool.fsm], else 30s]",
)
@click.option("--name", metavar="NAME", help="Unique among living workers.  [drawn]")
@click.option(
    "--log-level",
    type=click.Choice(config.LOG_LEVELS),
    help="What is written to stderr.  [FSM_LOG_LEVEL, else [tool.fsm], else info]",
)
# One of the processes of --processes: it ends with the one that started it.
@click.option("--child", "is_child", is_flag=True, hidden=True)
@placed
def worker(  # noqa: PLR0913 - one parameter an option
    place: Place,
    *,
    queues: tuple[str, ...],
    is_burst: bool,
    batch: int | None,
    concurrency: int | None,
    lease: str | None,
    effects: str | None,
    has_no_effects: bool,
    effects_queues: tuple[str, ...],
    host: str | None,
    processes: str | None,
    shutdown_timeout: str | None,
    name: str | None,
    log_level: str | None,
    is_child: bool,
) -> None:
    """Run FSMs of an application until SIGTERM or Ctrl-C.

    Then it finishes what it has in hand, gives back the rest, and ends with exit code 0. A second signal, or the end of
    the shutdown time-out, ends it at once; what it held goes on elsewhere.
    """
    _check_packages()
    lease_ms = config.resolve("lease", lease)
    most = config.resolve("batch", batch)
    slots = config.resolve("concurrency", concurrency)
    level = config.resolve("log_level", log_level)
    named = config.resolve("queues", queues or None)
    beside = config.resolve("effects", "off" if has_no_effects else effects)
    called = config.resolve("host", host)
    shutdown_ms = config.resolve("shutdown_timeout", shutdown_timeout)
    count = None if is_child else config.resolve("processes", processes)
    config.resolve("effects_allow")  # read by the process beside this one, and told here where it is wrong
    namespace = config.check_namespace(config.resolve("namespace", place.namespace))
    path = config.resolve("app", place.app)
    if not path:
        raise ConfigError("--app", "a worker must know its machines: use --app MODULE, FSM_APP or [tool.fsm] app")
    log_to_stderr(level, (name or "") if is_child else "")
    if count is not None:
        # What needs the application is checked by those who import it.
        options = ["--namespace", namespace, "--app", path, "--batch", str(most), "--lease", f"{lease_ms}ms"]
        options += ["--concurrency", str(slots), "--host", called]
        options += ["--shutdown-timeout", f"{shutdown_ms}ms", "--log-level", level, *(["--burst"] if is_burst else [])]
        options += [word for queue in named for word in ("--queue", queue)]
        options += [word for queue in effects_queues for word in ("--effects-queue", queue)]
        _host(
            config.resolve("url", place.url),
            options,
            count,
            namespace=namespace,
            name=name or "",
            host=called,
            is_burst=is_burst,
            effects=_Effects(0 if is_burst else beside, _effects_queues(effects_queues, named)),
            shutdown_s=shutdown_ms / 1000,
            log_level=level,
        )
        return
    app = load(path)
    served = list(named) or app.queues(default_queue(namespace))
    _run(
        app,
        place.url,
        served,
        namespace=namespace,
        lease_ms=lease_ms,
        batch=most,
        concurrency=slots,
        name=name or "",
        host=called,
        is_burst=is_burst,
        effects=_Effects(0 if is_burst else beside, _effects_queues(effects_queues, served)),
        shutdown_s=shutdown_ms / 1000,
        is_child=is_child,
        log_level=level,
    )


@dataclass(frozen=True, slots=True)
class _Effects:
    """What runs effects beside a worker: so many processes, for these queues."""

    count: int
    queues: Sequence[str]


def _host(  # noqa: PLR0913 - all that a host is made of
    url: str,
    options: list[str],
    count: int,
    *,
    namespace: str,
    name: str,
    host: str,
    is_burst: bool,
    effects: _Effects,
    shutdown_s: float,
    log_level: str,
) -> None:
    """Keep so many workers until they end."""
    from workers.effects import EffectsCrew  # noqa: PLC0415 - RQ is slow to import, and wrong options are told before
    from workers.host import Host  # noqa: PLC0415 - as above

    keeper = Host(url, Keys(namespace), options, count, name=name, host=host, is_burst=is_burst, shutdown_s=shutdown_s)
    beside = EffectsCrew(effects.count, url, effects.queues, keeper.name, host, keeper.bury_effects, log_level)
    code = keeper.run(beside)
    if code:
        raise SystemExit(code)


def _run(  # noqa: C901, PLR0913 - all that a worker is made of, and each way in which it ends
    app: App,
    url: str | None,
    queues: list[str],
    *,
    namespace: str,
    lease_ms: int,
    batch: int,
    concurrency: int,
    name: str,
    host: str,
    is_burst: bool,
    effects: _Effects,
    shutdown_s: float,
    is_child: bool,
    log_level: str,
) -> None:
    """Be a worker until it ends."""
    # RQ is slow to import, and wrong options are told before.
    from workers.worker import TransitionWorker  # noqa: PLC0415

    resolved = config.resolve("url", url)
    early = _EarlyEnd()
    before = {number: signal.signal(number, early) for number in (signal.SIGTERM, signal.SIGINT)}
    process: TransitionWorker | None = None
    countdown = Countdown(shutdown_s, lambda: None if process is None else process.give_back_at_once())
    try:
        _listen(countdown, is_child=is_child)
        process = TransitionWorker(
            app,
            url,
            queues,
            namespace=namespace,
            lease_ms=lease_ms,
            batch=batch,
            concurrency=concurrency,
            name=name,
            host=host,
        )
        _log.info(
            "worker %s serves %s of namespace %s: machines %s",
            process.name,
            ", ".join(queues),
            namespace,
            ", ".join(sorted(definition.name for definition in app.definitions)),
        )
        process.heeds_drain = not is_child
        # Before anything of ours is registered, the worker for effects too.
        process.open_app()
        early.check()
        # What RQ has to say at "info", we say ourselves.
        with _effects_beside(process, resolved, effects, log_level):
            process.work(burst=is_burst, logging_level="DEBUG" if log_level == "debug" else "WARNING")
    except _EndedEarlyError:
        if process is not None and process.birth_date is not None:
            process.teardown()
        raise
    except RuntimeError:
        # What `threading` says where a signal has broken off the start of a thread.
        early.check()
        raise
    except (redis.RedisError, StoreError) as error:
        # The worker's own requests do not know at which URL they failed.
        cause = error if isinstance(error, redis.RedisError) else error.__cause__
        if not isinstance(cause, redis.RedisError):
            raise
        raise explain(cause, resolved) from error
    except ValueError as error:
        if "active worker" not in str(error):
            raise
        problem = f"{name!r} is in use by a worker that lives, or died within the last minutes: choose another name"
        raise ConfigError("--name", problem) from error
    finally:
        app.close()  # it is closed at the teardown, which there was none of if no worker was born
        if process is not None:
            process.connection.close()
        countdown.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    if process.fault is not None or (not is_burst and not process._stop_requested):  # noqa: SLF001 - RQ says it nowhere else
        raise StoreError(f"worker {process.name} ended without being asked to: its log says why; start it again")
    _log.info("worker %s has ended", process.name)


def _listen(countdown: Countdown, *, is_child: bool) -> None:
    """Hear of signals and of the parent's end; and have a crash say where it was, also one that a host asks for."""
    if not faulthandler.is_enabled():
        faulthandler.enable(file=_STDERR)
    countdown.start()
    if is_child:
        end_with_parent(lambda: countdown.is_asked)


@contextmanager
def _effects_beside(process: TransitionWorker, url: str, effects: _Effects, level: str) -> Iterator[None]:
    """Keep workers for effects beside ours; at the end they finish what is in hand, unless a signal hurries them.

    Where ours ends by a fault, nobody waits for them: whoever starts us anew need not wait for a long effect.
    """
    if not effects.count:
        yield
        return
    from workers.effects import EffectsCrew  # noqa: PLC0415 - as above

    beside = EffectsCrew(
        effects.count, url, effects.queues, process.name, process.hostname or "", process.watch.bury, level
    )
    process.at_stop = beside.ask
    beside.start()
    is_asked_to_end = False
    try:
        yield
        is_asked_to_end = process.fault is None
    except SystemExit:
        is_asked_to_end = True
        raise
    finally:
        if is_asked_to_end:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: beside.kill())
            if process.is_forced:
                beside.kill()
            beside.end()
        else:
            beside.leave()


class _EndedEarlyError(SystemExit):
    """Raised by a signal that comes before RQ's own handlers are there: what was registered is taken back."""


class _EarlyEnd:
    """What SIGTERM and Ctrl-C do to a worker that is still starting: it ends."""

    def __init__(self) -> None:
        self._is_asked = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_asked = True
        raise _EndedEarlyError(0)

    def check(self) -> None:
        """End where a signal was heard in a place from which nothing can be raised, such as a `__del__`."""
        if self._is_asked:
            raise _EndedEarlyError(0)


def _check_packages() -> None:
    """Refuse to run where a user's own package hides ours or is hidden by it.

    Raises:
        ConfigError: There is one; jobs name `workers.jobs`, and what that imports must not depend on where one stands.
    """
    ours = Path(__file__).resolve().parent.parent
    for package, loaded in (("fsm", fsm.__file__), ("workers", _origin("workers"))):
        if loaded is None or Path(loaded).resolve().parent != ours / package:
            raise ConfigError(f"package {package!r}", f"{loaded} hides ours ({ours / package}): rename yours")
        here = Path.cwd()
        for theirs in (here / package / "__init__.py", here / f"{package}.py"):
            if theirs.is_file() and theirs.resolve().parent != ours / package:
                problem = f"{theirs} has the name of ours and hides it or is hidden: rename it"
                raise ConfigError(f"package {package!r}", problem)


def _origin(package: str) -> str | None:
    spec = find_spec(package)
    return spec.origin if spec else None


def _effects_queues(wanted: Sequence[str], served: Sequence[str]) -> tuple[str, ...]:
    """Give the queues of effects, each once.

    Raises:
        ConfigError: One of them is no name of a queue, or carries the events that this worker serves.
    """
    queues = tuple(dict.fromkeys(wanted)) or (EFFECTS_QUEUE,)
    for queue in queues:
        if not queue or not queue.isprintable():
            raise ConfigError("--effects-queue", f"{queue!r} is no name of a queue: printable text")
        if queue in served:
            raise ConfigError("--effects-queue", f"{queue!r} carries events of FSMs: effects have queues of their own")
    return queues
