"""The mail server: the effect of `sign_up`. What it sends lies in a directory, a file each: `ONBOARDING_MAILS`.

It stands for any system beside Redis. An effect may be run more than once, when its worker dies; the key says that it
is the same mail, and it is delivered once all the same.

Who calls this: RQ, by the dotted path in the effects of onboardings; the story, to read its mail.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["Undeliverable", "mailbox", "received", "send"]

# RFC 2606: names under it never exist.
_NOWHERE = ".invalid"


class Undeliverable(Exception):  # noqa: N818 - what a mail server says, and no error of the program
    """There is nobody at this address."""


def mailbox() -> Path:
    """Give the directory in which mails lie, of this user alone when it is made here."""
    path = Path(os.environ.get("ONBOARDING_MAILS", "mails"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def send(email: str, account: str, token: str, *, key: str) -> dict[str, str]:
    """Send the mail that a customer confirms: once for each key.

    Args:
        email: To whom.
        account: Whose sign-up it is.
        token: What proves that the mail was read.
        key: Idempotency key.

    Raises:
        Undeliverable: There is nobody at this address.
    """
    if email.endswith(_NOWHERE) or "@" not in email:
        problem = f"nobody can be reached at {email}"
        raise Undeliverable(problem)
    directory = mailbox()
    # Whole or not at all, so that nobody reads half a mail; named by its key, so that it is the same when run again.
    with tempfile.NamedTemporaryFile("w", dir=directory, suffix=".part", delete=False) as part:
        json.dump({"to": email, "account": account, "token": token}, part)
    Path(part.name).replace(directory / f"{key}.json")
    return {"message": key}


def received(email: str, account: str) -> list[dict[str, Any]]:
    """Read the mails that came for a sign-up, oldest first, as the customer does."""
    files = sorted(mailbox().glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    mails = [json.loads(path.read_text()) for path in files]
    return [mail for mail in mails if (mail["to"], mail["account"]) == (email, account)]
