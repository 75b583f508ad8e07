"""What every HTTP request passes first: an id, a key, safe headers, and one form of error. Pure ASGI."""

from __future__ import annotations

import json
import logging
import math
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuseline.errors import FuselineError
from fuseline.serve.keys import Keys
from fuseline.serve.status import status_of

log = logging.getLogger(__name__)

_ID = re.compile(r"[\x21-\x7e]{1,128}")
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
"""asked by machines that hold no key, and saying nothing but yes or no"""
ASSETS = ("/", "/console")
"""the page itself is no secret; what it asks for is"""
SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def request_id(scope: Scope) -> str:
    """The caller's X-Request-Id where it is short and printable, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex


def secret_of(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        text: str = value.decode("latin-1")
        if name == b"x-api-key":
            return text
        if name == b"authorization" and text[:7].lower() == "bearer ":
            return text[7:].strip()
    return None


def failure(error: FuselineError, *, path: str, id: str) -> tuple[int, bytes]:
    """Status and body. v2 says `error` and nothing else, as its protocol wants; people get the hint and the place."""
    status = status_of(error.code)
    message = error.message if status != 500 else "internal error"
    if path == "/v2" or path.startswith("/v2/"):
        place = f"{error.place}: " if error.place else ""
        body: dict[str, Any] = {"error": f"{place}{message}" + (f"; {error.hint}" if error.hint else "")}
    else:
        body = {"error": message, "code": error.code if status != 500 else "internal", "hint": error.hint}
        body |= {"row": error.row, "column": error.column, "request_id": id}
    return status, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


class Doors:
    """Wraps an app: request ids, keys, headers, and errors that reached the outside.

    `closing`: says whether the server is draining; answers then carry ``Connection: close``, so that callers which
    keep connections open go elsewhere with their next request instead of meeting a socket that closes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys | None = None,
        closing: Callable[[], bool] = lambda: False,
        wait: Callable[[], float] = lambda: 1.0,
        max_header: float = 16 * 1024,
    ) -> None:
        self.app, self.keys, self.closing, self.wait, self.max_header = app, keys, closing, wait, max_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id, start, path = request_id(scope), time.monotonic(), scope["path"]
        scope.setdefault("state", {})["id"] = id
        begun, status = False, 0

        async def sending(message: Message) -> None:
            nonlocal begun, status
            if message["type"] == "http.response.start":
                begun, status = True, message["status"]
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                headers += [h for h in (*SAFE, (b"x-request-id", id.encode())) if h[0] not in there]
                if self.closing():
                    headers.append((b"connection", b"close"))
                if status in (429, 503) and b"retry-after" not in there:
                    headers.append((b"retry-after", str(max(1, math.ceil(self.wait()))).encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            # The parser's own limit holds only for a head that comes in pieces.
            if sum(len(k) + len(v) for k, v in scope["headers"]) + len(scope["path"]) > self.max_header:
                raise FuselineError(
                    "headers_too_large", "the request's headers are too large", "send fewer, or shorter"
                )
            if self.keys is not None and path not in OPEN and not self._asset(path):
                scope["state"]["key"] = self.keys.check(secret_of(scope))
            await self.app(scope, receive, sending)
        except Exception as raised:
            known = isinstance(raised, FuselineError)
            if not known:
                log.exception("request %s failed", id)
            if begun:
                raise  # half an answer cannot be taken back; the connection ends
            error = raised if isinstance(raised, FuselineError) else FuselineError("internal", "internal error", "")
            status, body = failure(error, path=path, id=id)
            await sending(
                {
                    "type": "http.response.start",
                    "status": status,
                    "headers": [
                        (b"content-type", b"application/json"),
                        (b"content-length", str(len(body)).encode()),
                    ],
                }
            )
            await send({"type": "http.response.body", "body": body})
        finally:
            access.info(
                "%s %s",
                scope["method"],
                path,
                extra={"id": id, "status": status, "ms": round((time.monotonic() - start) * 1e3, 2)},
            )

    @staticmethod
    def _asset(path: str) -> bool:
        return any(path == a or path.startswith(a + "/") for a in ASSETS if a != "/") or path == "/"


access = logging.getLogger("fuseline.access")
