"""How fast it is, measured beside what one would use instead.

`quick` is the everyday form, under 40 s. It stands on `machine` (what our worker runs), `peer` (what RQ's worker runs),
`worker` (our worker as a process that can be held), `meter` (what is read out of Redis) and `report` (medians, table,
JSON). They import `fsm` and RQ as any user does; nothing imports them.

`scale` and `slow` measure what grows, and what takes its time: each candidate in a `lane` of its own. `page` makes the
tables of docs/benchmarks.md of what was kept, `charts` its charts.
"""
