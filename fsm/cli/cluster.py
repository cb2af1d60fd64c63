"""Commands that show the whole: `fsm machines`, `fsm info`, `fsm count`, `fsm all`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from fsm import verbs
from fsm.cli.place import placed
from fsm.cli.printing import (
    Styled,
    clock_time,
    complain,
    is_terminal,
    json_option,
    print_array,
    print_fields,
    print_gap,
    print_json,
    print_line,
    print_table,
    watch,
)
from fsm.cli.states import check_filters
from fsm.errors import StoreError
from fsm.machine import span_text
from fsm.store.connection import mask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fsm.cli.place import Place
    from fsm.client import Client
    from fsm.machine import Machine
    from fsm.registry import Cluster, HostView, QueueView, WorkerView
    from fsm.verbs import Running

__all__ = ["count", "info", "machines", "running"]

_HOST_COLUMNS = ("host", "state", "workers", "holds", "alive until")
_WORKER_COLUMNS = (
    "worker", "host", "pid", "state", "queues", "since", "seen", "done", "failed", "holds", "in hand",
)  # fmt: skip
_QUEUE_COLUMNS = ("queue", "ready", "mail", "delayed", "failed", "workers", "oldest waits")
_RUNNING_COLUMNS = ("name", "machine", "state", "status", "host", "worker", "since", "waiting")
_STYLES = {"busy": "green", "silent": "red", "suspended": "yellow", "draining": "yellow", "gone": "red"}
_WATCH_S = 1.0
_MOST_SHOWN = 3
_SCREENFUL = 100


@click.command()
@json_option
@placed
def machines(place: Place, *, as_json: bool) -> None:
    """List machines, and how many FSMs are where.

    Those that starters and workers have announced, and those of --app. Piped, a line is: name, queue, fingerprint,
    when it was announced, counts as state=n, definition_version.
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
        ("machine", "queue", "fingerprint", "announced", "states", "version"),
        (
            (
                one["name"],
                one["queue"],
                Styled(f"{one['fingerprint']} ({one['note']})", "yellow") if one["note"] else one["fingerprint"],
                clock_time(one["seen_at_ms"]),
                _counted(one["states"]),
                one["definition_version"],
            )
            for one in found
        ),
    )


def _about(
    name: str, machine: type[Machine[Any]] | None, announced: Mapping[str, Any], counts: dict[str, int], default: str
) -> dict[str, Any]:
    """Say what is known of one machine; where announcement and application differ, say that too."""
    fingerprint, queue, note = announced.get("fingerprint"), announced.get("queue"), ""
    version = announced.get("definition_version")
    states: dict[str, int] = counts
    if machine is not None:
        definition = machine.definition
        ours = definition.settings.definition_version
        states = {state: counts.get(state, 0) for state in definition.graph.states} | counts
        if fingerprint is None:
            fingerprint, queue, note = definition.fingerprint, definition.settings.queue or default, "not announced"
            version = ours
        elif (fingerprint, version or ours) != (definition.fingerprint, ours):
            note = f"in --app: {definition.fingerprint}" + (f", version {ours}" if version != ours else "")
    return {
        "name": name,
        "queue": queue,
        "fingerprint": fingerprint,
        "definition_version": version,
        "seen_at_ms": announced.get("seen_at"),
        "note": note,
        "states": states,
    }


def _counted(states: Mapping[str, int]) -> str:
    """Write counts in a line: all states where it is piped, those with FSMs where a person looks."""
    return " ".join(f"{state}={count}" for state, count in states.items() if count or not is_terminal())


@click.command()
@click.option("--watch", "is_watching", is_flag=True, help="Show it anew every second, until Ctrl-C.")
@json_option
@placed
def info(place: Place, *, is_watching: bool, as_json: bool) -> None:
    """Show Redis, hosts, workers, queues and counts.

    With --watch and --json, a line is an object.
    """
    with place.client() as client:

        def show() -> None:
            cluster = client.cluster()
            url, namespace = mask(client.url), client.namespace
            if as_json:
                print_json({"url": url, "namespace": namespace, **asdict(cluster)}, is_line=is_watching)
            else:
                _show_all(cluster, url, namespace)

        def show_again() -> None:
            try:
                show()
            except StoreError as error:
                # Who watches wants to see that Redis is away, and that it comes back.
                complain(error)
            if not as_json:
                print_gap()

        # What is wrong from the beginning ends the command.
        if is_watching:
            client.cluster()
            watch(show_again, _WATCH_S, is_stream=as_json)
        show()


