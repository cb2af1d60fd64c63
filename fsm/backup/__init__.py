"""Backups: what lies in Redis as a file that is whole or is not taken, and back.

`form` says what a line is, `file` how lines become a file of which every byte is proven, `directory` where files lie
and which of them is the good one. None of these three knows Redis.

Who calls this: the client, by `fsm.archive`, and the commands. It may import the store and what lies below.
"""

__all__ = ["DIRECTORY", "MAX_SNAPSHOTS"]

# Where the commands look when they are told nothing else.
DIRECTORY = "backups"
MAX_SNAPSHOTS = 10
