"""The two models as their server answers: understanding as a whole, the reply as it is written."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from examples.stages import ANSWER_SECONDS, ask
from fuseline.errors import FuselineError

UNDERSTAND, REPLY = "understand", "reply"


class Models(Protocol):
    """What the page's program needs; both raise FuselineError."""

    def understand(self, row: dict[str, Any]) -> dict[str, Any]: ...

    def write(self, row: dict[str, Any]) -> Iterator[str]: ...


class Served:
    """Both by one `fuseline serve`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def understand(self, row: dict[str, Any]) -> dict[str, Any]:
        answer = ask(self.url, UNDERSTAND, [row])[0]
        if "error" in answer:
            raise FuselineError.from_dict(answer["error"])
        return answer

    def write(self, row: dict[str, Any]) -> Iterator[str]:
        """The reply's pieces, by `/v1/models/reply/generate`. Closing the iterator hangs up, which ends the writing."""
        request = urllib.request.Request(
            f"{self.url}/v1/models/{REPLY}/generate",
            data=json.dumps({"row": row, "stream": True}).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with contextlib.closing(urllib.request.urlopen(request, timeout=ANSWER_SECONDS)) as response:
                yield from pieces(response)
        except urllib.error.HTTPError as error:
            raise _told(error.read()) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise FuselineError("not_ready", f"the model server gave no answer: {error}", "is it up?") from None


def pieces(lines: Iterable[bytes]) -> Iterator[str]:
    """Texts of a stream of server-sent events (WHATWG HTML, section 9.2) until its `end`.

    Raises FuselineError where the stream says `error`, or ends before its end: half a reply is no reply.
    """
    name, data = "", b""
    for raw in lines:
        line = raw.rstrip(b"\r\n")
        if line.startswith(b"event:"):
            name = line[6:].strip().decode("utf-8", "replace")
        elif line.startswith(b"data:"):
            data += line[5:].removeprefix(b" ")
        elif not line and data:
            if name == "error":
                raise _told(data)
            if name == "end":
                return
            yield str(json.loads(data)["text"])
            name, data = "", b""
    raise FuselineError("worker_died", "the reply broke off", "send the turn again")


def _told(body: bytes) -> FuselineError:
    try:
        told = json.loads(body)
        return FuselineError(str(told["code"]), str(told["error"]), str(told.get("hint", "")))
    except (ValueError, KeyError, TypeError):
        return FuselineError("internal", "the model server failed without words", "see server.log")
