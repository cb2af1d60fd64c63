"""Where a command works: which Redis, which namespace, which application.

`fsm --url … state x` and `fsm state x --url …` mean the same: every command takes the options of the whole program as
well, and its own go before.

Who calls this: the commands. It may import the client and the app.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

import click

from fsm import app, config
from fsm.errors import ConfigError, UnknownMachineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsm.client import Client
    from fsm.machine import Machine
    from fsm.ring import ClusterInfo

__all__ = ["Place", "options", "placed"]


@dataclass(frozen=True, slots=True)
class Place:
    """What `--url`, `--namespace` and `--app` say; `None` is as `fsm.config.resolve` finds it.

    Args:
        url: Of Redis.
        namespace: The world of FSMs.
        app: `module` or `module:attribute`.
    """

    url: str | None = None
    namespace: str | None = None
    app: str | None = None

    def client(self, cluster: ClusterInfo | None = None, durability: str | None = None) -> Client:
        """Make a client; it connects at its first call. Where no durability is given, that of the settings counts.

        Raises:
            ConfigError: URL or namespace are wrong.
        """
        from fsm.client import Client  # noqa: PLC0415 - workers need none, and it is a tenth of their start

        return Client(self.url, namespace=self.namespace, cluster=cluster, durability=durability)

    def cluster(self) -> ClusterInfo | None:
        """Give who knows the hosts for the application; `None` where no application is named, or it leaves that to us.

        Raises:
            ConfigError: It cannot be imported, or holds no machines.
        """
        path = config.resolve("app", self.app)
        return app.cluster_of(path) if path else None

    def machines(self) -> dict[str, type[Machine[Any]]]:
        """Import the machines of the application, by name; none when no application is named.

        Raises:
            ConfigError: It cannot be imported, or holds no machines.
        """
        path = config.resolve("app", self.app)
        return {machine.definition.name: machine for machine in app.classes(path)} if path else {}

    def known_machine(self, text: str) -> type[Machine[Any]] | str:
        """Find a machine as `machine` does; where no application is named, its name will do, as workers announced it.

        Raises:
            ConfigError: What is named cannot be imported, or is not one machine.
            UnknownMachineError: The application has no machine of this name.
        """
        if ":" not in text and not config.resolve("app", self.app):
            return text
        return self.machine(text)

    def machine(self, text: str) -> type[Machine[Any]]:
        """Find a machine by its name in the application, or by `module:Class`.

        Raises:
            ConfigError: Nothing says where to look, or what is there is not one machine.
            UnknownMachineError: The application has no machine of this name.
        """
        if ":" in text:
            found = app.classes(text)
            if len(found) != 1:
                names = ", ".join(machine.definition.name for machine in found)
                raise ConfigError(f"machine {text!r}", f"that holds {len(found)} machines ({names}): name one of them")
            return found[0]
        if not config.resolve("app", self.app):
            problem = "no application is named: use --app MODULE, FSM_APP or [tool.fsm] app, or write module:Class"
            raise ConfigError(f"machine {text!r}", problem)
        known = self.machines()
        if text not in known:
            raise UnknownMachineError(text, tuple(known))
        return known[text]


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the whole program."""
    for option in (
        click.version_option(package_name="fsm-workers", prog_name="fsm", message="%(prog)s %(version)s"),
        click.option("--app", metavar="MODULE[:NAME]", help="Application.  [FSM_APP, else [tool.fsm]]"),
        click.option(
            "--namespace", metavar="NAME", help="World of FSMs.  [FSM_NAMESPACE, else [tool.fsm], else default]"
        ),
        click.option("--url", metavar="URL", help="Redis.  [FSM_URL, else [tool.fsm], else redis://localhost:6379/0]"),
    ):
        function = option(function)
    return function


def placed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the whole program, and its `Place` as first argument."""

    def run(url: str | None, namespace: str | None, app: str | None, **rest: Any) -> Any:
        whole = click.get_current_context().find_object(Place) or Place()
        place = Place(
            whole.url if url is None else url,
            whole.namespace if namespace is None else namespace,
            whole.app if app is None else app,
        )
        return function(place, **rest)

    return options(update_wrapper(run, function))
