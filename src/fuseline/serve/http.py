"""The HTTP application: routes put together, nothing computed here."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

import fuseline
from fuseline.errors import FuselineError
from fuseline.serve import console, openai, openapi, rest, search, writing
from fuseline.serve.calls import Gauge
from fuseline.serve.doors import Doors, failure
from fuseline.serve.keys import Keys
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.v2 import routes as v2

Metrics = Callable[[], tuple[bytes, str]]
"""the text of a scrape and its content type"""
State = Callable[[list[Gauge]], None]
"""told of the server's state of this moment, before anyone looks at it"""


def make_app(
    service: Service,
    settings: Settings,
    *,
    keys: Keys | None = None,
    metrics: Metrics | None = None,
    state: State = lambda gauges: None,
    shelf: search.Shelf | None = None,
) -> ASGIApp:
    """Every public route. Management is not among them: see :func:`make_admin`."""
    app = FastAPI(
        title="Fuseline",
        version=fuseline.__version__,
        description="Models over text, pictures, sounds and numbers. Any input of a row may be absent.",
        docs_url=None,  # they load scripts from another host; the console is the page
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(v2.router(service, settings))
    app.include_router(rest.router(service, settings))
    app.include_router(writing.router(service, settings))
    app.include_router(openai.router(service, settings))
    if shelf is not None and shelf.indexes:
        app.include_router(search.router(service, settings, shelf))
    _health(app, service, metrics, state)
    if settings.console:
        _console(app)
    _failures(app)
    base = app.openapi

    def described() -> dict[str, Any]:
        app.openapi_schema = None
        return openapi.document(base(), service.models(), settings)

    app.openapi = described  # type: ignore[method-assign]

    def wait() -> float:
        return max((service.wait_seconds(g.model) for g in service.gauges()), default=1.0)

    return Doors(app, keys=keys, closing=lambda: service.draining, wait=wait, max_header=settings.max_header_kb * 1024)


def _health(app: FastAPI, service: Service, metrics: Metrics | None, state: State) -> None:
    @app.get("/healthz", summary="Whether the process runs", tags=["health"])
    async def healthz() -> Response:
        return _yes_or_no(service.live())

    @app.get("/readyz", summary="Whether requests should come here", tags=["health"])
    async def readyz() -> Response:
        return _yes_or_no(service.ready())

    if metrics is not None:

        @app.get("/metrics", summary="Prometheus metrics", tags=["health"])
        async def scrape() -> Response:
            state(service.gauges())
            text, kind = metrics()
            return Response(text, headers={"content-type": kind})


def _yes_or_no(yes: bool) -> Response:
    return Response(b"ok\n" if yes else b"no\n", 200 if yes else 503, headers={"content-type": "text/plain"})


def _console(app: FastAPI) -> None:
    for path, (content, kind) in console.files().items():
        app.add_api_route(path, _page(content, kind), include_in_schema=False)


def _page(content: bytes, kind: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def page() -> Response:
        return Response(content, headers={"content-type": kind, **console.HEADERS})

    return page


def _failures(app: FastAPI) -> None:
    """Every failure has the one form of :func:`doors.failure`."""

    async def told(request: Request, error: FuselineError) -> Response:
        id = request.scope.get("state", {}).get("id", "")
        status, body = failure(error, path=request.url.path, id=id)
        return Response(body, status, headers={"content-type": "application/json"})

    async def fuseline_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, FuselineError)
        return await told(request, error)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: "not_found", 405: "not_allowed"}
        message = {404: "nothing is served here", 405: "this path does not take this method"}
        response = await told(
            request,
            FuselineError(
                codes.get(error.status_code, "bad_request"),
                message.get(error.status_code, str(error.detail)),
                "see /openapi.json",
            ),
        )
        if error.headers and "allow" in {k.lower() for k in error.headers}:
            response.headers["allow"] = next(v for k, v in error.headers.items() if k.lower() == "allow")
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        del error
        return await told(request, FuselineError("bad_request", "the request's parameters cannot be read", ""))

    app.add_exception_handler(FuselineError, fuseline_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)


def make_admin(service: Service, models: Callable[[str], Any]) -> ASGIApp:
    """Management, for a port on the loopback interface alone. `models`: looks at a served folder again now."""
    app = FastAPI(title="Fuseline management", version=fuseline.__version__, docs_url=None, redoc_url=None)

    @app.post("/v2/repository/models/{model}/load", summary="Look at the model's folder again now")
    async def reload(model: str) -> Response:
        await models(model)
        return Response(b"", 200)

    @app.post("/v2/repository/models/{model}/versions/{version}/unload", summary="Let go of a version")
    async def unload(model: str, version: str) -> Response:
        await service.unload(model, version)
        return Response(b"", 200)

    @app.put("/v1/models/{model}/versions/{version}/share", summary="Share of the traffic; 1 makes it the default")
    async def share(model: str, version: str, share: float) -> Response:
        service.set_share(model, version, None if share == 1 else share)
        return Response(b"", 200)

    _failures(app)
    return Doors(app)
