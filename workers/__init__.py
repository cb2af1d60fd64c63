"""Processes that run FSMs.

Reading order: `worker` (the RQ worker), `intake` (how it takes work), `batch` (what it has in hand, and who relieves it
of the rest), `activation` (one claimed FSM), `executors` (who runs user code), `hands`, `crew` and `timekeeper` (the
three of them where several run side by side: what is in hand, who runs it, and for how long), `committer` (how commits
leave it), `carrier` (how requests get to Redis, also when it was away), `lease` (the essay on the lock, and the thread
that renews it), `pulse` (how it tells that it lives), `answers` (how effects come back), `effects` (RQ's worker beside
ours), `serving` (one FSM claimed, run and committed by itself), `jobs` (what stock RQ workers import), `inline` (the
worker behind `memory://`), `stderr` (its log), `command` (`fsm worker`).

Who starts them: `fsm worker`, `python -m workers`. They import `fsm`; nothing in `fsm` imports them.
"""
