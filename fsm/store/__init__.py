"""All that touches Redis.

Reading order: `keys` (every name, and what it holds), `lua/` (one script a file, each with its contract in its header),
`requests` (commands as values, and how they are carried), `blueprint` (what a starter has to know of a machine),
`calls`, `commits` and `effects` (the arguments of each script), `presence` (heartbeats, and who went silent), `codec`
and `records` (what stands in snapshots, jobs and results), `connection`, `embedded` and `memory` (worlds in this
process).

Who calls this: client, registry and workers. It may import `fsm.engine`, `fsm.machine`, `fsm.errors`.
"""
