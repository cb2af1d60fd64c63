"""The machine of an approval: events that only count, decisions by `Goto`, refusals with details, and who did it.

Who calls this: workers, as `--app examples.approval`, and the desk. It imports `fsm` only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fsm import Goto, Machine, Reject, Settings, Transition, enter, on

__all__ = ["NEEDED", "ROLES", "Approval", "Document", "Objection", "Text", "Vote"]

ROLES = ("legal", "money", "technology")
NEEDED = 2


@dataclass
class Document:
    """What an approval carries along.

    Args:
        text: As it stands now.
        author: Who wrote it last.
        approvals: Of this text: role -> who.
        objection: Why it was rejected.
    """

    text: str = ""
    author: str = ""
    approvals: dict[str, str] = field(default_factory=dict)
    objection: str = ""


@dataclass
class Text:
    """The data of `edit`."""

    text: str


@dataclass
class Vote:
    """The data of `approve`: for whom somebody speaks."""

    role: str


@dataclass
class Objection:
    """The data of `reject`."""

    reason: str


class Approval(Machine[Document]):
    """A document on its way to being approved."""

    settings = Settings(queue="approvals", timeout="30s")
    diagram = """
    stateDiagram-v2
        [*] --> draft
        draft --> draft : edit
        draft --> review : submit
        review --> review : edit, approve
        review --> approved : approve
        review --> rejected : reject
        rejected --> review : edit
        rejected --> withdrawn : withdraw
        draft --> withdrawn : withdraw
        review --> withdrawn : withdraw
        approved --> [*]
        withdrawn --> [*]
    """

    @on("edit")
    def edit(self, t: Transition[Document], text: Text) -> None:
        """Take a new text: whatever was said of the old one is void."""
        t.payload = Document(text.text, _actor(t))

    @on("submit")
    def submit(self, t: Transition[Document]) -> None:
        """Let the others read it, once there is something to read."""
        if not t.payload.text:
            problem = "there is no text yet"
            raise Reject(problem)

    @on("approve")
    def approve(self, t: Transition[Document], vote: Vote) -> Goto:
        """Count an approval; the last one that is needed leads on."""
        who, approvals = _actor(t), t.payload.approvals
        if vote.role not in ROLES:
            problem = f"nobody speaks for {vote.role!r}"
            raise Reject(problem, roles=list(ROLES))
        if who == t.payload.author:
            problem = f"{who} wrote this text, and cannot approve it"
            raise Reject(problem)
        if who in approvals.values():
            problem = f"{who} has approved this text already"
            raise Reject(problem, approvals=approvals)
        if vote.role in approvals:
            problem = f"{approvals[vote.role]} has approved this text for {vote.role} already"
            raise Reject(problem, approvals=approvals)
        approvals[vote.role] = who
        return Goto("approved" if len(approvals) == NEEDED else "review")

    @on("reject")
    def reject(self, t: Transition[Document], objection: Objection) -> None:
        """Keep the reason, which there must be."""
        if not objection.reason.strip():
            problem = "say why"
            raise Reject(problem)
        t.payload.objection = f"{_actor(t)}: {objection.reason}"

    @on("withdraw")
    def withdraw(self, t: Transition[Document]) -> None:
        """Only its author takes a document back."""
        if (who := _actor(t)) != t.payload.author:
            problem = f"{t.payload.author} wrote this, and {who} cannot take it back"
            raise Reject(problem)

    @enter("approved")
    def tell(self, t: Transition[Document]) -> None:
        """Give the approvals to whoever waits for the last one."""
        t.reply({"approved by": t.payload.approvals})


def _actor(t: Transition[Document]) -> str:
    """Tell who sent the event: `meta` goes to the log as well, so it can be read later who did what."""
    who = t.meta.get("actor", "")
    if not who or not isinstance(who, str):
        problem = 'nobody says who this is: send it with meta={"actor": …}'
        raise Reject(problem)
    return who
