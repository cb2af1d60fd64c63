"""The `fsm` command, one module per group of commands.

Reading order: `root` (the program, and how commands end), `place` (which Redis, namespace, application), `lengths` (of
time), `printing` (tables, text and JSON); then the commands: `sending` (start, transition), `purging`, `durable` (sync,
and the option `--durability`), `states` (state, ls), `visits` (wait, history), `jobs`, `log`, `cluster` (machines,
info), `settings` (config), `diagrams` (check, draw; `graphviz` makes its pictures). `worker` lives with the processes,
in `workers.command`.

Who calls this: the console script. It may import everything in `fsm` but the test kit.
"""

from fsm.cli.root import main

__all__ = ["main"]
