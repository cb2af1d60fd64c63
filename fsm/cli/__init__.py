"""The `fsm` command, one module per group of commands.

Reading order: `root` (the program, and how commands end), `place` (which Redis, namespace, application), `lengths` (of
time), `printing` (tables, text and JSON); then the commands: `sending` (start, transition), `purging`, `durable` (sync,
and the option `--durability`), `states` (state, ls), `visits` (wait, history), `jobs`, `log`, `cluster` (machines,
info), `settings` (config), `diagrams` (check, draw; `graphviz` makes its pictures). `worker` lives with the processes,
in `workers.command`.

Who calls this: the console script. It may import everything in `fsm` but the test kit.
"""

import atexit
import gc

# Of what imports make hardly anything is garbage, and Python looks for it after every 700 objects, and once more in
# all of them at its end: a quarter of what the shortest command takes. A worker, too, loses nothing by looking later:
# nearly all that it makes is freed without.
gc.set_threshold(20_000, 10, 10)
atexit.register(gc.freeze)

from fsm.cli.root import main  # noqa: E402 - what goes before is about this import

__all__ = ["main"]
