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

from fsm.app import App
from fsm.client import Client
from fsm.engine import Goto, Outcome, Reject, Retry, Stay, Transition
from fsm.errors import (
    AbandonedError,
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
    UnknownMachineError,
    ValidationError,
)
from fsm.handles import FSMHandle, TransitionJob
from fsm.machine import Graph, Machine, RetryPolicy, Settings, enter, guard, leave, on, parse
from fsm.store.codec import Snapshot
from fsm.verbs import Verdict

__all__ = [  # noqa: RUF022 - grouped by what a reader looks for
    # what a machine is made of
    "Graph",
    "Machine",
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
    "App",
    "Client",
    "FSMHandle",
    "Outcome",
    "Snapshot",
    "TransitionJob",
    "Verdict",
    # errors
    "AbandonedError",
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
    "UnknownMachineError",
    "ValidationError",
]
