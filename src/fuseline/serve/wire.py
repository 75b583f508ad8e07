"""HTTP/1.1 as uvicorn speaks it, but what is no HTTP is refused in the form that every other failure has."""

from __future__ import annotations

import contextlib
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        del msg
        body = json.dumps({"error": "not an HTTP/1.1 request, or its headers are too large", "code": "bad_request"})
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        events = (h11.Response(status_code=400, headers=headers), h11.Data(data=body.encode()), h11.EndOfMessage())
        with contextlib.suppress(h11.LocalProtocolError):  # in the middle of an answer there is nothing left to say
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
