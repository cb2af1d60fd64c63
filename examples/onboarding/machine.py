"""The machine of a new customer: an effect that answers, a secret, typed data, and a person who decides."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from fsm import Machine, Reject, Settings, Transition, on

__all__ = ["Customer", "Onboarding", "Profile", "SignUp", "Token", "Trouble", "Verdict"]

_OF_AGE = 18


@dataclass
class Profile:
    """The data of `profile`: what is asked of every customer."""

    full_name: str
    country: str
    birth_year: int


@dataclass
class Customer:
    """What an onboarding carries along.

    Args:
        email: Where the confirmation mail went.
        proof: SHA-256 of the token in that mail, in hex; "" when there is nothing to confirm.
        problem: Why the mail could not be sent, or why the profile was declined, the last time it was so.
        profile: What the customer told of themselves.
        reviewer: Who approved or declined it.
    """

    email: str = ""
    proof: str = ""
    problem: str = ""
    profile: Profile | None = None
    reviewer: str = ""


@dataclass
class SignUp:
    """The data of `sign_up`."""

    email: str


@dataclass
class Token:
    """The data of `confirm`: what the mail carried."""

    token: str


@dataclass
class Verdict:
    """The data of `decline`."""

    reason: str = ""


@dataclass
class Trouble:
    """The data of `mail_failed`: how the effect failed."""

    type: str
    message: str


class Onboarding(Machine[Customer]):
    """A new customer, from the sign-up to an active account."""

    # The customer may open the mail before its effect has told that it was sent. The answer that comes late then is
    # refused, and that is nothing to complain of.
    settings = Settings(timeout="30s", refused={"mail_sent": "ignore", "mail_failed": "ignore"})
    diagram = """
    stateDiagram-v2
        [*] --> new
        new --> mailing : sign_up
        mailing --> unconfirmed : mail_sent
        mailing --> unreachable : mail_failed
        mailing --> confirmed : confirm
        unreachable --> mailing : sign_up
        unreachable --> expired : expire after 3d
        unconfirmed --> confirmed : confirm
        unconfirmed --> expired : expire after 3d
        confirmed --> reviewing : profile
        reviewing --> reviewing : profile
        reviewing --> active : approve
        reviewing --> confirmed : decline
        active --> closed : close
        closed --> [*]
        expired --> [*]
    """

    @on("sign_up")
    def sign_up(self, t: Transition[Customer], wanted: SignUp) -> None:
        """Send a mail with a token that nobody else can guess, and keep what tells it from others.

        Run again after a crash, this draws another token. That does no harm: token and mail leave with one commit, so
        no mail was sent with the one that was lost.
        """
        token = secrets.token_urlsafe(16)
        t.payload = Customer(email=wanted.email, proof=_digest(token))
        t.enqueue(
            "examples.onboarding.mail.send",
            wanted.email,
            t.name,
            token,
            key=t.job_id,
            retry=2,
            on_success="mail_sent",
            on_failure="mail_failed",
        )

    @on("mail_failed")
    def mail_failed(self, t: Transition[Customer], trouble: Trouble) -> None:
        """Note why; the customer signs up again with another address."""
        t.payload.problem = trouble.message

    @on("confirm")
    def confirm(self, t: Transition[Customer], given: Token) -> None:
        """Compare the token in a time that tells nothing about it."""
        if not secrets.compare_digest(_digest(given.token), t.payload.proof):
            problem = "wrong token"
            raise Reject(problem, sent_to=_masked(t.payload.email))
        t.payload.proof = ""

    @on("profile")
    def profile(self, t: Transition[Customer], profile: Profile) -> None:
        """Take the profile, also while somebody is reading an earlier one: their `if_version` is then out of date."""
        if t.now.year - profile.birth_year < _OF_AGE:
            problem = "customers are of age"
            raise Reject(problem, at_least=_OF_AGE)
        t.payload.profile = profile
        t.payload.problem = ""

    @on("approve")
    def approve(self, t: Transition[Customer]) -> None:
        """Note who decided."""
        t.payload.reviewer = str(t.meta.get("reviewer", ""))

    @on("decline")
    def decline(self, t: Transition[Customer], verdict: Verdict) -> None:
        """Note who decided, and why."""
        if not verdict.reason:
            problem = "who declines says why"
            raise Reject(problem, missing="reason")
        t.payload.reviewer = str(t.meta.get("reviewer", ""))
        t.payload.problem = verdict.reason


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _masked(email: str) -> str:
    """Show as much of an address as its owner needs to recognise it."""
    user, _, host = email.partition("@")
    return f"{user[:1]}…@{host}"
