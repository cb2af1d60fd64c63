"""What a line of a backup is: one JSON object, and how what lies in Redis becomes one and comes out again.

Text of Redis is text here; what is no UTF-8 is `{"b64": …}`. Payloads, data of events and announcements are JSON, and
stand in a line as they are, byte for byte: `zcat | jq` reads them, and they come back as they went. What ought to be
JSON and is none, or would break the line, stays text among the fields, so nothing is too damaged to be saved.

Format 1 is described in docs/backup-format.md. A reader of it passes over fields that it does not know.

Who calls this: `file`, and those who save and restore. Pure.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import msgspec
import orjson
from msgspec import UNSET, Raw, UnsetType

from fsm.machine.json_values import MAX_DEPTH
from fsm.machine.marks import read_mark
from fsm.store.codec import event_data, job_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "FORMAT",
    "Bytes",
    "End",
    "Header",
    "Line",
    "SavedEvent",
    "SavedFSM",
    "SavedLog",
    "SavedMachine",
    "SavedResting",
    "Text",
    "fields_of",
    "is_json",
    "is_stored",
    "raw_of",
    "read_line",
    "resting_fsm",
    "saved_event",
    "saved_fsm",
    "saved_machine",
    "text_of",
    "write_line",
]

FORMAT = 1

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NO_BRACKETS = re.compile(rb"[^\[\]{}]+")
_OPENING = b"[{"
_SPACE = b" \t"


class Bytes(msgspec.Struct, frozen=True):
    """What is no UTF-8, as base64."""

    b64: bytes


Text: TypeAlias = str | Bytes


class Header(msgspec.Struct, tag_field="kind", tag="header", omit_defaults=True):
    """The first line.

    Args:
        id: Of this backup, as `directory` makes it.
        created_at: When it was begun, UTC in RFC 3339.
        namespace: The one that was saved.
        program: Which version of what wrote it.
        redis: Version of the server that it was taken from.
        scope: Everything, or one FSM that was exported.
        format: `FORMAT`; another one cannot be read.
    """

    id: str
    created_at: str
    namespace: str
    program: str
    redis: str = ""
    scope: Literal["namespace", "fsm"] = "namespace"
    format: int = msgspec.field(default_factory=lambda: FORMAT)


class SavedMachine(msgspec.Struct, tag_field="kind", tag="machine", omit_defaults=True):
    """What was announced of a machine.

    Args:
        announced: The announcement, where it is JSON.
        text: It, where it is none.
    """

    name: Text
    announced: Raw | UnsetType = UNSET
    text: Text = ""

    @property
    def value(self) -> str | bytes:
        """What stands in Redis."""
        return raw_of(self.text) if self.announced is UNSET else bytes(self.announced)


class SavedEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """An event that waits, and RQ's record of it.

    Args:
        id: Of the job.
        data: What the event carries, where the record can be read; else it stays among the fields.
        fields: The rest of the record; none where there was no record.
        due: Of a delayed event, when, as Redis gives the score.
    """

    id: Text
    data: Raw | UnsetType = UNSET
    fields: dict[str, Text] = msgspec.field(default_factory=dict)
    due: str = ""

    def record(self, namespace: str, name: str) -> dict[str, str | bytes]:
        """Give the fields of RQ's record, its call made for this namespace; none where there was no record."""
        fields = {key: raw_of(value) for key, value in self.fields.items()}
        if self.data is not UNSET:
            event = fields.get("event", "")
            fields["data"] = job_data(namespace, name, event if isinstance(event, str) else "", bytes(self.data))
        return fields


class SavedFSM(msgspec.Struct, tag_field="kind", tag="fsm", omit_defaults=True, gc=False):
    """One FSM with all that is its own, as it was at one moment; it has no cycles, so Python does not look for them.

    Args:
        name: Of the FSM.
        fields: Its snapshot without the payload.
        payload: Where it is JSON; else it stays among the fields, or there is none.
        urgent: What goes before its mailbox, oldest first.
        mail: Its mailbox, oldest first.
        later: Its delayed events, soonest first.
        effects: Its open effects: id to what is noted of it.
        since: When it came into its state, ms by the clock of Redis.
        deadlines: Of those effects that have one: id to ms.
        is_stored: Its payload lies in the storage of its machine: here is the placeholder that Redis has.
    """

    name: Text
    fields: dict[str, Text]
    payload: Raw | UnsetType = UNSET
    urgent: list[SavedEvent] = msgspec.field(default_factory=list)
    mail: list[SavedEvent] = msgspec.field(default_factory=list)
    later: list[SavedEvent] = msgspec.field(default_factory=list)
    effects: dict[str, Text] = msgspec.field(default_factory=dict)
    since: str = ""
    deadlines: dict[str, str] = msgspec.field(default_factory=dict)
    is_stored: bool = False

    def snapshot(self) -> dict[str, str | bytes]:
        """Give the fields of its hash in Redis."""
        fields = {key: value if type(value) is str else raw_of(value) for key, value in self.fields.items()}
        if self.payload is not UNSET:
            fields["payload"] = bytes(self.payload)
        return fields


class SavedResting(NamedTuple):
    """FSMs that rest, written as lines already.

    Args:
        lines: One each, without its end.
        stored: Of so many the payload lies in a storage.
    """

    lines: list[bytes]
    stored: int


class SavedLog(msgspec.Struct, tag_field="kind", tag="log", omit_defaults=True):
    """An entry of a stream, of an FSM that was exported.

    Args:
        stream: The log of the namespace, or the FSM's own audit.
        id: Of the entry.
        fields: Of the entry.
    """

    stream: Literal["log", "audit"]
    id: str
    fields: dict[str, Text]


