"""Durable finite state machines on Redis and RQ: all that applications import.

>>> from fsm import Machine, Settings
>>> class Door(Machine):
...     settings = Settings(endless=True)
...     diagram = '''
...     stateDiagram-v2
...         [*] --> closed
...         closed --> open : push
...         open --> closed : pull
...     '''
>>> Door.graph.allowed("closed")
('push',)
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from fsm.app import App
    from fsm.archive import Restored, Saved
    from fsm.backup.choosing import Backup
    from fsm.backup.directory import Backups
    from fsm.client import Client
    from fsm.engine import Goto, Migration, Outcome, Reject, Retry, Stay, Transition
    from fsm.errors import (
        AbandonedError,
        BackupError,
        CallTimeoutError,
        ConfigError,
        DefinitionError,
        DiagramError,
        FailedError,
        FSMError,
        FSMExistsError,
        FSMFinishedError,
        HandlerError,
        HandlerTimeoutError,
        InvalidDataError,
        KeyConflictError,
        MailboxFullError,
        NotAllowedError,
        PayloadError,
        RefusedError,
        RejectedError,
        StaleLockError,
        StaleVersionError,
        StoreError,
        TransitionError,
        UnknownFSMError,
        UnknownHostError,
        UnknownMachineError,
        ValidationError,
    )
    from fsm.handles import FSMHandle, TransitionJob
    from fsm.machine import Graph, Machine, RetryPolicy, Settings, enter, guard, leave, on, parse
    from fsm.registry import Cluster, HostView, QueueView, WorkerView
    from fsm.ring import ClusterInfo, HashRing
    from fsm.storage import MemoryStorage, Owner, Persistable, RedisStorage, SqlStorage, Storage, Stored, StoredPage
    from fsm.store.codec import Snapshot
    from fsm.store.durability import Synced
    from fsm.store.synching import Repair
    from fsm.verbs import Agenda, DeployCheck, Drained, Finding, Page, Running, Snapshots, TimerView, Timetable, Verdict

__all__ = [  # noqa: RUF022 - grouped by what a reader looks for
    # what a machine is made of
    "Graph",
    "Machine",
    "Migration",
    "RetryPolicy",
    "Settings",
    "Transition",
    "enter",
    "guard",
    "leave",
    "on",
    "parse",
    # what a handler answers
    "Goto",
    "Reject",
    "Retry",
    "Stay",
    # what applications call
    "Agenda",
    "App",
    "Backups",
    "Client",
    "ClusterInfo",
    "Drained",
    "FSMHandle",
    "HashRing",
    "Outcome",
    "Repair",
    "Snapshot",
    "Synced",
    "TimerView",
    "Timetable",
    "TransitionJob",
    "Verdict",
    # what they are told of all FSMs
    "Backup",
    "Cluster",
    "DeployCheck",
    "Finding",
    "HostView",
    "Page",
    "QueueView",
    "Restored",
    "Running",
    "Saved",
    "Snapshots",
    "WorkerView",
    # where snapshots may lie beside Redis
    "MemoryStorage",
    "Owner",
    "Persistable",
    "RedisStorage",
    "SqlStorage",
    "Storage",
    "Stored",
    "StoredPage",
    # errors
    "AbandonedError",
    "BackupError",
    "CallTimeoutError",
    "ConfigError",
    "DefinitionError",
    "DiagramError",
    "FSMError",
    "FSMExistsError",
    "FSMFinishedError",
    "FailedError",
    "HandlerError",
    "HandlerTimeoutError",
    "InvalidDataError",
    "KeyConflictError",
    "MailboxFullError",
    "NotAllowedError",
    "PayloadError",
    "RefusedError",
    "RejectedError",
    "StaleLockError",
    "StaleVersionError",
    "StoreError",
    "TransitionError",
    "UnknownFSMError",
    "UnknownHostError",
    "UnknownMachineError",
    "ValidationError",
]

# Where to look for them, the cheap ones first. They are looked up when they are asked for: pytest imports our plugin in
# every run, and the command line asks for few of them; neither is to pay for Redis, RQ and all of this.
_ROOMS = (
    "errors",
    "machine",
    "engine",
    "app",
    "client",
    "handles",
    "ring",
    "store.codec",
    "verbs",
    "registry",
    "store.synching",
    "store.durability",
    "archive",
    "backup.choosing",
    "backup.directory",
    "storage",
)

if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for."""
        if name in __all__:
            for room in _ROOMS:
                found = vars(importlib.import_module(f"{__name__}.{room}"))
                if name in found.get("__all__", ()):
                    return globals().setdefault(name, found[name])
        problem = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(problem)

    def __dir__() -> list[str]:
        """Tell what can be asked for."""
        return sorted({*globals(), *__all__})
