"""How fast it is, measured beside what one would use instead.

`quick` is the everyday form, under 40 s. It stands on `machine` (what our worker runs), `peer` (what RQ's worker runs),
`lane` (FSMs and workers that are sent to, held and waited for), `worker` (one worker as a process), `meter` (what is
read out of Redis) and `report` (medians, table, JSON). They import `fsm` and RQ as any user does; nothing imports them.

The others stand on `suite` besides: rounds, medians, the command line, where results are kept.

- `throughput` sets us beside the queues that one would use instead, which are in `peers`, and beside the `ceiling`,
  what Redis takes for the commands alone.
- `enqueue`, `latency` and `overhead` measure the way of an event and what it costs, with the schedule of
  `arrivals` and the profiler `sampler`.
- `scale` and `slow` measure what grows, and what takes its time: each candidate in a lane of its own.

`page` makes the tables of docs/benchmarks.md of what was kept, `charts` its charts.
"""
