"""How commands become bytes: hiredis packs them, and is given no numbers.

Python runs the handlers of signals that came whenever `repr` is called, and hiredis calls it for each number, without a
look at whether that raised (3.5.0: `pack_command` in its `pack.c`). Workers are full of handlers that raise: RQ's for
SIGTERM, ours for a second one, and the alarm of an event that takes too long. Where one of them came upon a number the
whole process ended with SIGSEGV, without giving back what it held. So numbers are turned into text before.

Who calls this: `connection`, for each pool that it makes, and `wire`.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from redis.connection import HiredisRespSerializer
from redis.exceptions import DataError
from redis.utils import HIREDIS_AVAILABLE

if HIREDIS_AVAILABLE:
    from hiredis import pack_command

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Packer", "packed", "packer"]


class Packer(HiredisRespSerializer):
    """Packs commands as redis-py does with hiredis; an error that a signal raises meanwhile is an error like others."""

    def pack(self, *args: Any) -> list[bytes]:
        """Pack a command.

        Raises:
            DataError: An argument is none of bytes, text, int and float.
        """
        # The long ones are of text and bytes alone, which is seen much sooner than it is done for each.
        is_whole = _WHOLE.issuperset(map(type, args))
        words = args if is_whole else tuple([arg if type(arg) in _WHOLE else _said(arg) for arg in args])
        if type(words[0]) is not str or " " in words[0]:
            packed: list[bytes] = super().pack(*words)  # it takes such names apart
            return packed
        # Not by way of redis-py, which would look at each argument once more.
        try:
            return [pack_command(words)]
        except TypeError as error:
            raise DataError(error) from error


def packed(commands: Sequence[tuple[Any, ...]], connection: Any) -> bytes:
    """Pack commands for a connection of redis-py, in one piece; many short ones cost half of what each by itself does.

    Raises:
        DataError: An argument is none of bytes, text, int and float.
    """
    is_plain = HIREDIS_AVAILABLE and _WHOLE.issuperset(map(type, chain.from_iterable(commands)))
    if is_plain and not any(type(name) is bytes or " " in name for name in {command[0] for command in commands}):
        return b"".join([pack_command(command) for command in commands])
    return b"".join([chunk for command in commands for chunk in connection.pack_command(*command)])


def packer() -> Packer | None:
    """Give what packs the commands of a connection; `None` lets redis-py do it where hiredis is missing."""
    return Packer() if HIREDIS_AVAILABLE else None


_WHOLE = frozenset((bytes, str))


def _said(arg: Any) -> Any:
    # As hiredis writes them; what it refuses, such as True and None, is left for it to refuse.
    if type(arg) is int or isinstance(arg, float):
        return repr(arg)
    return bytes(arg) if isinstance(arg, (bytearray, memoryview)) else arg