def _show_all(cluster: Cluster, url: str, namespace: str) -> None:
    _show(cluster, url, namespace)
    if cluster.hosts:
        print_gap()
        print_table(_HOST_COLUMNS, map(_host, cluster.hosts))
    if cluster.workers:
        print_gap()
        print_table(_WORKER_COLUMNS, map(_worker, cluster.workers))
    print_gap()
    gone = {host.name for host in cluster.hosts if not host.is_live}
    print_table(_QUEUE_COLUMNS, (_queue(queue, gone) for queue in cluster.queues))
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
            ("others", ", ".join(name for name in cluster.namespaces if name != namespace)),
            ("workers", Styled(listening, "" if listening else "yellow")),
            ("FSMs", f"{cluster.alive} alive, {cluster.held} in hand"),
            ("timers", cluster.timers),
            *(("trouble", Styled(f"Redis {trouble}", "red")) for trouble in cluster.troubles),
        ]
    )


def _host(host: HostView) -> tuple[Any, ...]:
    state = ("draining" if host.is_draining else "alive") if host.is_live else "gone"
    return host.name, Styled(state, _STYLES.get(state, "")), host.workers, host.holds, clock_time(host.until)


def _worker(worker: WorkerView) -> tuple[Any, ...]:
    return (
        worker.name if worker.is_ours else f"{worker.name} (stock RQ)",
        worker.host,
        worker.pid or "",
        Styled(worker.state, _STYLES.get(worker.state, "")),
        ",".join(worker.queues),
        clock_time(worker.since),
        clock_time(worker.seen_at),
        worker.done,
        Styled(worker.failed, "red" if worker.failed else ""),
        worker.holds,
        ", ".join(worker.in_hand[:_MOST_SHOWN]) + (", …" if worker.holds > _MOST_SHOWN else ""),
    )


def _queue(queue: QueueView, gone: Collection[str]) -> tuple[Any, ...]:
    waits = "" if queue.oldest_ms is None else span_text(int(time.time() * 1000) - queue.oldest_ms)
    return (
        Styled(queue.name, "red" if queue.host in gone and queue.ready else ""),
        queue.ready,
        f"{queue.mail}+" if queue.mail_is_floor else queue.mail,
        queue.delayed,
        Styled(queue.failed, "red" if queue.failed else ""),
        queue.workers,
        waits,
    )


@click.command()
@click.option("--machine", metavar="NAME", help="Only FSMs of this machine.")
@click.option("--state", "in_state", metavar="NAME", help="Only FSMs in this state.")
@click.option("--finished", is_flag=True, help="Those that have finished too.")
@json_option
@placed
def count(place: Place, *, machine: str | None, in_state: str | None, finished: bool, as_json: bool) -> None:
    """Count FSMs that have not finished.

    It is exact, and takes no longer with a million of them.
    """
    with place.client() as client:
        check_filters(client, machine, in_state)
        found = client.count(machine, in_state, finished=finished)
    if as_json:
        print_json({"count": found})
    else:
        click.echo(found)


@click.command("all")
@click.option("--machine", metavar="NAME", help="Only FSMs of this machine.")
@click.option("--host", metavar="NAME", help="Only FSMs that this host has in hand, or that are placed on it.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"At most so many, 0 for all.  [{_SCREENFUL} on a terminal, else all]",
)
@json_option
@placed
def running(place: Place, *, machine: str | None, host: str | None, limit: int | None, as_json: bool) -> None:
    """List FSMs that have not finished, and who has them.

    Piped, a line is: name, machine, state, status, host, worker, since when it is in its state, events that wait.
    """
    if limit is None:
        limit = _SCREENFUL if is_terminal() and not as_json else 0
    with place.client() as client:
        check_filters(client, machine, None)
        found = _walk(client, machine, host)
        shown = islice(found, limit) if limit else found
        if as_json:
            print_array({"name": name, **asdict(one)} for name, one in shown)
            return
        if not is_terminal():
            for name, one in shown:
                print_line(*_running(name, one))
            return
        print_table(_RUNNING_COLUMNS, (_running(name, one) for name, one in shown))
        if limit and next(found, None) is not None:
            complain("… and more: --limit 0 shows all")


def _walk(client: Client, machine: str | None, host: str | None) -> Iterator[tuple[str, Running]]:
    page = client.all(machine, host=host, count=_SCREENFUL)
    yield from page.items()
    while page.cursor:
        page = client.all(machine, host=host, cursor=page.cursor, count=verbs.MOST_OF_PAGE)
        yield from page.items()


def _running(name: str, one: Running) -> tuple[Any, ...]:
    return name, one.machine, one.state, one.status, one.host, one.worker, clock_time(one.since), one.waiting
