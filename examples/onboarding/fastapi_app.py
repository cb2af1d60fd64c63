"""The onboarding as a FastAPI application.

A `def` endpoint runs in a thread of Starlette's pool, so it may call the client as it is: a call waits for its worker,
and only that request waits with it. In an `async def` endpoint the client would hold up the event loop and with it all
requests; there it goes through `run_in_threadpool`, as in `show`.

Who calls this: a server (`uvicorn --factory examples.onboarding.fastapi_app:make_app`), the story and the tests.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from examples.onboarding import http
from examples.onboarding.machine import Onboarding
from fsm import Client, FSMError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["make_app"]

JSON = Annotated[dict[str, Any], Body()]


def make_app(client: Client | None = None, *, patience: float = 5.0) -> FastAPI:
    """Make the application.

    Args:
        client: Shared by all requests; without it, one of the Redis in `FSM_URL`. It is closed when the application is.
        patience: Seconds that a request waits for a worker; after that it is told that its event is kept.
    """
    fsms = client or Client()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        fsms.close()

    app = FastAPI(title="onboarding", lifespan=lifespan)

    @app.exception_handler(FSMError)
    def refuse(_request: Request, error: FSMError) -> JSONResponse:
        answer = http.answer_to(error)
        return JSONResponse(answer.body, answer.status, answer.headers, answer.content_type)

    @app.post("/signups", status_code=201)
    def sign_up(
        body: JSON, response: Response, idempotency_key: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        account = http.account_in(body)
        # The address is data of the event and not of the start, so that a key used for another address is found out.
        wanted = {"email": body.get("email")}
        outcome = fsms.call(
            account, "sign_up", wanted, start=Onboarding, key=idempotency_key, machine=Onboarding, timeout=patience
        )
        response.headers["Location"] = http.location(account)
        return http.told(outcome)

    @app.get("/signups/{name}")
    async def show(name: str, response: Response) -> dict[str, Any]:
        snapshot = await run_in_threadpool(fsms.state, name, Onboarding)
        response.headers["ETag"] = http.etag(snapshot)
        return http.shown(snapshot)

    @app.post("/signups/{name}/confirm")
    def confirm(name: str, body: JSON) -> dict[str, Any]:
        return http.told(fsms.call(name, "confirm", body, machine=Onboarding, timeout=patience))

    @app.put("/signups/{name}/profile")
    def profile(name: str, body: JSON) -> dict[str, Any]:
        return http.told(fsms.call(name, "profile", body, machine=Onboarding, timeout=patience))

    @app.post("/signups/{name}/review")
    def review(
        name: str,
        body: JSON,
        if_match: Annotated[str | None, Header()] = None,
        x_reviewer: Annotated[str, Header()] = "",
    ) -> dict[str, Any]:
        event, data = http.decision_in(body)
        outcome = fsms.call(
            name,
            event,
            data,
            if_version=http.version_in(if_match),
            meta={"reviewer": x_reviewer},
            machine=Onboarding,
            timeout=patience,
        )
        return http.told(outcome)

    @app.delete("/signups/{name}")
    def close(name: str) -> dict[str, Any]:
        return http.told(fsms.call(name, "close", machine=Onboarding, timeout=patience))

    return app
