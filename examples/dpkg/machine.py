"""The life of a Debian package as dpkg writes it down: dpkg's own states, and every change that dpkg can log.

Who calls this: workers, as `--app examples.dpkg.machine`, and the replay of a log. It imports `fsm` only.

The states are those of dpkg(1), section "Package states"; `unknown` comes before them, since a log may begin anywhere
in the life of a package. An event bears the name of the status that was logged, so every edge leads to the state of its
name. The edges are taken from dpkg's source, not from some log. `modstatdb_note` (lib/dpkg/dbmodify.c) writes a status
line; what can follow what is decided by its callers, in src/main (src in older ones):

- Any status may be logged again. Up to dpkg 1.19.0 each call wrote a line, also when only the selection or a flag had
  changed; later ones still repeat what a new process has just read from its database (`status_dirty`).
- unpack.c, `process_archive`. A configured package: half-configured, prerm, unpacked. Then all: half-installed,
  preinst, files, unpacked. When that fails, cleanup.c goes back to where it came from: not-installed, config-files,
  half-installed or unpacked, and from there, by `post_postinst_tasks`, to one of the three configured states.
- unpack.c, `pkg_deconfigure_others`: half-configured, and back to a configured state if the installation fails.
- unpack.c, removal of a conflicting package: half-configured, half-installed, and back to a configured state if the
  installation fails; else as below.
- unpack.c, `pkg_disappear`: whatever has files may vanish to not-installed when another package has replaced them all.
- unpack.c, an upgrade that changes the architecture (`foo:all` to `foo:amd64`): the line before files are unpacked
  bears the old name, the one afterwards the new. So a name may come from not-installed to unpacked at once.
- configure.c, `deferred_configure`: unpacked, half-configured, then a configured state.
- remove.c, `deferred_remove`: half-configured, prerm (fails: back), half-installed, config-files, not-installed.
- trigproc.c and lib/dpkg/triglib.c, as deb-triggers(5) has it: a configured package awaits triggers or has some
  pending; these are run in half-configured; what was awaited falls away by itself. Where dpkg builds its trigger
  database anew (`trig_transitional_activate`), each configured state may turn into each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsm import Machine, Settings, Transition, on

__all__ = ["STATUSES", "UNKNOWN", "Change", "Package", "Record"]

UNKNOWN = "unknown"
STATUSES = (
    "not-installed",
    "config-files",
    "half-installed",
    "unpacked",
    "half-configured",
    "triggers-awaited",
    "triggers-pending",
    "installed",
)


@dataclass
class Change:
    """The data of an event: the rest of the status line.

    Args:
        at: When it was logged, `YYYY-MM-DD HH:MM:SS`; text, since dpkg writes local time and does not say where.
        version: Version of the package, `<none>` where there is none.
    """

    at: str
    version: str


@dataclass
class Record:
    """What a package carries along.

    Args:
        version: Its version by the last change.
        at: Time of the last change.
        changes: How many changes were applied. The FSM's version counts those that were refused or failed as well.
    """

    version: str = ""
    at: str = ""
    changes: int = 0


class Package(Machine[Record]):
    """A package of a Debian host."""

    # Nothing is final for a package: what is not-installed may be installed again.
    # One hour: the replay looks into the records of events that were not applied, once all are through.
    settings = Settings(endless=True, result_ttl="1h")
    diagram = """
    stateDiagram-v2
        state "not-installed" as not_installed
        state "config-files" as config_files
        state "half-installed" as half_installed
        state "half-configured" as half_configured
        state "triggers-awaited" as triggers_awaited
        state "triggers-pending" as triggers_pending

        [*] --> unknown
        unknown --> not_installed : not-installed
        unknown --> config_files : config-files
        unknown --> half_installed : half-installed
        unknown --> unpacked : unpacked
        unknown --> half_configured : half-configured
        unknown --> triggers_awaited : triggers-awaited
        unknown --> triggers_pending : triggers-pending
        unknown --> installed : installed

        not_installed --> not_installed : not-installed
        not_installed --> half_installed : half-installed
        not_installed --> unpacked : unpacked

        config_files --> config_files : config-files
        config_files --> half_installed : half-installed
        config_files --> not_installed : not-installed

        half_installed --> half_installed : half-installed
        half_installed --> unpacked : unpacked
        half_installed --> config_files : config-files
        half_installed --> not_installed : not-installed
        half_installed --> triggers_awaited : triggers-awaited
        half_installed --> triggers_pending : triggers-pending
        half_installed --> installed : installed

        unpacked --> unpacked : unpacked
        unpacked --> half_configured : half-configured
        unpacked --> half_installed : half-installed
        unpacked --> not_installed : not-installed
        unpacked --> triggers_awaited : triggers-awaited
        unpacked --> triggers_pending : triggers-pending
        unpacked --> installed : installed

        half_configured --> half_configured : half-configured
        half_configured --> triggers_awaited : triggers-awaited
        half_configured --> triggers_pending : triggers-pending
        half_configured --> installed : installed
        half_configured --> unpacked : unpacked
        half_configured --> half_installed : half-installed
        half_configured --> not_installed : not-installed

        triggers_awaited --> triggers_awaited : triggers-awaited
        triggers_awaited --> triggers_pending : triggers-pending
        triggers_awaited --> installed : installed
        triggers_awaited --> half_configured : half-configured
        triggers_awaited --> not_installed : not-installed

        triggers_pending --> triggers_pending : triggers-pending
        triggers_pending --> triggers_awaited : triggers-awaited
        triggers_pending --> installed : installed
        triggers_pending --> half_configured : half-configured
        triggers_pending --> not_installed : not-installed

        installed --> installed : installed
        installed --> triggers_awaited : triggers-awaited
        installed --> triggers_pending : triggers-pending
        installed --> half_configured : half-configured
        installed --> not_installed : not-installed
    """

    @on("not-installed")
    @on("config-files")
    @on("half-installed")
    @on("unpacked")
    @on("half-configured")
    @on("triggers-awaited")
    @on("triggers-pending")
    @on("installed")
    def note(self, t: Transition[Record], change: Change) -> None:
        """Write down what the line said; where it leads, the diagram says."""
        t.payload.version = change.version
        t.payload.at = change.at
        t.payload.changes += 1
