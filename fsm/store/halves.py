"""A commit in two halves: what of a block a storage is told, and what Redis is told, now or by whoever comes later.

A machine with a storage has its payloads there. Its commit is laid out as any other, and then cut: the payload goes to
the storage, together with the other half, packed; that other half then goes to Redis. Where a worker does not come to
it, the next one that claims the FSM finds the row ahead of Redis, unpacks the half that lies in it, and sends it under
its own token. Ids of what it sends are fixed in it: whoever sends it, it is the same.

Who calls this: `workers.stored`, with what `Block.arguments` gave. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsm.store.calls import Claimed

__all__ = ["PLACEHOLDER", "Half", "read_half", "unpack"]

# What the snapshot has in the place of a payload that lies in a storage.
PLACEHOLDER = b'{"[storage]":"sql"}'
# The first byte of what is packed: its form. A worker that does not know it leaves it to one that does.
_FORM = b"\x01"
# Places in a block: name, token and lines of the log lie before its version, and behind that what is of the FSM alone.
_TOKEN, _LINES, _VERSION, _REST = 2, 3, 4, 5
# Places in its frame, as `Block.arguments` lays it out.
_F_TOKEN, _F_QUEUE, _F_STATE, _F_AFTER = 0, 1, 5, 6
_F_PAYLOAD, _F_SETS, _F_DROPS, _F_URGENT, _F_DONE, _F_COUNT, _F_SIZE = 8, 9, 10, 11, 12, 13, 14
# How many arguments each operation has, as the header of `commit` says; of an effect those before its fields.
_SIZES = {
    "N": 3,
    "K": 1,
    "D": 3,
    "F": 4,
    "R": 4,
    "U": 2,
    "G": 1,
    "S": 4,
    "L": 5,
    "C": 12,
    "A": 2,
    "X": 1,
    "Y": 0,
    "Z": 0,
}
_SIZES |= {"H": 2, "E": 5}
# What a worker that finishes the work of another clears: they were charged to an event that has ended by then.
_CLEARED = ("tries", "probation", "retry_at")


class Half:
    """A block, as far as a storage must know it.

    Args:
        block: As `Block.arguments` laid it out.
    """

    def __init__(self, block: list[Any]) -> None:
        self._block = block
        self._frame: tuple[Any, ...] = block[0]
        frame = self._frame
        self._sets = _REST + frame[_F_PAYLOAD]
        self._drops = self._sets + 2 * frame[_F_SETS]
        self._done = self._drops + frame[_F_DROPS]

    @property
    def version(self) -> int:
        """Version of the FSM after it."""
        return int(self._block[_VERSION])

    @property
    def state(self) -> str:
        """Where the FSM stands after it."""
        return str(self._frame[_F_AFTER])

    @property
    def payload(self) -> bytes | None:
        """The payload, where it changed."""
        return self._block[_REST] if self._frame[_F_PAYLOAD] else None

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the snapshot that it writes."""
        of = self._block[self._sets : self._drops]
        return dict(zip(of[::2], of[1::2], strict=True))

    @property
    def dropped(self) -> list[str]:
        """Fields of the snapshot that it removes."""
        return self._block[self._drops : self._done]

    def error(self, before: bytes) -> bytes:
        """Give the last failure as it stands after it, JSON or empty; `before` is what it was."""
        raw = self.fields.get("error")
        if raw is None:
            return b"" if "error" in self.dropped else before
        return raw.encode() if isinstance(raw, str) else raw

    @property
    def done(self) -> list[str]:
        """Ids of the mailbox that it takes out, in their order."""
        count, step = self._frame[_F_DONE], 2 if self._frame[_F_COUNT] < 0 else 1
        return self._block[self._done : self._done + count * step : step]

    @property
    def lines(self) -> bytes:
        """Its lines of the log."""
        raw = self._block[_LINES]
        return raw.encode() if isinstance(raw, str) else raw

    def operations(self) -> list[list[Any]]:
        """Give what it says beside fields and ids, each with its arguments; what was applied is among them.

        Raises:
            ValueError: An operation is not known here.
        """
        block, frame = self._block, self._frame
        if frame[_F_COUNT] < 0:
            return [["D", job_id, block[self._done + 2 * k + 1], ""] for k, job_id in enumerate(self.done)]
        found, at = [], self._done + frame[_F_DONE]
        while at < len(block):
            size = _SIZES.get(block[at])
            if size is None:
                problem = f"operation {block[at]!r} is not known here"
                raise ValueError(problem)
            if block[at] == "E":
                size += 2 * int(block[at + size])
            found.append(block[at : at + size + 1])
            at += size + 1
        return found

    def with_payload(self, payload: bytes | None) -> list[Any]:
        """Give the block with another payload, or with none."""
        rest = self._block[self._sets :]
        block = [*self._block[:_REST], *([] if payload is None else [payload]), *rest]
        return _framed(block, self._frame, {_F_PAYLOAD: 0 if payload is None else 1})

    def without(self, field: str) -> list[Any]:
        """Give the block without a field that it would write."""
        block = list(self._block)
        for at in range(self._sets, self._drops, 2):
            if block[at] == field:
                del block[at : at + 2]
                return _framed(block, self._frame, {_F_SETS: self._frame[_F_SETS] - 1})
        return block

    def pack(self) -> bytes:
        """Pack it, so that `unpack` gives it to whoever claims the FSM next."""
        return _FORM + msgspec.msgpack.encode(self._block)


