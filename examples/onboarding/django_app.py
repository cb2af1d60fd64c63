"""The onboarding as a Django application in one file: settings, addresses, views, and the `App` of its workers.

A Django view is a plain function in a thread of its server, so it may call the client as it is: only its own request
waits. In an `async def` view, wrap the call: `await sync_to_async(client().call)(…)`.

    fsm worker --app examples.onboarding.django_app

is a worker that treats Django's connections as a request does: before and after each transition those that are broken
or too old are closed, so that handlers may use the ORM in a process that lives for months.

Who calls this: Django (`ROOT_URLCONF`), a server (`examples.onboarding.django_app:application`), workers, the tests.
"""

from __future__ import annotations

import functools
import json
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings

from examples.onboarding import http
from examples.onboarding.machine import Customer, Onboarding
from fsm import App, Client, FSMError, PayloadError, Transition

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["localhost", "testserver"],
        MIDDLEWARE=["examples.onboarding.django_app.Refusals"],
        ROOT_URLCONF="examples.onboarding.django_app",
        SECRET_KEY=secrets.token_hex(32),  # nothing is signed that must outlive this process
        USE_TZ=True,
    )
    django.setup()

# Settings come first: what is imported from here on may read them.
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_http_methods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["app", "application", "client", "urlpatterns"]

# Seconds that a request waits for a worker; after that it is told that its event is kept.
_PATIENCE_S = 5.0


@functools.cache
def client() -> Client:
    """Give the client of this process, of the Redis in `FSM_URL`; it connects when it is first asked something."""
    return Client()


class Refusals:
    """Middleware: what the client raises in a view becomes its answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass on what needs no answer of ours."""
        return self._get_response(request)

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer our own errors; Django's go their way."""
        if not isinstance(error, FSMError):
            return None
        answer = http.answer_to(error)
        return JsonResponse(answer.body, status=answer.status, headers=answer.headers, content_type=answer.content_type)


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError as error:
        problem = f"the body is no JSON: {error}"
        raise PayloadError(problem) from error
    if not isinstance(body, dict):
        problem = f"the body is an object, not {type(body).__name__}"
        raise PayloadError(problem)
    return body


def sign_up(request: HttpRequest) -> HttpResponse:
    """POST: start an onboarding, and send its mail."""
    body = _body(request)
    account = http.account_in(body)
    # The address is data of the event and not of the start, so that a key used for another address is found out.
    outcome = client().call(
        account,
        "sign_up",
        {"email": body.get("email")},
        start=Onboarding,
        key=request.headers.get("Idempotency-Key"),
        machine=Onboarding,
        timeout=_PATIENCE_S,
    )
    return JsonResponse(http.told(outcome), status=201, headers={"Location": http.location(account)})


def one(request: HttpRequest, name: str) -> HttpResponse:
    """GET: how it stands. DELETE: close the account."""
    if request.method == "DELETE":
        return _call(name, "close")
    snapshot = client().state(name, Onboarding)
    return JsonResponse(http.shown(snapshot), headers={"ETag": http.etag(snapshot)})


def confirm(request: HttpRequest, name: str) -> HttpResponse:
    """POST: the token of the mail."""
    return _call(name, "confirm", _body(request))


def profile(request: HttpRequest, name: str) -> HttpResponse:
    """PUT: the profile."""
    return _call(name, "profile", _body(request))


def review(request: HttpRequest, name: str) -> HttpResponse:
    """POST: what a reviewer decided, on the version in `If-Match`."""
    event, data = http.decision_in(_body(request))
    return _call(
        name,
        event,
        data,
        if_version=http.version_in(request.headers.get("If-Match")),
        meta={"reviewer": request.headers.get("X-Reviewer", "")},
    )


def _call(name: str, event: str, data: Any = None, **options: Any) -> HttpResponse:
    outcome = client().call(name, event, data, machine=Onboarding, timeout=_PATIENCE_S, **options)
    return JsonResponse(http.told(outcome))


urlpatterns = [
    path("signups", require_http_methods(["POST"])(sign_up)),
    path("signups/<str:name>", require_http_methods(["GET", "DELETE"])(one)),
    path("signups/<str:name>/confirm", require_http_methods(["POST"])(confirm)),
    path("signups/<str:name>/profile", require_http_methods(["PUT"])(profile)),
    path("signups/<str:name>/review", require_http_methods(["POST"])(review)),
]
application = get_wsgi_application()


@contextmanager
def connections(_t: Transition[Customer]) -> Iterator[None]:
    """Treat Django's database connections as a request does: close those that are broken or too old."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


app = App([Onboarding], around=connections)
