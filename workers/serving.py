"""One turn at FSMs without the pace of a worker: claim, run, commit, one after the other.

Who calls this: what serves FSMs in the thread of somebody else, `jobs` (stock RQ workers) and `inline` (`memory://`).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fsm.engine import strangeness
from fsm.store import calls, commits
from fsm.store.requests import run
from workers import points
from workers.activation import Activation
from workers.intake import AHEAD_S
from workers.stored import StoredActivation, stored_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis

    from fsm.engine import Behaviour
    from fsm.store.calls import Claimed, Claims
    from fsm.store.keys import Keys
    from workers.executors import Executor
    from workers.lease import LeaseKeeper
    from workers.shelf import Shelf

__all__ = ["Served", "Turn", "serve"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One claim, and what is needed to make it.

    Args:
        client: The connection.
        behaviours: Machines by name.
        keys: Of the namespace.
        worker: Name under which the claim is made.
        queue: Whose FSMs.
        number: Grows with each turn of this worker, by two: the commit has a number as well.
        lease_ms: How long locks last if we die.
        name: Only this FSM; "" for any.
        found: Id of a job that was taken off RQ's list, which the claim is to look at.
        fsms: At most so many.
        shelf: The storages of the machines, if any has one.
    """

    client: Redis
    behaviours: Mapping[str, Behaviour]
    keys: Keys
    worker: str
    queue: str
    number: int
    lease_ms: int
    name: str = ""
    found: str = ""
    fsms: int = 1
    shelf: Shelf | None = None


@dataclass(slots=True)
class Served:
    """What a turn brought.

    Args:
        written: How many FSMs were claimed, run and committed.
        strange: FSMs that were given back, for they cannot be run here, and for each a clause that says why.
        unmigrated: Names of FSMs that wait for a `migrate` which raises no more; they count as written.
        lost: How many were run and released, for what came of them could not be stored: they are ready again.
        broken: FSMs with a key of a wrong type: name and why.
    """

    written: int = 0
    strange: list[tuple[Claimed, str]] = field(default_factory=list)
    unmigrated: list[str] = field(default_factory=list)
    lost: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


def serve(turn: Turn, executor: Executor, keeper: LeaseKeeper | None = None) -> Served:
    """Claim FSMs, run what lies in their mailboxes, commit it.

    On a crash: nothing is written, the locks end with their lease.

    Args:
        turn: The claim.
        executor: Who runs user code.
        keeper: Who renews the locks meanwhile, if anybody does.
    """
    client, keys, worker = turn.client, turn.keys, turn.worker
    token, asked_at = secrets.token_hex(16), time.monotonic()
    request = calls.claim(
        keys,
        worker,
        turn.queue,
        token,
        turn.number,
        lease_ms=turn.lease_ms,
        fsms=turn.fsms,
        name=turn.name,
        found=(turn.found,) if turn.found else (),
    )
    claims = run(client, request)
    served = Served(broken=claims.broken)
    names = [fsm.name for fsm in claims.held]
    if keeper is not None:
        keeper.hold(names, token, asked_at)
    if points.armed is not None and names:
        points.armed.reach("after claim", names)
    claims.asked_at = asked_at
    try:
        blocks = []
        for fsm in claims.held:
            behaviour = turn.behaviours.get(fsm.machine)
            ours = behaviour.definition if behaviour else None
            why = strangeness(ours, fsm.machine, fsm.state, fsm.status, fsm.definition)
            if behaviour is None or why:
                served.strange.append((fsm, why))
                continue
            blocks.append(_run(_work(turn, claims, fsm, executor), executor, served))
        if served.strange:
            pairs = [(fsm.name, token) for fsm, _ in served.strange]
            run(client, calls.release(keys, worker, pairs, tail=True))
        if keeper is not None:
            blocks = [block for block in blocks if keeper.is_trusted(block[1], block[2])]
        if blocks:
            blocks = _store(turn, blocks, served)
        if blocks:
            served.written = _commit(turn, claims.at, blocks, names)
        return served
    finally:
        if keeper is not None:
            keeper.let_go((name, token) for name in names)


def _work(turn: Turn, claims: Claims, fsm: Claimed, executor: Executor) -> Activation:
    """Give the work on one FSM, with what its storage has of it."""
    behaviour, keys, times = turn.behaviours[fsm.machine], turn.keys, (claims.at_ms, claims.asked_at)
    if turn.shelf is None or not turn.shelf.has(fsm):
        return Activation(behaviour, fsm, keys, executor, *times)
    (one,) = turn.shelf.lend(replace(claims, held=[fsm])).held
    return StoredActivation(behaviour, one, keys, executor, *times)


def _run(work: Activation, executor: Executor, served: Served) -> list[Any]:
    """Run the events of one FSM; gives the block for its commit."""
    block = executor.run(work.run(time.monotonic() + AHEAD_S), is_async=work.behaviour.is_async)
    if work.is_unmigrated:
        served.unmigrated.append(work.fsm.name)
    return block


def _store(turn: Turn, blocks: list[list[Any]], served: Served) -> list[list[Any]]:
    """Tell the storages, if there are any; gives what Redis is to be told."""
    if points.armed is not None:
        points.armed.reach("before commit", [block[1] for block in blocks])
    if turn.shelf is None:
        return blocks
    kept = turn.shelf.store(blocks)
    if points.armed is not None and (names := stored_names(kept.blocks)):
        points.armed.reach("after store", names)
    if kept.lost:
        pairs = [(fsm.name, fsm.token) for fsm in kept.lost]
        run(turn.client, calls.release(turn.keys, turn.worker, pairs))
        served.lost = len(pairs)
    return kept.blocks


def _commit(turn: Turn, claimed_at: str, blocks: list[list[Any]], names: list[str]) -> int:
    """Commit what was done; gives how many FSMs were written."""
    request = commits.commit(turn.keys, turn.worker, turn.number + 1, turn.lease_ms, claimed_at, blocks)
    words = run(turn.client, request)
    if points.armed is not None:
        points.armed.reach("after commit sent", names)
        points.armed.reach("after commit", names)
    return sum(word != "STALE" for word in words)
