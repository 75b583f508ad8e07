"""What the three systems' programs share: a page's files, and bodies that are not trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response

from fuseline.serve import console

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'self'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def add_page(app: FastAPI, folder: Path, of_console: tuple[str, ...] = ()) -> None:
    """Every file of `folder` under its name, index.html at /, and beside them files of the server's console. Read once:
    no request names a file."""
    for name in of_console:
        content, kind = console.files()[f"/console/{name}"]
        app.add_api_route(f"/{name}", _file(content, kind.partition(";")[0]), include_in_schema=False)
    for path in sorted(folder.iterdir()):
        if path.suffix in KINDS:
            route = "/" if path.name == "index.html" else f"/{path.name}"
            app.add_api_route(route, _file(path.read_bytes(), KINDS[path.suffix]), include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[], Any]:
    async def page() -> Response:
        return Response(content, headers={"content-type": f"{kind}; charset=utf-8", **HEADERS})

    return page


async def bytes_of(request: Request, most: int) -> bytes:
    """A body of at most `most` bytes: a longer one is not read to its end. Raises HTTPException 413."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise HTTPException(413, f"the body is over {most / 2**20:g} MB")
    return bytes(data)


async def object_of(request: Request, most: int = 2**20) -> dict[str, Any]:
    """A body that is a JSON object. Raises HTTPException 400 or 413."""
    try:
        body = json.loads(await bytes_of(request, most))
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is no JSON object")
    return body
