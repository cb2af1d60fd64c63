"""`python -m examples.approval`: some people and two documents, and a line tells what each of them did."""

from __future__ import annotations

import argparse
import secrets
import sys
from typing import TYPE_CHECKING

from examples.approval.desk import Desk, TextChangedError
from fsm import Client, ConfigError, FSMError, RefusedError, StaleVersionError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Let people decide; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.approval", description="Let people write, read, approve and reject documents."
    )
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--run", default=secrets.token_hex(2), help="names of documents are <document>-<run>")
    options = parser.parse_args(arguments)
    try:
        with Client(options.url) as client:
            ends = (_contract(client, f"contract-{options.run}"), _poem(client, f"poem-{options.run}"))
    except FSMError as error:
        print(f"examples.approval: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0 if ends == ("approved", "withdrawn") else 1


def _contract(client: Client, name: str) -> str:
    """Two people read the same text at the same time; a third one reads a text that is edited meanwhile."""
    ann, lea, tom, max_ = (Desk(client, who) for who in ("ann", "lea", "tom", "max"))
    print(f"{name}:")
    _say("ann", "writes", ann.write(name, "We pay in 90 days.").state)
    _say("ann", "submits it", ann.submit(name).state)

    read_by_tom = tom.read(name)
    _say("ann", "edits what tom is reading", ann.write(name, "We pay in 30 days.").state)
    try:
        _say("tom", "approves", tom.approve(name, read_by_tom, "technology").state)
    except TextChangedError as changed:
        _say("tom", "approves", f"no, {changed}")

    read_by_lea, read_by_max = lea.read(name), max_.read(name)
    _say("lea", "approves for legal", lea.approve(name, read_by_lea, "legal").state)
    try:
        lea.approve(name, lea.read(name), "money")
    except RefusedError as refusal:
        _say("lea", "approves again, for money", f"no, {refusal.reason}")
    # An event that is sent with the version that max has read is stale by now ...
    try:
        client.call(name, "approve", {"role": "money"}, if_version=read_by_max.version, meta={"actor": "max"})
    except StaleVersionError as stale:
        _say("max", "approves for money", f"no, {stale.reason}")
    # ... and his desk sees that the text is the one that he has read.
    outcome = max_.approve(name, read_by_max, "money")
    _say("max's desk", "looks again and approves", f"{outcome.state}, {outcome.reply}")
    for entry in client.log(name):
        who = entry.get("meta", {}).get("actor", "")
        did = f"{entry['event']} by {who}" if who else entry["event"]
        _say("  log", did, f"refused: {entry['refused']}" if "refused" in entry else entry["to"])
    return outcome.state


def _poem(client: Client, name: str) -> str:
    """A text is rejected, written anew, and taken back in the end."""
    ben, lea = Desk(client, "ben"), Desk(client, "lea")
    print(f"{name}:")
    _say("ben", "writes", ben.write(name, "Roses are red.").state)
    _say("ben", "submits it", ben.submit(name).state)
    _say("lea", "rejects it", lea.reject(name, lea.read(name), "not a contract").state)
    _say("ben", "reads", lea.read(name).payload.objection)
    _say("ben", "writes another", ben.write(name, "Violets are blue.").state)
    try:
        lea.withdraw(name)
    except RefusedError as refusal:
        _say("lea", "takes it back", f"no, {refusal.reason}")
    outcome = ben.withdraw(name)
    _say("ben", "takes it back", outcome.state)
    return outcome.state


def _say(who: str, does: str, what: str) -> None:
    print(f"    {who:10} {does:27} {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
