"""`python -m examples.onboarding`: customers come by way of the FastAPI application, and a line tells each answer.

A worker must run beside it: `fsm worker --app examples.onboarding`. The requests are made in this process, by FastAPI's
own test client; everything behind them is real, but for three days that go by: for these we look when the timer is due,
and send its event ourselves.

Exit code 0: every answer was as expected; 1: one was not, or Redis cannot be used; 2: wrong use.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi.testclient import TestClient

from examples.onboarding import mail
from examples.onboarding.fastapi_app import make_app
from fsm import Client, ConfigError, FSMError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Story", "SurpriseError", "main"]

# Long enough for a worker that is just being started beside us.
_PATIENCE_S = 60.0
_ADULT = {"full_name": "Ann Lee", "country": "NZ", "birth_year": 1990}


class SurpriseError(Exception):
    """An answer was not the expected one; the text says which."""


class Story:
    """Makes requests, and tells their answers.

    Args:
        client: Of the Redis where onboardings live; the story waits with it for what the mail server does.
        web: The application.
        run: What tells the accounts of this story from those of others.
    """

    def __init__(self, client: Client, web: TestClient, run: str) -> None:
        self._client = client
        self._web = web
        self._run = run

    def ask(self, expected: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Make one request and tell its answer.

        Raises:
            SurpriseError: Its status is not the expected one.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._web.request(method, path, json=body, headers=named)
        found = answer.json()
        what = found.get("detail") or found.get("state") or found.get("title", "")
        extra = "".join(f", {key}: {found[key]}" for key in ("details", "allowed", "path") if found.get(key))
        print(f"{method:6} {path:32} {answer.status_code}  {what}{extra if answer.is_client_error else ''}", flush=True)
        if answer.status_code != expected:
            problem = f"{method} {path} was answered {answer.status_code}, not {expected}: {answer.text}"
            raise SurpriseError(problem)
        return answer

    def tell(self) -> None:
        """Tell it from the beginning to the end."""
        ann, bob, eve = (f"{name}-{self._run}" for name in ("ann", "bob", "eve"))
        self._sign_up(ann)
        self._confirm(ann)
        self._review(ann)
        self._unreachable(bob)
        self._expired(eve)
        self.ask(404, "GET", f"/signups/zoe-{self._run}")

    def _sign_up(self, name: str) -> None:
        wanted = {"account": name, "email": "ann@example.org"}
        first = self.ask(201, "POST", "/signups", wanted, Idempotency_Key="form-1")
        # The browser did not hear the answer, and asks again: it is the same answer, and one mail.
        again = self.ask(201, "POST", "/signups", wanted, Idempotency_Key="form-1")
        if again.json() != first.json():
            problem = f"a repeated sign-up was told {again.text}, and the first {first.text}"
            raise SurpriseError(problem)
        self.ask(422, "POST", "/signups", wanted | {"email": "other@example.org"}, Idempotency_Key="form-1")
        # Somebody else wants the same account.
        self.ask(409, "POST", "/signups", wanted | {"email": "tom@example.org"}, Idempotency_Key="form-2")

    def _confirm(self, name: str) -> None:
        self._client.wait_for(name, "unconfirmed", timeout=_PATIENCE_S)
        self.ask(422, "POST", f"/signups/{name}/confirm", {"token": "guessed"})
        (letter,) = mail.received("ann@example.org", name)
        self.ask(200, "POST", f"/signups/{name}/confirm", {"token": letter["token"]})
        # The second click on the link.
        self.ask(409, "POST", f"/signups/{name}/confirm", {"token": letter["token"]})

    def _review(self, name: str) -> None:
        path, review = f"/signups/{name}", f"/signups/{name}/review"
        self.ask(422, "PUT", f"{path}/profile", _ADULT | {"birth_year": "1990"})
        self.ask(422, "PUT", f"{path}/profile", _ADULT | {"birth_year": datetime.now(UTC).year - 10})
        self.ask(200, "PUT", f"{path}/profile", _ADULT)
        seen = self.ask(200, "GET", path).headers["ETag"]
        # While the reviewer reads, Ann moves.
        self.ask(200, "PUT", f"{path}/profile", _ADULT | {"country": "AU"})
        self.ask(412, "POST", review, {"decision": "approve"}, If_Match=seen, X_Reviewer="rae")
        seen = self.ask(200, "GET", path).headers["ETag"]
        self.ask(200, "POST", review, {"decision": "approve"}, If_Match=seen, X_Reviewer="rae")
        self.ask(200, "DELETE", path)
        self.ask(409, "PUT", f"{path}/profile", _ADULT)

    def _unreachable(self, name: str) -> None:
        wanted = {"account": name, "email": "bob@nowhere.invalid"}
        self.ask(201, "POST", "/signups", wanted, Idempotency_Key="form-1")
        self._client.wait_for(name, "unreachable", timeout=_PATIENCE_S)
        self.ask(200, "GET", f"/signups/{name}")
        self.ask(201, "POST", "/signups", wanted | {"email": "bob@example.org"}, Idempotency_Key="form-2")
        self._client.wait_for(name, "unconfirmed", timeout=_PATIENCE_S)

    def _expired(self, name: str) -> None:
        self.ask(201, "POST", "/signups", {"account": name, "email": "eve@example.org"}, Idempotency_Key="form-1")
        self._client.wait_for(name, "unconfirmed", timeout=_PATIENCE_S)
        (timer,) = self._client.timers(name)
        print(f"three days go by, until {timer.at:%Y-%m-%d}: {timer.event}", flush=True)
        self._client.call(name, timer.event, timeout=_PATIENCE_S)
        self.ask(200, "GET", f"/signups/{name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell the story; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.onboarding",
        description="Customers sign up; each answer of the web application is told.",
    )
    parser.add_argument("--url", metavar="URL", help="Redis; by default FSM_URL, else redis://localhost:6379/0")
    parser.add_argument("--run", default=secrets.token_hex(2), help="accounts are ann-<run>, bob-<run>, …")
    options = parser.parse_args(arguments)
    try:
        with Client(options.url) as client:
            client.counts()  # an unreachable Redis is noticed here, and not told as an answer of ours
            with TestClient(make_app(client, patience=_PATIENCE_S)) as web:
                Story(client, web, options.run).tell()
    except (FSMError, SurpriseError) as error:
        print(f"examples.onboarding: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
