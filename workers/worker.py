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
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError
from rq import Queue
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now as rq_now
from rq.worker import WorkerStatus

from fsm import config
from fsm.engine import strangeness
from fsm.errors import ConfigError, StoreError
from fsm.ring import HashRing
from fsm.store import calls
from fsm.store.connection import connect
from fsm.store.hosts import LiveHosts
from fsm.store.keys import Keys
from fsm.store.places import Placer, parse, ringed
from fsm.store.requests import Request
from workers import handover, last_resort, points, upkeep
from workers.activation import Activation
from workers.alarm import AlarmClock
from workers.answers import EffectsWatch
from workers.batch import COMMIT_WITHIN_S, STORE_WITHIN_S, Batch, Relief
from workers.carrier import Carrier, Line, is_passing
from workers.commands import Listener
from workers.committer import Committer
from workers.countdown import ONE_SIGNAL_S
from workers.dropping import Dropping
from workers.executors import InlineExecutor
from workers.hands import Hands
from workers.intake import AHEAD_S, Intake
from workers.lease import LeaseKeeper
from workers.pulse import BEAT_S, Pulse, Record
from workers.rescue import Rescuer
from workers.retention import Retention, ages_of
from workers.shelf import Shelf
from workers.stored import StoredActivation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    import redis

    from fsm.app import App
    from fsm.store.calls import Claimed, Claims
    from fsm.store.presence import HostWord

__all__ = ["DEFAULT_BATCH", "DEFAULT_LEASE_MS", "TransitionWorker", "worker_name"]

_log = logging.getLogger("fsm.worker")

DEFAULT_LEASE_MS = 15_000
DEFAULT_BATCH = 128
_SUSPENSION_CHECK_S = 0.5
# RQ's rhythm; a worker that is told to stop meanwhile stops after it.
_SUSPENDED_PAUSE_S = 1.0
# A handler is known to be stuck when it was seen so at so many looks: a process that was stopped for long, and goes on,
# has been overdue for long at the first of them, and its handler had no chance to be interrupted yet.
_LOOKS = 50


def worker_name(host: str = "") -> str:
    """Draw a name that tells host and process, and is unique."""
    return f"{host or config.resolve('host')}-{os.getpid()}-{secrets.token_hex(2)}"


class _ForcedStop(KeyboardInterrupt):
    """Raised by the second signal, in the middle of a handler too: the step lets interrupts pass."""


