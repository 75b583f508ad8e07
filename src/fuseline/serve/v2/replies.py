"""How the protocol answers over HTTP: JSON, {"error": text}, and bodies compressed where the caller asks."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from fuseline.errors import FuselineError
from fuseline.serve.status import status_of
from fuseline.serve.v2.tensors import text_of

log = logging.getLogger(__name__)

_WORTH_PACKING = 256
_PACK_ELSEWHERE = 64 * 1024
"""bytes from which compressing would keep other requests waiting: it goes to a thread"""
_PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 4, mtime=0),
    "deflate": lambda data: zlib.compress(data, 4),  # zlib's format: what HTTP means by deflate
}


def json_response(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers={"content-type": "application/json", **(headers or {})})


def failure(error: FuselineError) -> Response:
    """{"error": text}; for a code that is no caller's business only that it failed, and the log has the rest."""
    status = status_of(error.code)
    if status == 500:
        log.error("a request failed inside: %s", text_of(error))
        return json_response({"error": "internal error"}, 500)
    return json_response({"error": text_of(error)}, status)


class Guarded(APIRoute):
    """A route whose failures are the protocol's, whatever the application around does with exceptions."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except FuselineError as error:
                return failure(error)
            except Exception:
                log.exception("%s %s failed", request.method, request.url.path)
                return json_response({"error": "internal error"}, 500)

        return handle


class NoRoute:
    """The last route: 405 where another method would do, else 404."""

    def __init__(self, routes: APIRouter) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods: set[str] = set()
        for route in self._routes.routes:
            if isinstance(route, Route | APIRoute) and route.endpoint is not self:
                match, _ = route.matches(scope)
                methods |= (route.methods or set()) if match is Match.PARTIAL else set()
        if methods:
            text = f"{scope['method'][:20]} is not taken here"
            response = json_response({"error": text}, 405, {"allow": ", ".join(sorted(methods))})
        else:
            response = json_response({"error": "there is nothing at this path"}, 404)
        await response(scope, receive, send)


async def packed(response: Response, accepted: str) -> Response:
    """The response, its body compressed if `accepted` (Accept-Encoding) asks for gzip or deflate."""
    name = _choose(accepted)
    body = bytes(response.body)
    if name is None or len(body) < _WORTH_PACKING:
        return response
    small = len(body) < _PACK_ELSEWHERE
    data = _PACK[name](body) if small else await asyncio.to_thread(_PACK[name], body)
    headers = {k: v for k, v in response.headers.items() if k != "content-length"}
    return Response(data, response.status_code, headers={**headers, "content-encoding": name})


def _choose(accepted: str) -> str | None:
    """gzip or deflate, the one of the higher q; q=0 is a no (RFC 9110, 12.5.3)."""
    best: tuple[float, str] | None = None
    for part in accepted[:1000].lower().split(","):
        name, _, rest = part.partition(";")
        name = name.strip()
        if name not in _PACK:
            continue
        try:
            weight = float(rest.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if weight > 0 and (best is None or weight > best[0]):
            best = (weight, name)
    return best[1] if best else None