def read_half(packed: bytes) -> Half:
    """Read what a worker packed.

    Raises:
        ValueError: It is of another form, or no block.
    """
    if packed[:1] != _FORM:
        problem = f"its form is {packed[:1]!r}, and {_FORM!r} is what is known here"
        raise ValueError(problem)
    try:
        half = Half(msgspec.msgpack.decode(packed[1:]))
        _ = half.version, half.done, half.dropped, half.fields
    except (msgspec.MsgspecError, TypeError, IndexError, AttributeError, ValueError) as error:
        problem = f"it is no block: {error}"
        raise ValueError(problem) from error
    return half


def unpack(packed: bytes, fsm: Claimed, *, clears_error: bool = False) -> list[Any]:
    """Give what a worker packed, as the block of the one that holds the FSM now.

    Args:
        packed: As `Half.pack` gave it.
        fsm: The claim: its token is what Redis compares.
        clears_error: Forget the last failure as well: it was noted when the block had been packed already.

    Raises:
        ValueError: It is of another form, or no block.
    """
    half = read_half(packed)
    block, done, dropped = half._block, half.done, half.dropped  # noqa: SLF001 - of this module
    count = block[0][_F_COUNT]
    if clears_error:
        if count < 0:
            # Each id is followed by its result: here they are operations, as of any block that has others too.
            results = block[half._done + 1 :: 2]  # noqa: SLF001 - of this module
            ended = [part for one, result in zip(done, results, strict=True) for part in ("D", one, result, "")]
            block[half._done :] = [*done, *ended]  # noqa: SLF001 - as above
            count = len(done)
        block.append("Z")
        count += 1
    fields = (*_CLEARED, "error") if clears_error else _CLEARED
    cleared = [field for field in fields if field not in dropped]
    at = half._done  # noqa: SLF001 - of this module
    block[at:at] = cleared
    block[_TOKEN] = fsm.token
    # Urgent mail is taken out by number, and not by id: only where it still lies there.
    first = fsm.mail[0].job_id if fsm.mail else ""
    urgent = block[0][_F_URGENT] if done and done[0] == first else 0
    changed = {
        _F_TOKEN: fsm.token,
        _F_QUEUE: fsm.queue,
        _F_STATE: fsm.state,
        _F_DROPS: len(dropped) + len(cleared),
        _F_URGENT: urgent,
        _F_COUNT: count,
    }
    return _framed(block, block[0], changed)


def _framed(block: list[Any], frame: Sequence[Any], changed: dict[int, Any]) -> list[Any]:
    """Give a block its frame, with what has changed in it."""
    now = list(frame)
    for at, value in changed.items():
        now[at] = value
    now[_F_SIZE] = len(block) - _VERSION
    block[0] = tuple(now)
    return block