class TransitionWorker(Listener):
    """Claims FSMs that have mail, runs their events, commits them.

    Args:
        app: The machines that this worker knows.
        url: Redis; `None` as in `fsm.store.connection.connect`.
        queues: Names of queues, in order of preference.
        namespace: The world of FSMs.
        lease_ms: How long a lock lasts if this worker dies.
        batch: Most FSMs in one claim.
        concurrency: How many FSMs are run side by side; with 1 in the main thread, which is the quickest.
        name: Unique; drawn when not given.
        host: The host that it belongs to; as the setting says when not given.
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
        concurrency: int = 1,
        name: str = "",
        host: str = "",
    ) -> None:
        points.arm(os.environ)
        url = config.resolve("url", url)
        self.host = config.resolve("host", host or None)
        self._client = connect(url, warn=_log.warning)
        super().__init__(
            [Queue(queue, connection=self._client, serializer=JSONSerializer) for queue in queues],
            name=name or worker_name(self.host),
            connection=self._client,
            serializer=JSONSerializer,
        )
        # RQ's own word for it is the name of the machine.
        self.hostname = self.host
        self.app = app
        self.keys = Keys(namespace)
        self._executor = InlineExecutor()
        self._keeper = LeaseKeeper(
            lambda: connect(url, check=False), url, self.keys, self.name, lease_ms, self._beat_while_busy
        )
        self._carrier = Carrier(self._client, url, lambda: self._stop_requested or self._is_ending)
        self._line = Line(self._client, self._carrier)
        self._pulse = Pulse(self._carrier, self.keys, self.name)
        self._live_hosts = LiveHosts(self.keys, self._carrier.once)
        self._placer = Placer((app.cluster or HashRing(self._hosts)).whois)
        # Its own queues of the ring are served from the first, so that nobody waits there until they are told of.
        rings = {d.settings.queue or self.keys.default_queue for d in app.definitions if d.settings.placement == "ring"}
        self._rings = tuple(ringed(queue, self.host) for queue in queues if queue in rings)
        self._alarm = AlarmClock(self._carrier, self.keys)
        self._intake = Intake(
            self._carrier,
            self._line,
            self.keys,
            self.name,
            queues,
            self._keeper,
            self._strangeness,
            lease_ms=lease_ms,
            batch=batch,
            in_hand=lambda: self._hands.tokens if self._hands else (),
            hear=self._alarm.hear,
        )
        self._shelf = Shelf.of(self.keys, app, self._executor, self._carrier.once)
        self._committer = Committer(
            self._carrier,
            self._line,
            self.keys,
            self.name,
            self._keeper,
            lease_ms=lease_ms,
            note_retry=self._alarm.look_soon,
            shelf=self._shelf,
        )
        self._relief = Relief(self._end_if_stuck)
        self._hands: Hands | None = None
        if concurrency > 1:
            self._hands = Hands(
                concurrency,
                batch,
                app,
                self.keys,
                self._keeper,
                self._intake,
                self._committer,
                self._relief,
                self._pulse,
                self._placer,
            )
        self._rescuer = Rescuer(
            self._carrier, self.keys, self.name, queues, self.host, lease_ms=lease_ms, hear=self._hear
        )
        self._retention = Retention(self.keys, ages_of(app.definitions))
        self._dropping = Dropping(self.keys, self._shelf)
        self.watch = EffectsWatch(self._client, self._carrier, self.keys)
        self.fault: Exception | None = None
        self.is_forced = False
        self.at_stop: Callable[[], None] = lambda: None
        # Whether it ends by itself where its host drains; the process that keeps several of them tells each of its own.
        self.heeds_drain = True
        self._is_drained = False
        self._stopped_at = 0.0
        self._work: Activation | None = None
        self._stuck = 0
        self._is_ending = False
        self._was_suspended = False
        self._suspension_checked_at = 0.0

    # What RQ does, done in our way.

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """Keep our time-outs: RQ would wait 415 s for a reply, and we never block for longer than a second."""
        return connection

    def _shutdown(self) -> None:
        """Ask the loop to stop; RQ would raise in the middle of whatever is going on, a claim for instance.

        A sleeper is woken: what Redis may have put into its hand just now goes back at the teardown.
        """
        self._stop_requested = True
        if self._intake.is_sleeping:
            raise StopRequested

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Stop in order, at the first signal."""
        self._stopped_at = time.monotonic()
        if self._hands is not None:
            # The main thread may hear of it while it waits for room, and would claim once more when there is some.
            self._hands.begin_no_more()
        self.at_stop()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call] # RQ is typed in part

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - RQ's signature
        """Stop at once, at the second signal: what is in hand is not finished, and goes on elsewhere.

        Not by `SystemExit`, as RQ does, which a handler may raise itself.
        """
        if self.is_forced or time.monotonic() - self._stopped_at < ONE_SIGNAL_S:
            return  # it is giving back what it holds, or the two are one
        self.is_forced = True
        raise _ForcedStop

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Tell RQ, and our own registry, that this worker lives; at most every 5 s, since a turn takes some ms."""
        if pipeline is not None or timeout is not None:
            super().heartbeat(timeout, pipeline)
        elif self._pulse.is_due():
            with self._pulse.unless_redis_is_in_trouble():
                self._beat()

    def _beat(self) -> None:
        record = self._pulse.beat()
        if record is Record.OURS:
            super().heartbeat()
        elif record is Record.LOST:
            # What RQ wrote into it since it was lost is no record.
            self.connection.delete(self.key)
            super().register_birth()  # type: ignore[no-untyped-call] # RQ is typed in part

    def serialize(self) -> dict[str, Any]:
        """Give what RQ's record of this worker holds, whose it is from the first, and which life of its name."""
        return {**super().serialize(), "life": self._pulse.life, "fsm": self.keys.namespace}

    def _beat_while_busy(self) -> None:
        """Beat from the keeper's thread while a handler runs for long; redis-py's pool serves both threads."""
        # At its end it was waited for in vain: who has registered his death must not be born again.
        if not self._is_ending and self._pulse.is_due(2 * BEAT_S):
            with self._pulse.unless_redis_is_in_trouble():
                self._beat()

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Show the state in RQ's registry, unless Redis is away or full."""
        with self._pulse.unless_redis_is_in_trouble():
            super().set_state(state, pipeline)

    def check_for_suspension(self, burst: bool) -> None:  # noqa: FBT001 - RQ's signature
        """Obey `rq suspend`; asked twice a second, not at every turn.

        RQ asks together with a heartbeat, which a full Redis refuses, and it sleeps on what is claimed ahead.
        """
        if time.monotonic() - self._suspension_checked_at < _SUSPENSION_CHECK_S:
            return
        before = None
        while not self._stop_requested and self._is_suspended():
            if burst:
                raise StopRequested
            if before is None:
                _log.info("worker %s is suspended: `rq resume` lets it go on", self.name)
                before = self.get_state()
                self._settle()
                self.set_state(WorkerStatus.SUSPENDED)
            self.heartbeat()
            self._check_replaced()
            time.sleep(_SUSPENDED_PAUSE_S)
        if before is not None:
            self.set_state(before)
        self._suspension_checked_at = time.monotonic()

    def _is_suspended(self) -> bool:
        # What cannot be asked is as it was: a worker that is suspended stays so while Redis is away.
        with self._pulse.unless_redis_is_in_trouble():
            self._was_suspended = bool(self.connection.exists(WORKERS_SUSPENDED))
        return self._was_suspended

    def run_maintenance_tasks(self) -> None:
        """Let RQ clean its registries, with nothing in hand, since that may take long; where it fails, next time."""
        self._settle()
        self.last_cleaned_at = rq_now()  # type: ignore[assignment] # RQ sets it likewise, in code without types
        with self._pulse.unless_redis_is_in_trouble():
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call] # RQ is typed in part

    def clean_registries(self) -> None:
        """Clean the registries of our queues, each on one host at a time; what cannot be read there stops no worker.

        Those of queues of single hosts as well, whose workers we are just now: RQ knows nothing of them.
        """
        beside = [Queue(queue, connection=self._client, serializer=JSONSerializer) for queue in self._intake.beside]
        for queue in (*self.queues, *beside):
            if queue.acquire_maintenance_lock():
                try:
                    upkeep.clean(queue)
                except (ValueError, TypeError, LookupError):
                    _log.exception(
                        "RQ's registries of queue %s cannot be cleaned: a record was edited by hand", queue.name
                    )
                finally:
                    queue.release_maintenance_lock()  # type: ignore[no-untyped-call] # RQ is typed in part

    def _settle(self) -> None:
        """Hold nothing and wait for nothing before a pause: what is claimed ahead goes back."""
        with self._pulse.unless_redis_is_in_trouble():
            self._intake.drop_ahead()
            if self._hands is not None:
                self._hands.drop_waiting()
        self._committer.read()

    def open_app(self) -> None:
        """Open the application's services on the loop of its handlers; `work` does so where nobody did before."""
        if not self.app.is_open:
            self.app.open(self._executor.drive if self._hands is None else self._hands.drive)

    def register_birth(self) -> None:
        """Open the application, register with RQ, announce our machines, and begin to keep locks."""
        self.open_app()
        if self._shelf is not None:
            self._shelf.check()
        try:
            super().register_birth()  # type: ignore[no-untyped-call] # RQ is typed in part
        except OutOfMemoryError as error:
            # Workers are what makes room in it: this one is registered by a later heartbeat.
            _log.warning("worker %s cannot be seen in RQ yet, for Redis is full: %s", self.name, error)
        with self._pulse.unless_redis_is_in_trouble():
            self._pulse.announce(self.app.definitions, self.queue_names())
        with self._pulse.unless_redis_is_in_trouble():
            self._beat()
        self._keeper.start()
        with self._pulse.unless_redis_is_in_trouble():
            self._rescuer.sweep()  # the host is alive before anything is claimed on it
        self._relief.start()
        self._rescuer.start()
        self._alarm.start()

    def _hosts(self) -> Sequence[str]:
        """Give the hosts that live; none, so that no FSM moves, while it cannot be seen which of them do."""
        return self._live_hosts() if self._rescuer.is_steady else ()

    def _hear(self, word: HostWord) -> None:
        """Heed what is said to workers of this host; from either thread."""
        queues = dict.fromkeys((*self._rings, *word.queues))
        # Who is pinned to this host has no other; then those that the ring gave it; then those of hosts that are gone.
        self._intake.serve(sorted(queues, key=lambda queue: not parse(queue).is_pinned))
        if word.is_draining and self.heeds_drain and not self._is_drained:
            self._is_drained = True
            _log.info("host %s drains: worker %s ends", self.host, self.name)
            # As if an operator had sent it here: to the main thread itself, which it wakes from a sleep in Redis.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def teardown(self) -> None:
        """Give back what is held, and register the death: as far as Redis lets us, the rest ends with its lease."""
        try:
            try:
                if self._hands is not None and not self.is_forced:
                    with self._pulse.unless_redis_is_in_trouble():
                        self._hands.finish()
                self._leave()
            except _ForcedStop:
                # It may have broken off what gives back.
                self._leave()
                raise SystemExit from None
        finally:
            self._line.close()
            self.app.close()  # again: what was raised above may have come before
            self._executor.close()
            if self._hands is not None:
                self._hands.close()

    def _leave(self) -> None:
        self._is_ending = True
        if self._hands is not None:
            self._hands.stop()
        has_ended = self._relief.stop()
        self._rescuer.stop()
        self._alarm.stop()
        self._keeper.stop()
        # What a signal broke off between a request and its reply would take the next reply for its own.
        self._client.connection_pool.disconnect(inuse_connections=False)
        if has_ended:
            # Else Redis hangs, and that thread is on the line: what is claimed ahead goes back with all the rest.
            self._settle()
            with self._pulse.unless_redis_is_in_trouble():
                self._intake.drop_found()
        with self._pulse.unless_redis_is_in_trouble():
            self._give_all_back()
        with self._pulse.unless_redis_is_in_trouble():
            self._rescuer.leave()
        with self._pulse.unless_redis_is_in_trouble():
            if self._pulse.is_replaced:
                self.unsubscribe()
            else:
                super().teardown()  # type: ignore[no-untyped-call] # as above
        self.app.close()

    def _give_all_back(self) -> None:
        if not self._pulse.is_replaced:
            with self._pulse.unless_redis_is_in_trouble():
                self._beat()
        # After a round trip or two: a sleep that was broken off is over by now for Redis too, and moves no id any more.
        self._release()

    def _release(self) -> None:
        held = self._keeper.held()
        if not self._pulse.is_replaced:
            handover.release(self._carrier.once, self.keys, self.name, held, self._intake.left)
        elif held:
            # What else is noted under our name is another's.
            self._carrier.once(calls.release(self.keys, self.name, held))

    def give_back_at_once(self) -> None:
        """Give back what is held, from a thread that ends the process, for the main one does not come to it.

        Raises:
            StoreError: Redis does not answer; it may still do what it was told.
        """
        if self._hands is not None:
            last_resort.tell(logging.CRITICAL, f"handlers are here:\n{self._hands.where()}")
        self._release()
        self.register_death()  # type: ignore[no-untyped-call] # RQ is typed in part

    def _end_if_stuck(self) -> None:
        """End this process, as if it had died, where a handler heeds no time-out; from the thread of `Relief`.

        What was done before is committed by then, and what was to come was given back.
        """
        work = self._hands.overdue if self._hands else self._work if self._executor.is_overdue else None
        self._stuck = self._stuck + 1 if work else 0
        if self._stuck < _LOOKS or work is None:
            return
        about = "event %r of FSM %r heeds no time-out: worker %s ends, as if it had died"
        where = f". Handlers are here:\n{self._hands.where()}\n" if self._hands else ""
        last_resort.end(lambda: self._die(work.fsm), about % (work.event, work.fsm.name, self.name) + where)

    def _die(self, culprit: Claimed) -> None:
        if self._hands is not None:
            # Else the main thread would claim again what is given back here.
            self._hands.shut()
        others = [pair for pair in self._keeper.held() if pair != (culprit.name, culprit.token)]
        handover.release(self._carrier.once, self.keys, self.name, others, {*self._intake.left, culprit.token})
        self.register_death()  # type: ignore[no-untyped-call] # as above

    # Taking work.

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """Claim FSMs; sleep in Redis while there are none.

        Args:
            timeout: `None` in burst mode: return at once.
            max_idle_time: Seconds after which an idle worker returns.

        Returns:
            Claims and a queue, in the place of RQ's job and queue; `None` to stop.
        """
        try:
            return self._take(is_burst=timeout is None, max_idle_time=max_idle_time)
        except _ForcedStop:
            raise SystemExit from None
        except StopRequested:
            raise
        except Exception as fault:
            if self._is_broken_off(fault):
                return None
            self.fault = fault  # RQ logs it, and ends without a word to its caller
            raise

    def _is_broken_off(self, fault: Exception) -> bool:
        """Whether this is no fault of ours: Redis is away, and who is told to stop does not wait for it."""
        is_so = self._stop_requested and isinstance(fault, StoreError) and is_passing(fault)
        if is_so:
            _log.warning("worker %s ends while Redis cannot be used; what it holds ends with its lease", self.name)
        return is_so

    def _take(self, *, is_burst: bool, max_idle_time: int | None) -> Any:
        idle_since = time.monotonic()
        empty = 0
        while not self._stop_requested:
            claims, recovered = self._claim()
            if claims.held:
                return claims, self.queues[0]
            is_busy = self._hands is not None and self._hands.is_busy
            if is_busy:
                # What is in hand may make others ready.
                idle_since, empty = time.monotonic(), -1
            # Nor one that brought none but FSMs for other workers, as long as there may be others behind them.
            empty += not self._intake.is_passing
            # A claim that brought nothing may have put requeued events into mailboxes: it takes two of them to say so.
            if is_burst and empty > 1:
                return None
            if max_idle_time is not None and time.monotonic() - idle_since > max_idle_time:
                return None
            self._committer.read()
            if self._hands is not None and is_busy:
                self._hands.rest(is_burst=is_burst)
            else:
                if empty > 1 or self._state != WorkerStatus.BUSY:
                    # A worker that is woken a hundred times a second is not idle in between: to say so costs more than
                    # a transition.
                    self._become(WorkerStatus.IDLE)
                # Among those that cannot be run here it would wake at once: they have rung already.
                is_to_sleep = not recovered and not self._intake.is_among_strangers
                if is_to_sleep and not is_burst and not self._stop_requested:
                    self._intake.sleep(self._rescuer.pause_s, claims=self._hands is None)
            self.check_for_suspension(is_burst)
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
        return None

    def _claim(self) -> tuple[Claims, int]:
        """Claim FSMs, when all else that is due is done; gives also how many others became ready by that."""
        claims = None
        if self._intake.is_woken:
            claims = self._intake.claim()
            if claims.held:
                # Before all else, which may take long: nobody else can run them, and nobody renewed their locks so far.
                return claims, 0
        self.heartbeat()
        self._check_replaced()
        recovered = self._rescuer.sweep() + self._alarm.ring()
        self._retention.look(self._carrier.carry)
        self._dropping.look(self._carrier.carry)
        self.watch.look()
        if claims is None:
            claims = self._intake.claim() if self._hands is None else self._hands.claim()
        return claims, recovered

    def _become(self, status: WorkerStatus) -> None:
        """Show the state in RQ's registry, when it changes; nobody waits for that, or needs it."""
        if self._state != status:
            self._state = status
            self._line.post(Request(lambda reply: reply, commands=[("HSET", self.key, "state", status)]))

    def _check_replaced(self) -> None:
        if self._pulse.is_replaced:
            # Two of one name free each other's locks at every claim, and hardly anything would be committed.
            problem = f"another worker took the name {self.name!r}; this one ends: give each its own name, or none"
            raise ConfigError("--name", problem)

    # Doing it.

    def execute_job(self, job: Any, queue: Queue) -> None:  # noqa: ARG002 - RQ's signature
        """Run the events of the claimed FSMs, and commit them."""
        try:
            self._become(WorkerStatus.BUSY)
            if self._shelf is not None and (stored := self._shelf.take(job)).held:
                # Those without a storage first: they need not wait for one.
                if job.held:
                    self._run(job, has_more=True)
                self._run(self._shelf.lend(stored), StoredActivation, has_more=True)
            else:
                self._run(job)
        except _ForcedStop:
            raise SystemExit from None
        except Exception as fault:
            if not self._is_broken_off(fault):
                self.fault = fault
            raise

    def _run(self, claims: Claims, make: type[Activation] = Activation, *, has_more: bool = False) -> None:
        if self._hands is not None:
            self._hands.put(claims, make)
            return
        if not self._stop_requested and not claims.has_suspect and not has_more:
            # Behind a suspect nothing is claimed ahead: if it kills us, nobody else is to be charged. Neither where a
            # storage may be waited for.
            self._intake.claim_ahead()
        self._run_batch(claims, make)

    def _run_batch(self, claims: Claims, make: type[Activation] = Activation) -> None:
        # Not before: where Redis is away the claim waits for it, and handlers would be taken for slow.
        begin = time.monotonic()
        intake, keeper, behaviours = self._intake, self._keeper, self.app.behaviours
        is_stored = make is StoredActivation
        within_s = STORE_WITHIN_S if is_stored else COMMIT_WITHIN_S
        until = begin + 2 * AHEAD_S
        batch = Batch(claims, self._committer.commit, intake.give_back, intake.drop_ahead, until, within_s)
        self._relief.watch(batch)
        fsms = done = failed = size = 0
        block: list[Any] | None = None
        try:
            while (fsm := batch.take(block, size, is_over=self._stop_requested)) is not None:
                begun_at = batch.begun_at
                if keeper.is_trusted(fsm.name, fsm.token, begun_at):
                    work = self._work = make(
                        behaviours[fsm.machine],
                        fsm,
                        self.keys,
                        self._executor,
                        claims.at_ms,
                        claims.asked_at,
                        self._placer,
                    )
                    block = self._activate(work, begun_at + AHEAD_S)
                    fsms += 1
                    if block is not None:
                        done, failed, size = done + work.done, failed + work.failed, work.size
                else:
                    block = None
                    _log.warning("the lock of FSM %r was lost before its events were run", fsm.name)
                    keeper.let_go([(fsm.name, fsm.token)])
        finally:
            self._relief.watch(None)
            batch.close()
            seconds = time.monotonic() - begin
            self._pulse.count(done=done, failed=failed, seconds=seconds)
            # A database takes nearly as long for one as for a hundred. Were that counted, claims would become smaller
            # the slower it is, until each FSM has a transaction of its own.
            intake.learn(fsms, seconds - batch.committing_s if is_stored else seconds)

    def _strangeness(self, fsm: Claimed) -> str:
        behaviour = self.app.behaviours.get(fsm.machine)
        return strangeness(
            behaviour.definition if behaviour else None, fsm.machine, fsm.state, fsm.status, fsm.definition
        )

    def _activate(self, work: Activation, until: float) -> list[Any] | None:
        """Run the events of one FSM; gives the block for its commit, if it is to be written."""
        try:
            return self._executor.run(work.run(until), is_async=work.behaviour.is_async)
        except Exception:  # noqa: BLE001 - one FSM that cannot be run must not take its neighbours down
            # A fault of ours, or a snapshot that cannot be read: nothing is written, its lease ends, and `recover`
            # counts it, so that a worker that gets it once too often says so instead of running in a circle.
            fsm = work.fsm
            _log.exception("FSM %r could not be run; it is left to its lease", fsm.name)
            self._intake.leave(fsm.token)
            self._keeper.let_go([(fsm.name, fsm.token)])
            return None
