"""Processes that run FSMs.

Reading order: `worker` (the RQ worker), `intake` (how it takes work), `activation` (one claimed FSM), `executors` (who
runs user code), `lease` (the essay on the lock, and the thread that renews it), `carrier` (what happens while Redis is
away), `jobs` (what stock RQ workers import), `command` (`fsm worker`).

Who starts them: `fsm worker`, `python -m workers`. They import `fsm`; nothing in `fsm` imports them.
"""
