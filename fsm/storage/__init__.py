"""Storages: where snapshots may lie beside Redis, which keeps mail, order, locks and timers in any case.

Reading order: `protocol` (what a storage is, for users and for workers).

Who calls this: applications give a machine its storage; the client reads by it; workers load and store by it.
"""
