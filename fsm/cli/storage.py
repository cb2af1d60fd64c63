"""The commands for databases in which machines keep snapshots: `fsm storage init`, `fsm storage check`.

Who calls this: `root`, by name.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fsm.cli.place import placed
from fsm.cli.printing import json_option, print_array, print_table
from fsm.errors import ConfigError
from fsm.storage.sql import SqlStorage
from fsm.store import dropping
from fsm.store.storing import lives

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsm.cli.place import Place
    from fsm.client import Client

__all__ = ["storage"]


@click.group()
@placed
def storage(place: Place) -> None:
    """Databases in which machines keep snapshots.

    They are those of the application's machines; or name one by its URL, such as sqlite:////var/lib/app/fsm.db.
    """
    click.get_current_context().obj = place


_database = click.argument("database", required=False, metavar="[DATABASE]")
_table = click.option("--table", metavar="NAME", help="Its table, where a URL is given.  [fsm_snapshots]")


@storage.command()
@_database
@_table
@json_option
@placed
def init(place: Place, *, database: str | None, table: str | None, as_json: bool) -> None:
    """Create the tables where they are missing.

    It may be run at any time, also by several at once: what is there is left as it is.
    """
    rows: list[dict[str, Any]] = []
    with _opened(place, database, table) as found:
        rows += ({"storage": one.url, "table": one.table, "created": one.init()} for one in _tables(found))
    if as_json:
        print_array(rows)
        return
    columns = ("storage", "table", "tables")
    print_table(columns, [(row["storage"], row["table"], "created" if row["created"] else "there") for row in rows])


@storage.command()
@_database
@_table
@click.option("--orphans", is_flag=True, help="Hold each row against Redis, and name those of FSMs that are not there.")
@json_option
@placed
def check(place: Place, *, database: str | None, table: str | None, orphans: bool, as_json: bool) -> None:
    """See whether the databases can be used, and count what is in them.

    Of each machine: how many FSMs have a row there, and how many there are in Redis. Fewer rows are usual: an FSM has
    one from its first commit on. More are rows of FSMs that are gone: how many of them were purged, and wait for a
    worker to drop them, is the last number; --orphans names these and all others. Exits with 1 where a database cannot
    be used, or where orphans were found that no worker will drop. Payloads that keep rows of their own are asked for
    one that is not there, which tells whether their table is.
    """
    rows: list[dict[str, Any]] = []
    with _opened(place, database, table) as found, place.client() as client:
        in_redis = {machine: sum(states.values()) for machine, states in client.counts().items()}
        for one in found:
            one.check()
        for one in _tables(found):
            rows += _orphans(client, one.of(client.namespace)) if orphans else _counts(client, one, in_redis)
    if as_json:
        print_array(rows)
    else:
        columns = (
            ("storage", "table", "name", "why")
            if orphans
            else ("storage", "table", "machine", "rows", "in Redis", "to be dropped")
        )
        print_table(columns, [tuple(row.values()) for row in rows])
    if orphans and any(row["why"] != _PURGED for row in rows):
        raise SystemExit(1)


# Why a row is there that needs nobody's hand.
_PURGED = "purged: a worker drops it"


@contextmanager
def _opened(place: Place, database: str | None, table: str | None) -> Iterator[list[SqlStorage]]:
    """Give the databases that are meant, and close them at the end."""
    found = _named(place, database, table)
    try:
        yield found
    finally:
        for one in found:
            one.close()


def _named(place: Place, database: str | None, table: str | None) -> list[SqlStorage]:
    if database is not None:
        return [SqlStorage(database) if table is None else SqlStorage(database, table=table)]
    if table is not None:
        raise ConfigError("--table", "is for a DATABASE that is named: machines name their table themselves")
    kept = [machine.definition.storage for machine in place.machines().values()]
    found = {(one.url, one.table, one.persist): one for one in kept if isinstance(one, SqlStorage)}
    if not found:
        problem = "no machine of the application has a SqlStorage: name the DATABASE, or the application with --app"
        raise ConfigError("fsm storage", problem)
    return list(found.values())


def _tables(found: list[SqlStorage]) -> list[SqlStorage]:
    """Give one storage for each table: machines may have several, and ask for other payloads in each."""
    return list({(one.url, one.table): one for one in found}.values())


def _counts(client: Client, one: SqlStorage, in_redis: dict[str, int]) -> list[dict[str, Any]]:
    counts = one.of(client.namespace).counts()
    about = {"storage": one.url, "table": one.table}
    waiting = client.ask(dropping.counts(client.keys, list(counts))) if counts else {}
    rows = [
        about | {"machine": machine, "rows": count, "in_redis": in_redis.get(machine, 0), "to_drop": waiting[machine]}
        for machine, count in sorted(counts.items())
    ]
    return rows or [about | {"machine": "", "rows": 0, "in_redis": 0, "to_drop": 0}]


def _orphans(client: Client, one: SqlStorage) -> list[dict[str, Any]]:
    rows = []
    machines = list(one.counts())
    for page in one.lives():
        there = client.ask(lives(client.keys, list(page)))
        gone = {name: born for name, born in page.items() if there[name] != born}
        noted = client.ask(dropping.noted(client.keys, machines, gone)) if gone else set()
        for name in gone:
            why = "an earlier life of its name" if there[name] else "no such FSM in Redis"
            why = _PURGED if name in noted else why
            rows.append({"storage": one.url, "table": one.table, "name": name, "why": why})
    return rows
