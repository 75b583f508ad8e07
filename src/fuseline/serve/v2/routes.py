"""The protocol over HTTP. Every failure under /v2 is {"error": text} with the content type application/json."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

from fastapi import APIRouter, Depends, Request, Response
from starlette.routing import Route

from fuseline.errors import FuselineError
from fuseline.serve.body import parse_json, read_body
from fuseline.serve.settings import Settings
from fuseline.serve.v2 import about
from fuseline.serve.v2.codec import decode_request, encode_response
from fuseline.serve.v2.infer import Caller, Core, infer, is_request_id, new_request_id
from fuseline.serve.v2.replies import Guarded, NoRoute, json_response, packed
from fuseline.serve.v2.schema import FAILURES, INDEX_BODY, INFER_BODY
from fuseline.serve.waiting import deadline_of, while_there


class Target(NamedTuple):
    model: str
    version: str | None


async def _any_version(model: str) -> Target:
    return Target(model, None)


async def _one_version(model: str, version: str) -> Target:
    return Target(model, version)


def router(service: Core, settings: Settings) -> APIRouter:
    """All of /v2. Management (load, unload) and shared memory have no route: 404, like any other path."""
    routes = APIRouter(route_class=Guarded, tags=["Open Inference Protocol v2"], responses=FAILURES)

    @routes.get("/v2/", include_in_schema=False)
    @routes.get("/v2", summary="Server metadata")
    async def server_metadata() -> Response:
        return json_response(about.server(about.HTTP_EXTENSIONS))

    # The protocol's texts name both keys for readiness; clients of Triton look at the status alone.
    @routes.get("/v2/health/live", summary="Whether the server runs")
    async def server_live() -> Response:
        return json_response({"live": service.live()}, 200 if service.live() else 503)

    @routes.get("/v2/health/ready", summary="Whether every model can answer")
    async def server_ready() -> Response:
        ready = service.ready()
        return json_response({"ready": ready, "live": service.live()}, 200 if ready else 503)

    @routes.get("/v2/models/stats", summary="Statistics of every model")
    async def all_statistics() -> Response:
        return json_response(about.statistics(service))

    @routes.get("/v2/repository/index", summary="Models and their state")
    async def repository_index() -> Response:
        return json_response(about.index(service, only_ready=False))

    @routes.post(
        "/v2/repository/index", summary="Models and their state, filtered", openapi_extra={"requestBody": INDEX_BODY}
    )
    async def repository_index_asked(request: Request) -> Response:
        body = await read_body(request, settings)
        asked = parse_json(body, settings) if body.strip() else {}
        if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
            raise FuselineError("bad_request", "`ready` is not true or false", 'send {"ready": true}, or nothing')
        return json_response(about.index(service, only_ready=asked.get("ready", False)))

    _add_models(routes, "/v2/models/{model}", _any_version, service, settings)
    _add_models(routes, "/v2/models/{model}/versions/{version}", _one_version, service, settings)
    for path in ("/v2", "/v2/{rest:path}"):
        routes.routes.append(Route(path, NoRoute(routes), include_in_schema=False))
    return routes


def _add_models(
    routes: APIRouter,
    prefix: str,
    target: Callable[..., Coroutine[Any, Any, Target]],
    service: Core,
    settings: Settings,
) -> None:
    named: Any = Depends(target)

    @routes.get(prefix, summary="Model metadata")
    async def model_metadata(at: Target = named) -> Response:
        return json_response(about.metadata(service, *at))

    @routes.get(prefix + "/ready", summary="Whether the model can answer")
    async def model_ready(at: Target = named) -> Response:
        info, ready = service.info(*at), service.ready(*at)
        return json_response({"name": info.name, "ready": ready}, 200 if ready else 503)

    @routes.get(prefix + "/config", summary="Model configuration")
    async def model_config(at: Target = named) -> Response:
        return json_response(about.config(service.info(*at), settings))

    @routes.get(prefix + "/stats", summary="Model statistics")
    async def model_statistics(at: Target = named) -> Response:
        return json_response(about.statistics(service, *at))

    @routes.post(prefix + "/infer", summary="Inference", openapi_extra={"requestBody": INFER_BODY})
    async def model_infer(request: Request, at: Target = named) -> Response:
        return await _infer(service, settings, request, at)


async def _infer(service: Core, settings: Settings, request: Request, at: Target) -> Response:
    start = time.monotonic()
    headers = request.headers
    caller = Caller(at.model, at.version, "v2", _request_id(request), None, getattr(request.state, "key", None))
    try:
        service.info(*at)  # an unknown model is told before its body is read
        service.check_room(at.model)
        caller = replace(caller, deadline=deadline_of(headers.get("x-deadline-ms"), start))
        body = await read_body(request, settings)
        asked = decode_request(body, headers.get("inference-header-content-length"), settings)
        del body
    except FuselineError as error:
        service.refused(caller.call(), error)
        raise
    done = await while_there(request, infer(service, settings, asked, caller))
    encoded = encode_response(done.head, done.tensors, asked)
    if encoded.header_length is None:
        response = Response(encoded.body, headers={"content-type": "application/json"})
    else:
        length = {"Inference-Header-Content-Length": str(encoded.header_length)}
        response = Response(encoded.body, headers={"content-type": "application/octet-stream", **length})
    return await packed(response, headers.get("accept-encoding", ""))


def _request_id(request: Request) -> str:
    """The one that the doors gave the request, or the caller's header, or a new one."""
    given = getattr(request.state, "id", "") or request.headers.get("x-request-id", "")
    return given if is_request_id(given) else new_request_id()
