"""The workers for effects: RQ's, in processes beside ours, so that a long effect never holds an FSM.

`EffectsProcess` starts one, starts it anew when it dies, and ends it; `EffectsCrew` keeps several of them; `main` is
what runs in each. It ends by itself, in order, when the process that started it is gone: the pipe to its standard input
closes then, whatever happened.

Who calls this: `fsm worker`.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from rq import Queue
from rq.serializers import JSONSerializer

from fsm import config
from fsm.store.connection import connect
from workers.lifeline import end_with_parent
from workers.runner import EffectsWorker, job_class

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rq import Worker

__all__ = ["EffectsCrew", "EffectsProcess", "main"]

_log = logging.getLogger("fsm.effects")
# RQ writes that a job lives so often, and takes it for abandoned 60 s after: 65 s, where its default is 90.
_MONITOR_S = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# One that lived for so long is started anew at once.
_LIVED_S = 60.0
# What was told to end at once has so long to do it.
_AT_ONCE_S = 2.0


class EffectsProcess:
    """Keeps one process with RQ's worker alive.

    Args:
        url: Of Redis; it is handed over in the environment, where nobody sees its password.
        queues: Queues of effects, in order of preference.
        name: Name of the worker that starts it: those of its workers begin with it.
        host: Name of the host that they belong to.
        bury: Told the name of each that died, and these queues.
        level: Of its log.
    """

    def __init__(  # noqa: PLR0913 - what it is told of the worker that starts it
        self,
        url: str,
        queues: Sequence[str],
        name: str,
        host: str,
        bury: Callable[[str, Sequence[str]], None],
        level: str = "info",
    ) -> None:
        self._environment = {**os.environ, "FSM_URL": url, "FSM_HOST": host}
        self._queues = tuple(queues)
        self._name = name
        self._bury = bury
        self._level = level
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ending = threading.Event()
        # Taken again by a signal's handler, in the thread that has it.
        self._guard = threading.RLock()
        self._thread = threading.Thread(target=self._keep, name="fsm-effects", daemon=True)
        self._child_name = ""

    @property
    def pid(self) -> int | None:
        """Process id of the one that runs now."""
        return None if self._child is None else self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or is to be started anew."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the process, and a thread that starts it anew when it dies."""
        self._spawn()
        self._thread.start()

    def ask(self) -> None:
        """Ask it to end after the effect that it has in hand: once, since a second time would be haste."""
        if not self._is_ending.is_set():
            self._is_ending.set()
            self._signal(signal.SIGTERM)

    def end(self) -> None:
        """Ask it to end after the effect that it has in hand, and wait for that."""
        self.ask()
        if self._thread.is_alive():
            self._thread.join()

    def leave(self) -> None:
        """Let it end by itself, in order, when this process is gone; until then it is not started anew."""
        self._is_ending.set()

    def kill(self) -> None:
        """End it at once, with the effect that it has in hand, which is run again elsewhere."""
        self._is_ending.set()
        self._signal(signal.SIGQUIT)
        last = threading.Timer(_AT_ONCE_S, self._signal, [signal.SIGKILL])
        last.daemon = True
        last.start()

    def _signal(self, number: int) -> None:
        with self._guard:
            if self._child is not None and self._child.poll() is None:
                self._child.send_signal(number)

    def _spawn(self) -> None:
        # No two have one name, also where the worker that starts them has the name of one that died: RQ would refuse
        # it, and what the former still has in hand would be taken for that of a dead one.
        self._child_name = f"{self._name}-effects-{secrets.token_hex(2)}"
        command = [sys.executable, "-m", "workers.effects", "--name", self._child_name, "--log-level", self._level]
        for queue in self._queues:
            command += ["--queue", queue]
        with self._guard:
            if not self._is_ending.is_set():
                # Apart from our terminal, so that Ctrl-C reaches it once, by us: a second one is RQ's cold stop.
                self._child = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
                    command, env=self._environment, stdin=subprocess.PIPE, start_new_session=True
                )

    def _keep(self) -> None:
        pause = _FIRST_PAUSE_S
        while self._child is not None:
            child, begin = self._child, time.monotonic()
            code = child.wait()
            if child.stdin is not None:
                child.stdin.close()
            if self._is_ending.is_set():
                return
            self._bury(self._child_name, self._queues)
            pause = _FIRST_PAUSE_S if time.monotonic() - begin > _LIVED_S else min(2 * pause, _LONGEST_PAUSE_S)
            _log.warning(
                "effects worker %s ended with code %d; another one starts in %.1f s", self._child_name, code, pause
            )
            if not self._spawn_after(pause):
                return

    def _spawn_after(self, pause: float) -> bool:
        """Start another process after a pause; `False` where none is wanted any more."""
        while not self._is_ending.wait(pause):
            try:
                self._spawn()
            except OSError as error:
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                _log.warning("no effects worker can be started, the next try is in %.1f s: %s", pause, error)
            else:
                return True
        return False


