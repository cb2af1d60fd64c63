"""Databases for the tests of storages: files of SQLite, and a PostgreSQL that the tests start themselves.

FSM_TEST_POSTGRES names a server to use instead. Without a PostgreSQL on the machine its tests are skipped, loudly.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from fsm.storage.sql import SqlStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SKIP = "!!! NOT TESTED AGAINST A REAL POSTGRESQL"


def _programs() -> Path | None:
    """Where initdb and pg_ctl are: on PATH, or where Debian keeps them."""
    for found in (shutil.which("initdb"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))):
        if found and (Path(found).resolve().parent / "pg_ctl").exists():
            return Path(found).resolve().parent
    return None


class Postgres:
    """A server of its own in a directory, on a socket there; PostgreSQL does not run as root."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self.directory = directory
        self.data = directory / "data"
        self.user = getpass.getuser()
        self._as: list[str] = []
        if os.geteuid() == 0:
            self.user = "postgres"
            self._as = ["runuser", "-u", self.user, "--"]
            shutil.chown(directory, self.user)
        self._run(
            "initdb", "-D", str(self.data), "-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync", "--no-instructions"
        )

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@/postgres?host={self.directory}"

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.directory} -c fsync=off -c max_connections=60"
        log = self.directory / "log"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", str(log), "-o", options, "start")

    def stop(self) -> None:
        """At once, as a power cut would."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self.programs / program), *arguments]
        done = subprocess.run(
            command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL of its own for the whole run."""
    programs = _programs()
    if programs is None:
        pytest.skip(f"{_SKIP}: there is no initdb here")
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        pytest.skip(f"{_SKIP}: it does not run as root, and there is no runuser")
    # Not below pytest's own directory, which other users may not enter; and a socket's path is short.
    directory = Path(tempfile.mkdtemp(prefix="fsm-pg-"))
    try:
        server = Postgres(programs, directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """URL of a PostgreSQL."""
    given = os.environ.get("FSM_TEST_POSTGRES")
    if given:
        return given
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.url


@pytest.fixture(scope="session")
def postgres_tables(postgres_url: str) -> Iterator[SqlStorage]:
    """A storage with tables, one for the whole run."""
    with SqlStorage(postgres_url, table=f"t_{uuid.uuid4().hex[:12]}") as storage:
        storage.init()
        yield storage
        with storage._database.engines.engine.begin() as connection:
            storage._database.rows.drop(connection)
            connection.execute(
                sa.delete(storage._database.forms).where(storage._database.forms.c.table_name == storage.table)
            )


@pytest.fixture
def postgres_storage(postgres_tables: SqlStorage) -> SqlStorage:
    """A storage in PostgreSQL, empty."""
    with postgres_tables._database.engines.engine.begin() as connection:
        connection.execute(sa.delete(postgres_tables._database.rows))
    return postgres_tables


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "fsm.db"


@pytest.fixture
def sqlite_storage(sqlite_file: Path) -> Iterator[SqlStorage]:
    """A storage in a file, empty."""
    # A disk that is slow under other tests is no fault of ours.
    with SqlStorage(f"sqlite:///{sqlite_file}", timeout="30s") as storage:
        storage.init()
        yield storage


@pytest.fixture(params=["sqlite", "postgres"])
def sql_storage(request: pytest.FixtureRequest) -> SqlStorage:
    """The same test over both databases."""
    found: SqlStorage = request.getfixturevalue(f"{request.param}_storage")
    return found


@pytest.fixture
def opened() -> Iterator[Callable[..., SqlStorage]]:
    """Opens storages, and closes them at the end."""
    made: list[SqlStorage] = []

    def open_one(url: str, **options: object) -> SqlStorage:
        storage = SqlStorage(url, **options)  # type: ignore[arg-type] # as they come
        made.append(storage)
        return storage

    yield open_one
    for storage in made:
        storage.close()
