"""`python -m examples.dpkg`: replay a dpkg.log through the FSMs of its packages, with workers of its own.

    --log PATH     the log, also gzipped; by default the sample that lies beside this file
    --url URL      Redis; without it one is started in a temporary directory for the length of the run
    --workers N    worker processes, 2 by default
    --json         print nothing but the result on stdout

The last line is the result as JSON: packages, transitions (status lines), failed, refused, mismatches, seconds. Exit
code 0: every package is in the state of its last line and nothing failed or was refused; 1: it is not so, or it could
not be brought to its end; 2: wrong use; 128 + n: ended by signal n.

Who calls this: `make demo`, and people.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from examples.dpkg.display import Display
from examples.dpkg.log import LogError, read
from examples.dpkg.processes import Workers
from examples.dpkg.replay import Replay
from fsm import Client, ConfigError, FSMError
from fsm.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType

    from examples.dpkg.log import StatusLine
    from examples.dpkg.replay import Report, Standing

_SAMPLE = Path(__file__).with_name("dpkg.log")
_PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _StuckError(Exception):
    """The replay does not go on; the text says why."""


class _Stopped(BaseException):
    """A signal asked us to end."""


class _Watch:
    """Looks at a replay now and then: shows it, and notices when it does not go on.

    Args:
        replay: What is watched.
        workers: Those who do it.
        display: Where it is shown.
        patience: Seconds without progress before it is given up.
    """

    def __init__(self, replay: Replay, workers: Workers, display: Display, patience: float) -> None:
        self._replay = replay
        self._workers = workers
        self._display = display
        self._patience = patience
        self._seen = (0, 0)
        self._moved_at = self._looked_at = time.monotonic()

    def glance(self) -> None:
        """Look, unless that was just now."""
        if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self.look()

    def look(self) -> Standing:
        """Look and show.

        Raises:
            _StuckError: No progress for too long, or no worker is left.
        """
        standing = self._replay.look()
        now = self._looked_at = time.monotonic()
        for death in self._workers.deaths():
            self._display.tell(death)
        if (standing.sent, standing.applied) != self._seen:
            self._seen, self._moved_at = (standing.sent, standing.applied), now
        self._display.show(standing, is_last=standing.is_settled)
        if not standing.is_settled:
            waiting = f"{standing.sent - standing.applied} of {standing.sent} status lines wait"
            if not self._workers.pids:
                problem = f"no worker is left, and {waiting}: see above what they died of"
                raise _StuckError(problem)
            if now - self._moved_at > self._patience:
                problem = f"no progress for {self._patience:g} s, and {waiting}: is Redis or this computer overloaded?"
                raise _StuckError(problem)
        return standing

    def until_settled(self) -> None:
        """Wait until all that was sent has been served.

        Raises:
            _StuckError: As `look`.
        """
        while not self.look().is_settled:
            time.sleep(_LOOK_EVERY_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; gives the exit code."""
    options = _options(arguments)
    for number in _SIGNALS:
        signal.signal(number, _stop)
    try:
        lines = _opened(options.log)
        with Display(sys.stderr if options.json else sys.stdout) as display:
            report, problem, seconds = _run(options, lines, display)
        for text in [*report.told, *([problem] if problem else [])]:
            print(text, file=sys.stderr)
        print(json.dumps(_result(report, seconds)), flush=True)
    except _Stopped as stopped:
        print("stopped; workers and server have ended", file=sys.stderr)
        return 128 + int(stopped.args[0])
    except (LogError, ConfigError) as error:
        print(f"examples.dpkg: {error}", file=sys.stderr)
        return 2
    except FSMError as error:
        print(f"examples.dpkg: {error}", file=sys.stderr)
        return 1
    return 0 if report.is_good and not problem else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.dpkg",
        description="Replay a dpkg.log: every package is an FSM, every status line an event.",
    )
    parser.add_argument("--log", type=Path, default=_SAMPLE, metavar="PATH", help="also gzipped; by default a sample")
    parser.add_argument("--url", metavar="URL", help="Redis; by default one is started in a temporary directory")
    parser.add_argument("--workers", type=_whole, default=2, metavar="N", help="worker processes (2)")
    parser.add_argument("--json", action="store_true", help="nothing but the result on stdout, as JSON")
    parser.add_argument(
        "--patience",
        type=float,
        default=_PATIENCE_S,
        metavar="S",
        help="give up after so many seconds of no progress (60)",
    )
    return parser.parse_args(arguments)


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        problem = f"at least 1, not {number}"
        raise argparse.ArgumentTypeError(problem)
    return number


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """End in order, once: what is being cleared away must not be interrupted by an impatient second Ctrl-C."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise _Stopped(number)


def _opened(path: Path) -> Iterator[StatusLine]:
    """Begin to read, so that a wrong path is noticed before anything is started."""
    lines = read(path)
    first = list(itertools.islice(lines, 1))
    return itertools.chain(first, lines)


def _run(options: argparse.Namespace, lines: Iterable[StatusLine], display: Display) -> tuple[Report, str, float]:
    """Start what is needed, replay, and clear away; gives the report, what kept it from its end, and the seconds."""
    namespace = f"dpkg-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        url = options.url or stack.enter_context(EmbeddedServer()).url
        client = stack.enter_context(Client(url, namespace=namespace))
        client.counts()  # an unreachable Redis is noticed here, not by the workers
        replay = Replay(client)
        if options.url:
            stack.callback(_leave, replay, display, namespace)
        workers = stack.enter_context(Workers(options.workers, url, namespace))
        watch = _Watch(replay, workers, display, options.patience)
        problem = ""
        begin = time.monotonic()
        try:
            replay.feed(lines, watch.glance)
            watch.until_settled()
        except _StuckError as error:
            problem = str(error)
        return replay.report(), problem, time.monotonic() - begin


def _leave(replay: Replay, display: Display, namespace: str) -> None:
    """Clear away what we wrote into a Redis that is not ours; what went wrong there is left to be looked at."""
    try:
        if replay.is_worth_keeping:
            display.tell(f"left in Redis for you to look at: fsm --namespace {namespace} ls")
        else:
            replay.sweep()
    except FSMError as error:
        display.tell(f"namespace {namespace} could not be cleared away: {error}")


def _result(report: Report, seconds: float) -> dict[str, int | float]:
    return {
        "packages": report.packages,
        "transitions": report.transitions,
        "failed": report.failed,
        "refused": report.refused,
        "mismatches": report.mismatches,
        "seconds": round(seconds, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
