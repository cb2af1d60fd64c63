"""The mark that a snapshot carries of the definition that wrote it last: field `definition`.

It is what a worker compares before it runs an FSM, and what it writes where it differs: nearly always the eight hex
digits of the fingerprint, and nothing else.

    1a2b3c4d        of a machine that says nothing more
    1a2b3c4d.3      with `Settings(definition_version=3)`
    1a2b3c4d+s      its payload lies in the machine's storage, and not in the snapshot
    1a2b3c4d.3+s    both

Who calls this: definitions write it; the store reads it. PURE.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["DefinitionMark", "mark_of", "read_mark"]

_MARK = re.compile(r"([^.+]*)(?:\.([1-9]\d{0,15}))?(\+s)?")


class DefinitionMark(NamedTuple):
    """What a mark says.

    Args:
        fingerprint: Of the graph.
        version: `definition_version`.
        is_stored: Whether the payload lies in a storage.
    """

    fingerprint: str
    version: int = 1
    is_stored: bool = False


def mark_of(fingerprint: str, version: int = 1, *, is_stored: bool = False) -> str:
    """Write a mark.

    >>> mark_of("1a2b3c4d"), mark_of("1a2b3c4d", 3, is_stored=True)
    ('1a2b3c4d', '1a2b3c4d.3+s')
    """
    return f"{fingerprint}{'' if version == 1 else f'.{version}'}{'+s' if is_stored else ''}"


@lru_cache(maxsize=256)  # there are few, and each page of a query reads hundreds
def read_mark(text: str) -> DefinitionMark:
    """Read a mark; what was edited by hand and is none, is taken for a fingerprint that nobody has.

    >>> read_mark("1a2b3c4d.3+s")
    DefinitionMark(fingerprint='1a2b3c4d', version=3, is_stored=True)
    >>> read_mark("by+hand")
    DefinitionMark(fingerprint='by+hand', version=1, is_stored=False)
    """
    found = _MARK.fullmatch(text)
    if found is None:
        return DefinitionMark(text)
    fingerprint, version, stored = found.groups()
    return DefinitionMark(fingerprint, int(version or 1), stored is not None)
