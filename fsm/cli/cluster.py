"""Commands that show the whole: `fsm machines`, `fsm info`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fsm import registry
from fsm.cli.place import placed
from fsm.cli.printing import (
    Styled,
    clock_time,
    is_terminal,
    json_option,
    print_array,
    print_fields,
    print_gap,
    print_json,
    print_table,
)
from fsm.machine import span_text
from fsm.store.connection import mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsm.cli.place import Place
    from fsm.machine import Machine
    from fsm.registry import Cluster, QueueView, WorkerView

__all__ = ["info", "machines"]

_WORKER_COLUMNS = ("worker", "host", "pid", "state", "queues", "seen", "holds", "done", "failed")
_QUEUE_COLUMNS = ("queue", "ready", "failed", "workers", "oldest waits")
_STYLES = {"busy": "green", "silent": "red", "suspended": "yellow"}


@click.command()
@json_option
@placed
def machines(place: Place, *, as_json: bool) -> None:
    """List machines, and how many FSMs are where.

    Those that starters and workers have announced, and those of --app. Piped, a line is: name, queue, fingerprint,
    when it was announced, counts as state=n.
    """
    ours = place.machines()
    with place.client() as client:
        announced, counts = client.machines(), client.counts()
        default = client.keys.default_queue
    found = [
        _about(name, ours.get(name), announced.get(name, {}), counts.get(name, {}), default)
        for name in dict.fromkeys([*announced, *ours])
    ]
    if as_json:
        print_array(found)
        return
    print_table(
        ("machine", "queue", "fingerprint", "announced", "states"),
        (
            (
                one["name"],
                one["queue"],
                Styled(f"{one['fingerprint']} ({one['note']})", "yellow") if one["note"] else one["fingerprint"],
                clock_time(one["seen_at_ms"]),
                _counted(one["states"]),
            )
            for one in found
        ),
    )


def _about(
    name: str, machine: type[Machine[Any]] | None, announced: Mapping[str, Any], counts: dict[str, int], default: str
) -> dict[str, Any]:
    """Say what is known of one machine; where announcement and application differ, say that too."""
    fingerprint, queue, note = announced.get("fingerprint"), announced.get("queue"), ""
    states: dict[str, int] = counts
    if machine is not None:
        definition = machine.definition
        states = {state: counts.get(state, 0) for state in definition.graph.states} | counts
        if fingerprint is None:
            fingerprint, queue, note = definition.fingerprint, definition.settings.queue or default, "not announced"
        elif fingerprint != definition.fingerprint:
            note = f"in --app: {definition.fingerprint}"
    return {
        "name": name,
        "queue": queue,
        "fingerprint": fingerprint,
        "seen_at_ms": announced.get("seen_at"),
        "note": note,
        "states": states,
    }


def _counted(states: Mapping[str, int]) -> str:
    """Write counts in a line: all states where it is piped, those with FSMs where a person looks."""
    return " ".join(f"{state}={count}" for state, count in states.items() if count or not is_terminal())


@click.command()
@json_option
@placed
def info(place: Place, *, as_json: bool) -> None:
    """Show Redis, workers, queues and counts."""
    with place.client() as client:
        cluster = client.do(registry.cluster(client.keys))
        url, namespace = mask(client.url), client.namespace
    if as_json:
        print_json({"url": url, "namespace": namespace, **asdict(cluster)})
        return
    _show(cluster, url, namespace)
    if cluster.workers:
        print_gap()
        print_table(_WORKER_COLUMNS, map(_worker, cluster.workers))
    print_gap()
    print_table(_QUEUE_COLUMNS, map(_queue, cluster.queues))
    if cluster.fsms:
        print_gap()
        rows = [(machine, state, count) for machine, states in cluster.fsms.items() for state, count in states.items()]
        print_table(("machine", "state", "FSMs"), rows)


def _show(cluster: Cluster, url: str, namespace: str) -> None:
    listening = sum(1 for worker in cluster.workers if worker.state != "silent")
    print_fields(
        [
            ("redis", Styled(url, "bold")),
            ("version", cluster.version or "unknown"),
            ("memory", f"{cluster.memory / 1_048_576:.1f} MiB" if cluster.memory else "unknown"),
            ("namespace", Styled(namespace, "bold")),
            ("workers", Styled(listening, "" if listening else "yellow")),
            ("FSMs", f"{cluster.alive} alive, {cluster.held} in hand"),
            *(("trouble", Styled(f"Redis {trouble}", "red")) for trouble in cluster.troubles),
        ]
    )


def _worker(worker: WorkerView) -> tuple[Any, ...]:
    return (
        worker.name if worker.is_ours else f"{worker.name} (stock RQ)",
        worker.host,
        worker.pid or "",
        Styled(worker.state, _STYLES.get(worker.state, "")),
        ",".join(worker.queues),
        clock_time(worker.seen_at),
        worker.holds,
        worker.done,
        Styled(worker.failed, "red" if worker.failed else ""),
    )


def _queue(queue: QueueView) -> tuple[Any, ...]:
    waits = "" if queue.oldest_ms is None else span_text(int(time.time() * 1000) - queue.oldest_ms)
    return queue.name, queue.ready, Styled(queue.failed, "red" if queue.failed else ""), queue.workers, waits
