"""The `fsm` command: its subcommands by name, and how every one of them ends.

Exit codes: 0 done, 1 refused or failed, 2 wrong use, 130 interrupted by Ctrl-C. An error is one sentence on stderr;
a reader that goes away (`| head`) is no error.

Who calls this: the console script `fsm`, and `python -m workers`.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from contextlib import suppress
from typing import Any

import click

from fsm.cli.place import Place, options
from fsm.errors import ConfigError, FSMError

__all__ = ["main"]

_FAILED = 1
_WRONG_USE = 2
_INTERRUPTED = 130

# Looked up when they are asked for: a command pays for its own imports only, and what runs FSMs lies outside this
# package, which may not import it.
_COMMANDS = {
    "worker": "workers.command:worker",
    "start": "fsm.cli.sending:start",
    "transition": "fsm.cli.sending:transition",
    "state": "fsm.cli.states:state",
    "ls": "fsm.cli.states:ls",
    "all": "fsm.cli.cluster:running",
    "count": "fsm.cli.cluster:count",
    "jobs": "fsm.cli.jobs:jobs",
    "timers": "fsm.cli.timers:timers",
    "history": "fsm.cli.visits:history",
    "wait": "fsm.cli.visits:wait",
    "log": "fsm.cli.log:log",
    "machines": "fsm.cli.cluster:machines",
    "info": "fsm.cli.cluster:info",
    "whois": "fsm.cli.whois:whois",
    "config": "fsm.cli.settings:show_config",
    "retry": "fsm.cli.steering:retry",
    "skip": "fsm.cli.steering:skip",
    "tick": "fsm.cli.timers:tick",
    "pause": "fsm.cli.steering:pause",
    "resume": "fsm.cli.steering:resume",
    "purge": "fsm.cli.purging:purge",
    "synch": "fsm.cli.synching:synch",
    "sync": "fsm.cli.durable:sync",
    "drain": "fsm.cli.draining:drain",
    "backup": "fsm.cli.archive:backup",
    "storage": "fsm.cli.storage:storage",
    "check": "fsm.cli.diagrams:check",
    "draw": "fsm.cli.diagrams:draw",
}

# The headings of `fsm --help`: each stands before this command, and counts up to the next.
_HEADINGS = {"worker": "Run", "state": "Look", "retry": "Put right", "check": "Draw"}


class Failure(click.ClickException):
    """An error of ours, as it is shown."""

    exit_code = _FAILED

    def show(self, file: Any = None) -> None:
        """Print it on stderr."""
        click.echo(f"fsm: {self.message}", file=file, err=True)


class WrongUse(Failure):
    """An option, setting or URL is wrong."""

    exit_code = _WRONG_USE


class Commands(click.Group):
    """The subcommands, loaded when asked for, and the end of each."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Give the names, in the order in which one meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Load one command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands under their headings."""
        widest = max(map(len, _COMMANDS))
        sections: dict[str, list[tuple[str, str]]] = {}
        heading = ""
        for name in self.list_commands(ctx):
            heading = _HEADINGS.get(name, heading)
            command = self.get_command(ctx, name)
            if command is not None:
                help_text = command.get_short_help_str(formatter.width - widest - 6)
                sections.setdefault(heading, []).append((name.ljust(widest), help_text))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand, and turn whatever ends it into a sentence and an exit code."""
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            try:
                result = super().invoke(ctx)
                # Here, where it can be caught: a reader that has gone is noticed at the last flush.
                sys.stdout.flush()
            except ConfigError as error:
                raise WrongUse(str(error)) from error
            except FSMError as error:
                raise Failure(str(error)) from error
            except (KeyboardInterrupt, click.Abort):
                ctx.exit(_INTERRUPTED)
            except BrokenPipeError:
                _hush()
                ctx.exit(0)
            return result


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"fsm: warning: {message}", err=True)


def _hush() -> None:
    """Send what Python still flushes at its end to nowhere: the reader of our output has gone."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@options
@click.pass_context
def main(ctx: click.Context, url: str | None, namespace: str | None, app: str | None) -> None:
    """Durable finite state machines on Redis and RQ.

    Tables are for terminals; piped, a line is tab-separated fields without a header, and --json gives JSON.
    """
    ctx.obj = Place(url, namespace, app)
