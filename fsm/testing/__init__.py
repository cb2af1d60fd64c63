"""What applications test their machines with: without Redis, and with all that is real.

`trial` runs one FSM in memory; `cover` tells which edges no trial walked; `Client("memory://")` is for the code around
machines; the fixtures of `plugin` (`fsm_client`, `fsm_worker`) are for the whole, with a real Redis and real workers,
which die at a `FaultPoint` where a test wants to see what becomes of their work. A `Clock` moves the time.

Reading order: `outbox` (what a test sees of what a handler sent), `driver` (who runs user code), `walking` (which edge
a step walked), `covering`, `agenda` (what is yet to come), `looks` (what a test sees of its FSM), `trials`,
`beginning`; `plugin`, `processes` (worker processes of a test), `host` (how one gets the machines of a test module),
`faults` (where one is killed, stopped or delayed), `clock`.

Who calls this: tests of applications; the worker behind `memory://` uses the driver. Names are looked up when they are
asked for: pytest imports the plugin in every run, and must not pay for Redis and RQ there.

>>> from fsm import Machine
>>> from fsm.testing import cover, trial
>>> class Door(Machine):
...     diagram = '''
...     stateDiagram-v2
...         [*] --> closed
...         closed --> open : push
...         open --> [*] : leave
...     '''
>>> with cover(Door) as walked:
...     door = trial(Door)
...     door.send("push").state
'open'
>>> walked.missing
('open --> [*] : leave',)
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from fsm.testing.beginning import trial
    from fsm.testing.clock import Clock
    from fsm.testing.covering import Cover, cover
    from fsm.testing.faults import FaultPoint
    from fsm.testing.trials import Trial

__all__ = ["Clock", "Cover", "FaultPoint", "Trial", "cover", "trial"]

_HOMES = {
    "Clock": "clock",
    "Cover": "covering",
    "FaultPoint": "faults",
    "Trial": "trials",
    "cover": "covering",
    "trial": "beginning",
}

if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for."""
        if name not in _HOMES:
            problem = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(problem)
        found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return globals().setdefault(name, found)
