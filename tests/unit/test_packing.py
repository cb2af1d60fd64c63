"""Commands on their way into bytes, while signals come."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from redis.exceptions import DataError

from fsm.store.connection import connect
from fsm.store.packing import Packer

# As if a signal had come whose handler raises: `repr` is where Python runs it.
INTERRUPTED = """
from fsm.store.connection import connect

class Stop(Exception):
    pass

class Number(float):
    def __repr__(self):
        raise Stop

connection = connect("redis://localhost", check=False).connection_pool.make_connection()
try:
    connection.pack_command("BLMOVE", "list", "hand", Number(1))
except Stop:
    print("stopped")
"""


def test_a_signal_that_raises_while_a_command_is_packed_does_not_crash_the_process() -> None:
    # Seen to fail with redis-py's own packer: SIGSEGV.
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


@pytest.mark.parametrize(
    ("arg", "text"),
    [
        (7, b"7"),
        (-(10**30), b"-" + b"1" + b"0" * 30),
        (1.5, b"1.5"),
        (1e30, b"1e+30"),
        ("ä", "ä".encode()),
        (b"\0", b"\0"),
    ],
)
def test_commands_are_packed_as_redis_py_packs_them(arg: Any, text: bytes) -> None:
    pool = connect("redis://localhost", check=False).connection_pool
    packed = b"".join(pool.make_connection().pack_command("CLIENT KILL", arg))

    assert packed == b"*3\r\n$6\r\nCLIENT\r\n$4\r\nKILL\r\n$%d\r\n%s\r\n" % (len(text), text)


@pytest.mark.parametrize("arg", [None, True, [1], object()])
def test_what_is_no_argument_is_refused(arg: Any) -> None:
    with pytest.raises(DataError):
        Packer().pack("SET", "key", arg)
