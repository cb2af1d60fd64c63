"""All that touches Redis.

Reading order: `keys` (every name, and what it holds), `lua/` (one script a file, each with its contract in its header),
`requests` (commands as values, and how they are carried), `calls` and `commits` (the arguments of each script),
`codec` and `records` (what stands in snapshots, jobs and results), `connection` and `embedded`.

Who calls this: client, registry and workers. It may import `fsm.engine`, `fsm.machine`, `fsm.errors`.
"""
