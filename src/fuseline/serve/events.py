"""A text while it is written: server-sent events (WHATWG HTML, section 9.2), for as long as the caller is there."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from fuseline.errors import FuselineError
from fuseline.package.files import finite
from fuseline.serve.doors import failure
from fuseline.serve.waiting import while_there

Events = AsyncGenerator[bytes, None]


def event(data: Any, name: str = "") -> bytes:
    """One event; `name` "" is a plain message."""
    text = data if isinstance(data, str) else json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + b"data: " + text.encode("utf-8", "replace") + b"\n\n"


class EventStream(Response):
    """Sends events as they are made. A caller who hangs up closes `events`, and with it what makes them."""

    def __init__(self, request: Request, first: bytes, events: Events) -> None:
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
        # Proxies that gather an answer before they pass it on would undo the point of it.
        super().__init__(headers={**headers, "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.request, self.first, self.events = request, first, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await while_there(self.request, self._send(send))
        except FuselineError:  # `cancelled`: there is nobody to tell
            return

    async def _send(self, send: Send) -> None:
        async with aclosing(self.events):
            await send({"type": "http.response.body", "body": self.first, "more_body": True})
            try:
                async for part in self.events:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except FuselineError as error:
                id = self.request.scope.get("state", {}).get("id", "")
                _, body = failure(error, path=self.request.url.path, id=id)
                await send({"type": "http.response.body", "body": event(body.decode(), "error"), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def streamed(request: Request, events: Events) -> Response:
    """The response, once the first event is there: what fails before it is an ordinary failure with its status."""
    try:
        first = await while_there(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    return EventStream(request, first, events)
