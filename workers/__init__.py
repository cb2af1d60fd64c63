"""Processes that run FSMs.

Reading order: `worker` (the RQ worker), `activation` (one claimed FSM), `executors` (who runs user code), `lease` (the
essay on the lock, and the thread that renews it), `jobs` (what stock RQ workers import).

Who starts them: `fsm worker`, `python -m workers`. They import `fsm`; nothing in `fsm` imports them.
"""
