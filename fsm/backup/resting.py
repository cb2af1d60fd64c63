"""How FSMs that rest are written: at once, without a `SavedFSM` in between, for nearly all that are saved are such.

A line is the same, byte for byte, as that which `form` writes of it. Whatever is not of the usual form (text that JSON
writes otherwise, a payload that is none) goes by way of it.

Who calls this: the plans of `saving`. Pure.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from fsm.backup.form import is_json, resting_fsm, write_line
from fsm.machine.marks import read_mark

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Resting", "resting"]

# What stands in JSON other than it stands in text. Of more than ASCII it would have to be seen whether it is UTF-8.
_UNPLAIN = re.compile(rb'["\\\x00-\x1f\x80-\xff]')
_END = b'"}'
_END_STORED = b'","is_stored":true}'


class Resting(NamedTuple):
    """An FSM that has nothing but its snapshot, all but since when it is in its state.

    Args:
        name: Its name.
        begin: Of its line, up to where this stands.
        end: Of its line, behind it.
        machine: Its machine; b"" where there is none or it is no UTF-8, and so with the following.
        state: Its state.
        status: Its status, b"" of most.
        updated_at: When it was written last.
    """

    name: bytes
    begin: bytes
    end: bytes
    machine: bytes
    state: bytes
    status: bytes
    updated_at: bytes

    @property
    def is_stored(self) -> bool:
        """Whether its payload lies in the storage of its machine."""
        return self.end is _END_STORED


def resting(name: bytes, snapshot: list[bytes]) -> Resting:
    """Give what `resting_fsm` gives as it is written; nearly every FSM is such a one, and soon done.

    Args:
        name: Of the FSM.
        snapshot: As HGETALL lists it.
    """
    pattern = _pattern(tuple(snapshot[::2]))
    if pattern is None:
        return _any_resting(name, snapshot)
    values = snapshot[1::2]
    payload = values.pop(pattern.payload)
    if _UNPLAIN.search(b" ".join(values)) or _UNPLAIN.search(name) or not is_json(payload):
        return _any_resting(name, snapshot)
    values.append(b"")
    mark = values[pattern.definition]
    end = _END_STORED if mark.endswith(b"+s") and read_mark(mark.decode()).is_stored else _END
    return Resting(
        name,
        pattern.line % (name, *values[:-1], payload),
        end,
        values[pattern.machine],
        values[pattern.state],
        values[pattern.status],
        values[pattern.updated_at],
    )


class _Pattern(NamedTuple):
    """How FSMs are written whose snapshots have the same fields in the same order.

    Args:
        line: For `%`: takes the name, the fields and the payload.
        payload: Where it is among the fields. Where the others are without it follows, -1 where there is none.
    """

    line: bytes
    payload: int
    machine: int
    state: int
    status: int
    updated_at: int
    definition: int


@lru_cache(maxsize=256)  # as many as there are orders; a few, for most fields are there always
def _pattern(fields: tuple[bytes, ...]) -> _Pattern | None:
    """Make the pattern of snapshots; `None` where they are none of ours."""
    if b"payload" not in fields or _UNPLAIN.search(b" ".join(fields)):
        return None
    others = [field for field in fields if field != b"payload"]
    said = b",".join([b'"%b":"%%b"' % field.replace(b"%", b"%%") for field in others])
    line = b'{"kind":"fsm","name":"%%b","fields":{%b},"payload":%%b,"since":"' % said
    known = (b"machine", b"state", b"status", b"updated_at", b"definition")
    return _Pattern(line, fields.index(b"payload"), *[others.index(one) if one in others else -1 for one in known])


def _any_resting(name: bytes, snapshot: Sequence[bytes]) -> Resting:
    """Give an FSM of whatever form, as it is written."""
    line = resting_fsm(name, snapshot)
    end = _END_STORED if line.is_stored else _END
    line.is_stored = False
    said = map(line.fields.get, ("machine", "state", "status", "updated_at"))
    about = [one.encode() if isinstance(one, str) else b"" for one in said]
    return Resting(name, write_line(line)[:-1] + b',"since":"', end, *about)
