"""The queues that one would use instead, each doing the same work, in an environment of its own.

A peer is a module here, named as its package, with two functions: `enqueue(names)` loads its queue with one job for
each entity, `work(mode)` becomes its worker and does not come back. It is run in the peer's own interpreter by `door`,
so it may import its package, `bench.peers.work` and nothing of ours that needs more than these. BullMQ is a file of
Node's with the same two verbs, `node/bullmq.mjs`.

`catalogue` lists them with the settings they are given, `environment` installs them, `drain` runs one of them on our
side and measures it.
"""
