"""Payloads that lie in the storages of an application's machines, for commands that show FSMs.

Who calls this: `fsm state`, `fsm ls`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsm import config, verbs
from fsm.cli.printing import complain
from fsm.errors import FSMError, PayloadError, StoreError
from fsm.storage.fetching import fetched_many
from fsm.storage.sql import SqlStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from fsm.cli.place import Place
    from fsm.client import Client
    from fsm.machine import Machine
    from fsm.store.codec import Snapshot

__all__ = ["Payloads"]


class Payloads:
    """Reads payloads where they lie, if the application is named, and closes the databases at the end.

    What cannot be read is told, once for each machine or FSM, and all else is shown: whoever looks at an FSM whose
    storage is down wants to see the rest of it. The application is imported when a payload is met that needs it.

    Attributes:
        is_complete: Whether all that should have been read was.
    """

    def __init__(self, place: Place, client: Client) -> None:
        self._place = place
        self._client = client
        self._machines: dict[str, type[Machine[Any]]] | None = None
        # Machines whose storage cannot be used: not asked again for each page.
        self._lost: set[str] = set()
        self.is_complete = True

    def __enter__(self) -> Self:
        """Give itself, for `with`."""
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Close the databases."""
        for machine in (self._machines or {}).values():
            if isinstance(machine.definition.storage, SqlStorage):
                machine.definition.storage.close()

    def filled(self, snapshots: Sequence[Snapshot]) -> Iterator[tuple[Snapshot, bool]]:
        """Give snapshots in their order, each with whether its payload is there; who was purged meanwhile is left out.

        Args:
            snapshots: A page of them.
        """
        found: dict[str, Snapshot | StoreError] = {one.name: one for one in snapshots}
        for name in dict.fromkeys(one.machine for one in snapshots if one.is_stored):
            machine = self._known().get(name)
            if machine is None or name in self._lost:
                continue
            ours = [one for one in snapshots if one.machine == name]
            try:
                read = fetched_many(ours, machine.definition, self._client.keys.namespace, self._again)
            except FSMError as error:
                if not isinstance(error, PayloadError):  # a `fetch` of the user's cannot read one row
                    self._lost.add(name)
                self._tell(error)
                continue
            for one in ours:
                if one.name in read:
                    found[one.name] = read[one.name]
                else:
                    del found[one.name]
        for one in snapshots:
            seen = found.get(one.name)
            if isinstance(seen, StoreError):
                self._tell(seen)
                yield one, False
            elif seen is not None:
                # As it is where nobody read it: not of an application that is named, or the storage is down.
                yield seen, not (seen is one and one.is_stored)

    def place_of(self, snapshot: Snapshot) -> str:
        """Say where a payload lies that is not shown."""
        where = f"in the storage of machine {snapshot.machine}"
        app = config.resolve("app", self._place.app)
        if not app:
            return f"{where}: --app MODULE shows it"
        return f"{where}, which application {app} does not have" if self._is_unknown(snapshot.machine) else where

    def _is_unknown(self, machine: str) -> bool:
        known = self._known()
        return bool(known) and machine not in known

    def _known(self) -> dict[str, type[Machine[Any]]]:
        if self._machines is None:
            self._machines = {}
            try:
                self._machines = self._place.machines()
            except FSMError as error:
                self._tell(error)
        return self._machines

    def _again(self, names: Sequence[str]) -> list[Snapshot | None]:
        return self._client.do(verbs.states(self._client.keys, names, damaged_too=True))

    def _tell(self, error: FSMError) -> None:
        complain(error)
        self.is_complete = False