class EffectsCrew:
    """Keeps so many processes for effects, which are asked and waited for together.

    Args:
        count: How many, 0 too.
        url: Of Redis, and all further ones: as `EffectsProcess` has them.
        queues: As above.
        name: As above.
        host: As above.
        bury: As above.
        level: As above.
    """

    def __init__(  # noqa: PLR0913 - as above
        self,
        count: int,
        url: str,
        queues: Sequence[str],
        name: str,
        host: str,
        bury: Callable[[str, Sequence[str]], None],
        level: str = "info",
    ) -> None:
        self._members = [EffectsProcess(url, queues, name, host, bury, level) for _ in range(count)]

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run now."""
        return [member.pid for member in self._members if member.pid is not None]

    @property
    def is_alive(self) -> bool:
        """Whether one of them runs, or is to be started anew."""
        return any(member.is_alive for member in self._members)

    def start(self) -> None:
        """Start them."""
        for member in self._members:
            member.start()

    def ask(self) -> None:
        """Ask each to end after the effect that it has in hand."""
        for member in self._members:
            member.ask()

    def end(self) -> None:
        """Ask all to end after the effects that they have in hand, and wait for that."""
        self.ask()
        for member in self._members:
            member.end()

    def leave(self) -> None:
        """Let them end by themselves, in order, when this process is gone."""
        for member in self._members:
            member.leave()

    def kill(self) -> None:
        """End all at once, with the effects that they have in hand, which are run again elsewhere."""
        for member in self._members:
            member.kill()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run RQ's worker until SIGTERM, or until the process that started this one is gone."""
    parser = argparse.ArgumentParser(prog="python -m workers.effects", description="Run RQ's own worker for effects.")
    parser.add_argument("--name", help="unique among living workers")
    parser.add_argument("--queue", action="append", required=True, help="serve this queue; several in order")
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    # Not asked anything here: RQ sets its own time-outs, on connections that are opened after that.
    connection = connect(check=False)
    job = job_class(config.resolve("effects_allow"))
    worker = EffectsWorker(
        [Queue(name, connection=connection, serializer=JSONSerializer, job_class=job) for name in options.queue],
        name=options.name,
        connection=connection,
        serializer=JSONSerializer,
        job_class=job,
        job_monitoring_interval=_MONITOR_S,
    )
    # RQ's own word for it would be the name of the machine.
    worker.hostname = config.resolve("host")
    signal.signal(signal.SIGQUIT, lambda *_: _end_at_once(worker))
    end_with_parent(lambda: worker._stop_requested or worker._shutdown_requested_date is not None)  # noqa: SLF001 - RQ says it nowhere else
    worker.work(logging_level="DEBUG" if options.log_level == "debug" else "WARNING")


def _end_at_once(worker: Worker) -> None:
    """End without a word, and take down the process that runs an effect: RQ's own cold stop needs a second before."""
    if worker.horse_pid:
        worker.kill_horse()
    os._exit(1)


if __name__ == "__main__":
    # As in `fsm.cli`: Python's last look for garbage takes longer than all else that it does to end.
    atexit.register(gc.freeze)
    main()
