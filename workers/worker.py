"""The worker: an RQ worker that takes FSMs in batches instead of jobs one by one.

RQ's `BaseWorker` gives birth, death, heartbeat, suspension, commands, signals and its work loop. We replace how work is
taken (`dequeue_job_and_maintain_ttl`: claim, or sleep until something is there) and how it is done (`execute_job`: run
the events of each FSM, commit many FSMs at once).

A turn: claim up to a batch of FSMs -> run each -> commit what is done, at the latest 10 ms later -> give back what
would take too long. A batch is as large as about 20 ms of work, by what handlers were measured to take.

Who calls this: `python -m workers`, `fsm worker`, RQ's worker pool.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import BusyLoadingError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus

from fsm.errors import StoreError
from fsm.store import calls, commits
from fsm.store.connection import connect
from fsm.store.keys import Keys
from fsm.store.requests import Request, run
from fsm.verbs import announce
from workers.activation import Activation
from workers.executors import InlineExecutor
from workers.lease import LeaseKeeper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from fsm.app import App
    from fsm.store.calls import Claimed, Claims

__all__ = ["DEFAULT_BATCH", "DEFAULT_LEASE_MS", "TransitionWorker", "worker_name"]

R = TypeVar("R")
_log = logging.getLogger("fsm.worker")

DEFAULT_LEASE_MS = 15_000
DEFAULT_BATCH = 128
# Work that is claimed ahead, and how long what is done may wait for its neighbours, in seconds.
_AHEAD_S = 0.020
_COMMIT_WITHIN_S = 0.010
# An idle worker looks at `ready` this often, in case RQ's list was emptied behind its back.
_SLEEP_S = 1
_BEAT_S = 5.0
_SUSPENSION_CHECK_S = 0.5
# A worker that was not seen for this long is dead: six heartbeats.
_DEAD_AFTER_MS = 30_000
_TRANSIENT = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError)


def worker_name(host: str = "") -> str:
    """Draw a name that tells host and process, and is unique."""
    host = (host or socket.gethostname()).replace("/", "-")
    return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"


class TransitionWorker(BaseWorker):
    """Claims FSMs that have mail, runs their events, commits them.

    Args:
        app: The machines that this worker knows.
        url: Redis; `None` as in `fsm.store.connection.connect`.
        queues: Names of queues, in order of preference.
        namespace: The world of FSMs.
        lease_ms: How long a lock lasts if this worker dies.
        batch: Most FSMs in one claim.
        name: Unique; drawn when not given.
    """

    def __init__(  # noqa: PLR0913 - one keyword an option of `fsm worker`
        self,
        app: App,
        url: str | None,
        queues: Sequence[str],
        *,
        namespace: str = "default",
        lease_ms: int = DEFAULT_LEASE_MS,
        batch: int = DEFAULT_BATCH,
        name: str = "",
    ) -> None:
        self._client = connect(url)
        super().__init__(
            [Queue(queue, connection=self._client, serializer=JSONSerializer) for queue in queues],
            name=name or worker_name(),
            connection=self._client,
            serializer=JSONSerializer,
        )
        self.app = app
        self.keys = Keys(namespace)
        self._lease_ms = lease_ms
        self._batch = batch
        self._executor = InlineExecutor()
        self._keeper = LeaseKeeper(
            lambda: connect(url, check=False), self.keys, self.name, lease_ms, self._beat_while_busy
        )
        # Numbers grow also over a restart under the same name: the last verdicts of the former life are not ours.
        self._number = time.time_ns() // 1000
        self._seconds_per_fsm = _AHEAD_S / batch
        self._beaten_at = 0.0
        self._suspension_checked_at = 0.0
        self._recovered_at = 0.0
        self._is_sleeping = False
        self._found: list[str] = []
        self._reported: set[str] = set()
        self._counted = [0, 0, 0.0]

    # What RQ does, done in our way.

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """Keep our time-outs: RQ would wait 415 s for a reply, and we never block for longer than a second."""
        return connection

    def _shutdown(self) -> None:
        """Ask the loop to stop; RQ would raise in the middle of whatever is going on, a claim for instance.

        A sleeper is woken: what Redis may have put into its hand just now goes back at the teardown.
        """
        self._stop_requested = True
        if self._is_sleeping:
            raise StopRequested

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Tell RQ, and our own registry, that this worker lives; at most every 5 s, since a turn takes some ms."""
        now = time.monotonic()
        if pipeline is not None or timeout is not None:
            super().heartbeat(timeout, pipeline)
        elif now - self._beaten_at >= _BEAT_S:
            self._beaten_at = now
            self._beat(self._client)

    def _beat(self, client: redis.Redis) -> None:
        done, failed, worked = self._counted
        self._counted = [0, 0, 0.0]
        with client.pipeline(transaction=False) as pipeline:
            super().heartbeat(pipeline=pipeline)
            if done:
                pipeline.hincrby(self.key, "successful_job_count", int(done))
            if failed:
                pipeline.hincrby(self.key, "failed_job_count", int(failed))
            if worked:
                pipeline.hincrbyfloat(self.key, "total_working_time", worked)
            pipeline.zadd(self.keys.workers, {self.name: int(time.time() * 1000)})
            pipeline.execute()

    def _beat_while_busy(self) -> None:
        """Beat from the keeper's thread while a handler runs for long; redis-py's pool serves both threads."""
        if time.monotonic() - self._beaten_at >= 2 * _BEAT_S:
            self._beaten_at = time.monotonic()
            self._beat(self._client)

    def check_for_suspension(self, burst: bool) -> None:  # noqa: FBT001 - RQ's signature
        """Obey `rq suspend`; asked twice a second, not at every turn."""
        if time.monotonic() - self._suspension_checked_at >= _SUSPENSION_CHECK_S:
            super().check_for_suspension(burst)
            self._suspension_checked_at = time.monotonic()

    def register_birth(self) -> None:
        """Register with RQ, announce our machines, and begin to keep locks."""
        super().register_birth()
        self._announce()
        self._beat(self._client)
        self._keeper.start()

    def teardown(self) -> None:
        """Give back what is held, and register the death."""
        self._keeper.stop()
        held = self._keeper.held()
        try:
            if held:
                run(self._client, calls.release(self.keys, self.name, held))
            run(self._client, calls.recover(self.keys, [self.name]))
            self._beat(self._client)
            self._client.zrem(self.keys.workers, self.name)
            super().teardown()
        finally:
            self._executor.close()
            self.app.close()

    def _announce(self) -> None:
        if self.app.definitions:
            run(self._client, announce(self.keys, self.app.definitions, int(time.time() * 1000)))
        for queue in self.queues:
            ours = {f"rq:worker:{name.decode()}" for name in self._client.zrange(self.keys.workers, 0, -1)}
            others = {key.decode() for key in self._client.smembers(f"rq:workers:{queue.name}")}
            for key in sorted(others - ours - {self.key}):
                _log.warning(
                    "%s on queue %s is no worker of fsm: it runs our jobs only with the JSON serializer",
                    key,
                    queue.name,
                )

    # Taking work.

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """Claim FSMs; sleep in Redis while there are none.

        Args:
            timeout: `None` in burst mode: return at once.
            max_idle_time: Seconds after which an idle worker returns.

        Returns:
            Claims and a queue, in the place of RQ's job and queue; `None` to stop.
        """
        idle_since = time.monotonic()
        while not self._stop_requested:
            self.heartbeat()
            claims = self._claim()
            if claims.held:
                return claims, self.queues[0]
            if timeout is None:
                return None
            if max_idle_time is not None and time.monotonic() - idle_since > max_idle_time:
                return None
            self._become(WorkerStatus.IDLE)
            if not self._recover():
                self._sleep()
            self.check_for_suspension(burst=False)
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
        return None

    def _become(self, status: WorkerStatus) -> None:
        """Show the state in RQ's registry, when it changes."""
        if self._state != status:
            self.set_state(status)

    def _claim(self) -> Claims:
        """Claim from each queue in order, until the batch is full."""
        want = max(1, min(self._batch, int(_AHEAD_S / max(self._seconds_per_fsm, 1e-6))))
        all_claims = calls.Claims([], [])
        found, self._found = self._found, []
        for queue in self.queues:
            self._number += 1
            token = secrets.token_hex(16)
            asked_at = time.monotonic()
            kept = {fsm.token for fsm in all_claims.held}
            claims = self._carry(
                calls.claim(
                    self.keys,
                    self.name,
                    queue.name,
                    token,
                    self._number,
                    lease_ms=self._lease_ms,
                    fsms=want - len(all_claims.held),
                    kept=tuple(kept),
                    found=tuple(found),
                )
            )
            found = []
            self._keeper.hold([fsm.name for fsm in claims.held], token, asked_at)
            all_claims.held += claims.held
            all_claims.at = all_claims.at or claims.at
            all_claims.at_ms = all_claims.at_ms or claims.at_ms
            for name, why in claims.broken:
                _log.error("a key of FSM %r is of another type and it cannot go on: %s", name, why)
            if len(all_claims.held) >= want:
                break
        return self._known(all_claims)

    def _known(self, claims: Claims) -> Claims:
        """Keep FSMs whose machine this worker knows; the others go back to the tail, where another may find them."""
        strange = [fsm for fsm in claims.held if fsm.machine not in self.app.behaviours]
        if strange:
            for fsm in strange:
                if fsm.machine not in self._reported:
                    self._reported.add(fsm.machine)
                    _log.warning(
                        "FSM %r waits for a worker that knows machine %r; this one knows %s",
                        fsm.name,
                        fsm.machine,
                        ", ".join(sorted(self.app.behaviours)),
                    )
            self._release(strange, tail=True)
            claims.held = [fsm for fsm in claims.held if fsm.machine in self.app.behaviours]
            if not claims.held:
                # They ring again at once: wait, so that a worker that knows them gets a chance before us.
                time.sleep(0.2)
        return claims

    def _release(self, fsms: Sequence[Claimed], *, tail: bool = False) -> None:
        pairs = [(fsm.name, fsm.token) for fsm in fsms]
        self._carry(calls.release(self.keys, self.name, pairs, tail=tail))
        self._keeper.let_go(fsm.name for fsm in fsms)

    def _sleep(self) -> None:
        """Sleep until an id comes on RQ's list, a second at most.

        On a crash just then: with one queue the id lies in our hand, which `recover` empties; with several it is lost,
        and `ready`, which is the truth about who waits, still has its FSM.
        """
        keys = [queue.key for queue in self.queues]
        try:
            if len(keys) == 1:
                self._is_sleeping = True
                if not self._stop_requested:
                    self._client.blmove(keys[0], self.keys.hand(self.name), _SLEEP_S, "LEFT", "RIGHT")
            else:
                found = self._client.blpop(keys, _SLEEP_S)
                if found:
                    self._found.append(found[1].decode())
        except _TRANSIENT as error:
            _log.warning("worker %s lost Redis while it slept: %s", self.name, error)
        finally:
            self._is_sleeping = False

    def _recover(self) -> int:
        """Free what dead workers held, once a second."""
        now = time.monotonic()
        if now - self._recovered_at < _SLEEP_S:
            return 0
        self._recovered_at = now
        gone = self._client.zrange(
            self.keys.workers, 0, int(time.time() * 1000) - _DEAD_AFTER_MS, byscore=True, offset=0, num=10
        )
        dead = [name.decode() for name in gone]
        freed, rehung = self._carry(calls.recover(self.keys, dead))
        if dead:
            self._client.zrem(self.keys.workers, *dead)
        if freed:
            _log.warning("freed %d FSMs whose worker died", freed)
        return freed + rehung

    # Doing it.

    def execute_job(self, job: Any, queue: Queue) -> None:  # noqa: ARG002 - RQ's signature
        """Run the events of the claimed FSMs, and commit them."""
        claims: Claims = job
        self._become(WorkerStatus.BUSY)
        begin = time.monotonic()
        blocks: list[list[Any]] = []
        names: list[str] = []
        since = begin
        for position, fsm in enumerate(claims.held):
            if self._stop_requested or (position and time.monotonic() - begin > 2 * _AHEAD_S):
                # Another worker that is idle gets the rest at once.
                self._commit(claims.at, blocks, names)
                self._release(claims.held[position:])
                self._learn(position, begin)
                return
            if not self._keeper.is_trusted(fsm.name):
                self._keeper.let_go([fsm.name])
                continue
            block = self._activate(fsm, claims.at_ms)
            if block is not None:
                blocks.append(block)
                names.append(fsm.name)
            if blocks and time.monotonic() - since > _COMMIT_WITHIN_S:
                self._commit(claims.at, blocks, names)
                blocks, names = [], []
                since = time.monotonic()
        self._commit(claims.at, blocks, names)
        self._learn(len(claims.held), begin)

    def _learn(self, count: int, begin: float) -> None:
        """Remember what an FSM takes, so that the next claim is about 20 ms of work."""
        seconds = time.monotonic() - begin
        self._counted[2] += seconds
        if count:
            self._seconds_per_fsm = 0.7 * self._seconds_per_fsm + 0.3 * seconds / count

    def _activate(self, fsm: Claimed, now_ms: int) -> list[Any] | None:
        behaviour = self.app.behaviours[fsm.machine]
        work = Activation(behaviour, fsm, self.keys, self._executor, now_ms)
        try:
            block = self._executor.run(work.run(time.monotonic() + _AHEAD_S), is_async=behaviour.is_async)
        except Exception:  # noqa: BLE001 - one FSM that cannot be run must not take its neighbours down
            # A fault of ours, or a snapshot that cannot be read: nothing is written, its lease ends, and `recover`
            # counts it, so that a worker that gets it once too often says so instead of running in a circle.
            _log.exception("FSM %r could not be run; it is left to its lease", fsm.name)
            self._keeper.let_go([fsm.name])
            return None
        self._counted[0] += work.done
        self._counted[1] += work.failed
        return block

    def _commit(self, claimed_at: str, blocks: Sequence[list[Any]], names: Sequence[str]) -> None:
        if not blocks:
            return
        self._number += 1
        request = commits.commit(self.keys, self.name, self._number, self._lease_ms, claimed_at, blocks)
        try:
            words = self._carry(request, until=time.monotonic() + self._lease_ms / 1000)
        except StoreError as error:
            _log.error("a commit of %d FSMs was not written and will be run again: %s", len(blocks), error)
            words = []
        self._keeper.let_go(names)
        for name, word in zip(names, words, strict=False):
            if word == "STALE":
                _log.warning("the lock of FSM %r was lost before its commit: nothing was written", name)
            elif word == "BROKEN":
                _log.error("the snapshot of FSM %r is not a hash any more: nothing was written", name)

    def _carry(self, request: Request[R], until: float | None = None) -> R:
        """Carry a request; while Redis is away, repeat it: each script knows its repeats.

        Args:
            request: The request.
            until: `time.monotonic()` after which it is given up; else only when this worker is to stop.

        Raises:
            StoreError: Redis refused it, or is still away.
        """
        pause = 0.05
        while True:
            try:
                return run(self._client, request)
            except StoreError as error:
                over = until is not None and time.monotonic() + pause > until
                if not isinstance(error.__cause__, _TRANSIENT) or self._stop_requested or over:
                    raise
                _log.warning("worker %s waits for Redis: %s", self.name, error)
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