class End(msgspec.Struct, tag_field="kind", tag="end"):
    """The last line: who reads it knows that none is missing.

    Args:
        fsms: How many lines of FSMs there are. A name may have two, of which the second is not the older.
        lines: How many there are of any kind, with the first and this one.
    """

    fsms: int
    lines: int


Line: TypeAlias = Header | SavedMachine | SavedFSM | SavedLog | End

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def write_line(line: Line) -> bytes:
    """Give a line as it stands in the file, without its end."""
    return _encoder.encode(line)


def read_line(raw: bytes) -> Line:
    """Read a line.

    Raises:
        ValueError: It is none of format 1.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def text_of(raw: bytes) -> Text:
    r"""Give bytes of Redis as they stand in a line.

    >>> text_of(b"tea"), text_of(b"\xff")
    ('tea', Bytes(b64=b'\xff'))
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Bytes(raw)


def raw_of(text: Text) -> str | bytes:
    """Give what stands in a line as Redis takes it."""
    return text if isinstance(text, str) else text.b64


def fields_of(flat: Sequence[bytes]) -> dict[str, Text]:
    r"""Give a hash, as HGETALL lists it, by its names; names that are no UTF-8 are none of ours and left out.

    >>> fields_of([b"state", b"paying", b"\xff", b"1"])
    {'state': 'paying'}
    """
    words = map(bytes.decode, flat)
    try:
        # By one iterator, which gives names and values in turn: this is done for each FSM that is saved.
        return dict(zip(words, words, strict=True))
    except UnicodeDecodeError:
        pairs = zip(map(text_of, flat[::2]), map(text_of, flat[1::2]), strict=True)
        return {key: value for key, value in pairs if isinstance(key, str)}


def saved_machine(name: bytes, value: bytes) -> SavedMachine:
    """Give the announcement of a machine as a line."""
    announced = _json(value)
    if announced is UNSET:
        return SavedMachine(text_of(name), text=text_of(value))
    return SavedMachine(text_of(name), announced)


def saved_event(job_id: bytes, record: Sequence[bytes], namespace: str, name: str, due: str = "") -> SavedEvent:
    """Give an event that waits.

    Args:
        job_id: Of the job.
        record: RQ's record of it, as HGETALL lists it.
        namespace: Where it waits.
        name: The FSM for which it waits.
        due: Of a delayed event, its score.
    """
    fields = fields_of(record)
    data = _event_data(fields, namespace, name)
    if data is not UNSET:
        del fields["data"]
    return SavedEvent(text_of(job_id), data, fields, due)


def saved_fsm(  # noqa: PLR0913 - the parts of an FSM
    name: bytes,
    snapshot: Sequence[bytes],
    urgent: list[SavedEvent],
    mail: list[SavedEvent],
    later: list[SavedEvent],
    effects: Sequence[bytes],
) -> SavedFSM:
    """Give an FSM as a line; the snapshot and the effects as HGETALL lists them."""
    line = resting_fsm(name, snapshot)
    line.urgent, line.mail, line.later = urgent, mail, later
    line.effects = fields_of(effects) if effects else {}
    return line


def resting_fsm(name: bytes, snapshot: Sequence[bytes]) -> SavedFSM:
    """Give an FSM that has nothing but its snapshot as a line; the snapshot as HGETALL lists it."""
    fields = fields_of(snapshot)
    kept = fields.get("payload")
    payload = _json(kept.encode()) if isinstance(kept, str) else UNSET
    if payload is not UNSET:
        del fields["payload"]
    return SavedFSM(text_of(name), fields, payload, is_stored=is_stored(fields))


def is_stored(snapshot: Mapping[str, object]) -> bool:
    """Tell whether the payload of an FSM lies in the storage of its machine, and so in no backup.

    >>> is_stored({"definition": "1a2b3c4d+s"}), is_stored({"definition": "1a2b3c4d"})
    (True, False)
    """
    mark = snapshot.get("definition")
    return isinstance(mark, str) and mark.endswith("+s") and read_mark(mark).is_stored


def _event_data(fields: Mapping[str, Text], namespace: str, name: str) -> Raw | UnsetType:
    """Read the data of an event out of RQ's call, where it is one of ours and is that of this very event."""
    data, event = fields.get("data"), fields.get("event")
    if data is None or not isinstance(event, str):
        return UNSET
    raw = raw_of(data)
    try:
        return _json(event_data(raw.encode() if isinstance(raw, str) else raw, namespace, name, event))
    except ValueError:
        return UNSET


def _json(raw: bytes) -> Raw | UnsetType:
    """Take JSON as it is, where it can stand in a line."""
    return Raw(raw) if is_json(raw) else UNSET


def is_json(raw: bytes) -> bool:
    """Tell whether it is JSON that can stand in a line and be read there again."""
    if not raw or b"\n" in raw or b"\r" in raw or raw[0] in _SPACE or raw[-1] in _SPACE:
        return False
    try:
        orjson.loads(raw)
    except ValueError:
        return False
    # As deep as payloads may be; what was written by hand and is deeper could not be read back.
    return len(raw) <= MAX_DEPTH or raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH or _depth(raw) <= MAX_DEPTH


def _depth(raw: bytes) -> int:
    """Tell how deep JSON is nested."""
    brackets = _NO_BRACKETS.sub(b"", _STRINGS.sub(b"", raw))
    return max(accumulate(1 if bracket in _OPENING else -1 for bracket in brackets))
