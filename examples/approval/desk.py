"""The desk: people are shown a document, and decide on what they were shown.

Between reading and deciding, somebody may edit the text. So a decision is sent with `if_version=`, the version of the
snapshot that was read; where the FSM has moved on since, it is refused with `StaleVersionError`, and nothing happened.

An FSM has a new version after each event, not only after an edit: also after the approval of somebody else, which
spoils nothing. So the desk looks again, and decides again by itself if the text is still the same. If it is not, a
person must read it.

Who calls this: `python -m examples.approval`; a web page would call it likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from examples.approval.machine import Approval, Document, Objection, Text, Vote
from fsm import StaleVersionError

if TYPE_CHECKING:
    from fsm import Client, Outcome, Snapshot

__all__ = ["Desk", "TextChangedError"]

# Long enough for a worker that is just being started beside us.
_PATIENCE_S = 60.0


class TextChangedError(Exception):
    """The document has another text than the one that was read.

    Args:
        read: The text that was read.
        now: The document as it stands now: to be shown, and decided on.
    """

    def __init__(self, read: str, now: Snapshot) -> None:
        super().__init__(read, now)
        self.read = read
        self.now = now

    def __str__(self) -> str:
        return f"the text was changed meanwhile, from {self.read!r} to {self.now.payload.text!r}: read it again"


class Desk:
    """Where one person sits.

    Args:
        client: Of the Redis where documents live.
        who: Name of the person.
    """

    def __init__(self, client: Client, who: str) -> None:
        self._client = client
        self._who = who

    def read(self, name: str) -> Snapshot:
        """Show a document, with the version on which a decision will be made."""
        return self._client.state(name, Approval)

    def write(self, name: str, text: str) -> Outcome:
        """Write a text; the first one starts the document, in the same step."""
        return self._client.call(
            name, "edit", Text(text), start=Approval, meta=self._meta, machine=Approval, timeout=_PATIENCE_S
        )

    def submit(self, name: str) -> Outcome:
        """Hand a document to those who are to approve it."""
        return self._client.call(name, "submit", meta=self._meta, machine=Approval, timeout=_PATIENCE_S)

    def withdraw(self, name: str) -> Outcome:
        """Take one's document back."""
        return self._client.call(name, "withdraw", meta=self._meta, machine=Approval, timeout=_PATIENCE_S)

    def approve(self, name: str, read: Snapshot, role: str) -> Outcome:
        """Approve the text that was read.

        Raises:
            TextChangedError: It is not the text any more.
            RejectedError: This person cannot approve it.
        """
        return self._decide(name, read, "approve", Vote(role))

    def reject(self, name: str, read: Snapshot, reason: str) -> Outcome:
        """Reject the text that was read.

        Raises:
            TextChangedError: It is not the text any more.
        """
        return self._decide(name, read, "reject", Objection(reason))

    @property
    def _meta(self) -> dict[str, Any]:
        return {"actor": self._who}

    def _decide(self, name: str, read: Snapshot, event: str, data: Vote | Objection) -> Outcome:
        document: Document = read.payload
        seen = read
        while True:
            try:
                return self._client.call(
                    name,
                    event,
                    data,
                    if_version=seen.version,
                    meta=self._meta,
                    machine=Approval,
                    timeout=_PATIENCE_S,
                )
            except StaleVersionError:
                seen = self.read(name)
                if seen.payload.text != document.text:
                    raise TextChangedError(document.text, seen) from None
