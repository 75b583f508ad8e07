"""A request's body: read within limits, decompressed within the same limits, and parsed as strict JSON."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request

from fuseline.errors import FuselineError
from fuseline.serve.settings import Settings

_STEP = 256 * 1024
"""bytes decompressed at once: other requests get their turn in between"""
_TOKENS_A_ROW = 4096
"""strings, lists, objects and commas that a row may need: an empty list of 2 bytes becomes one of 56 in memory"""
# Possessive, and closed by a quote or the end: linear in the text, whatever it holds.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_STRUCTURE = bytes(b for b in range(256) if b not in b"[]{},")


async def read_body(request: Request, settings: Settings) -> bytes:
    """The whole body, decompressed where Content-Encoding says gzip or deflate (zlib's format, or bare).

    Raises FuselineError ``too_large`` (the limit holds for the sent and for the decompressed size, and is noticed
    before either is in memory), ``unsupported_type``, ``bad_request``, ``cancelled``, ``deadline``.
    """
    limit = int(settings.max_body_mb * 2**20)
    said = _said_length(request, limit)
    unpack = _Unpacker(_encoding(request), limit)
    seen = 0
    try:
        async with asyncio.timeout(settings.deadline_ms / 1000):
            async for chunk in request.stream():
                seen += len(chunk)
                if seen > limit:
                    raise _too_large(limit)
                await unpack.feed(chunk)
    except ClientDisconnect:
        raise FuselineError("cancelled", "the caller left before the body was sent") from None
    except TimeoutError:
        raise FuselineError("deadline", "the body was not sent in time", "send it faster, or send less") from None
    if said is not None and said != seen:
        raise FuselineError("bad_request", f"Content-Length says {said} bytes, but {seen} came")
    return unpack.end()


def _said_length(request: Request, limit: int) -> int | None:
    said = request.headers.get("content-length")
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) < 20):
        raise FuselineError("bad_request", "Content-Length is not a number of bytes")
    if int(said) > limit:
        raise _too_large(limit)
    return int(said)


def _encoding(request: Request) -> str:
    """`gzip`, `deflate` or `identity`."""
    listed = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    named = [name for part in listed if (name := part.strip()) not in ("", "identity")]
    if len(named) > 1:
        raise FuselineError("unsupported_type", "several content encodings one upon another", "compress the body once")
    name = {"x-gzip": "gzip"}.get(named[0], named[0]) if named else "identity"
    if name not in ("gzip", "deflate", "identity"):
        raise FuselineError("unsupported_type", "this content encoding is not read", "send gzip, deflate or identity")
    return name


class _Unpacker:
    """Collects chunks, decompressed in small steps and never beyond `limit` bytes."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding, self._limit = encoding, limit
        self._parts: list[bytes] = []
        self._room = limit
        self._head = b""
        self._stream = zlib.decompressobj(31) if encoding == "gzip" else None

    async def feed(self, chunk: bytes) -> None:
        if self._encoding == "identity":
            self._parts.append(chunk)
            return
        if self._stream is None:  # deflate: the first two bytes tell zlib's format from a bare stream
            self._head += chunk
            if len(self._head) < 2:
                return
            zlib_format = self._head[0] & 15 == 8 and int.from_bytes(self._head[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(15 if zlib_format else -15)
            chunk = self._head
        while chunk:
            if self._stream.eof:
                raise FuselineError("bad_request", f"data after the end of the {self._encoding} stream")
            try:
                part = self._stream.decompress(chunk, min(_STEP, self._room + 1))
            except zlib.error:
                raise FuselineError("bad_request", f"the body is not {self._encoding}") from None
            self._room -= len(part)
            if self._room < 0:
                raise _too_large(self._limit)
            self._parts.append(part)
            chunk = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if len(part) == _STEP:
                await asyncio.sleep(0)

    def end(self) -> bytes:
        if self._encoding != "identity" and (self._stream is None or not self._stream.eof):
            raise FuselineError("bad_request", f"the {self._encoding} stream ends too early")
        return b"".join(self._parts)


def _too_large(limit: int) -> FuselineError:
    hint = "send fewer rows at once, or smaller files; the server's --max-body-mb sets the limit"
    return FuselineError("too_large", f"the body is larger than {limit / 2**20:g} MB", hint)


def parse_json(data: bytes, settings: Settings) -> Any:
    """UTF-8 JSON. Beyond the standard's rules: no NaN or Infinity, no key twice in an object, bounded nesting and
    number of values, integers of at most 4300 digits (Python's own limit).

    Raises FuselineError ``bad_request``, or ``too_large`` for more values than the largest request can need.
    """
    _check_structure(data, settings)
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _bad(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        raise _bad("the body is not JSON that can be read: an integer has thousands of digits") from None


def _check_structure(data: bytes, settings: Settings) -> None:
    """Nesting and number of values, before any of them is made."""
    most = _TOKENS_A_ROW * max(settings.max_rows, 16)
    if data.count(b'"') > most:
        raise FuselineError("too_large", "the body holds too many strings", "send fewer rows at once")
    openings = data.count(b"[") + data.count(b"{")
    if openings <= settings.max_json_depth and 2 * openings + data.count(b",") <= most:
        return  # nearly every body: one look at a large picture's base64 text is enough
    structure = _STRING.sub(b"", data).translate(None, _NOT_STRUCTURE)
    if len(structure) > most:
        raise FuselineError("too_large", "the body holds too many values", "send fewer rows at once")
    marks = np.frombuffer(structure, dtype=np.uint8)
    opening = (marks == ord("[")) | (marks == ord("{"))
    closing = (marks == ord("]")) | (marks == ord("}"))
    depth = int(np.cumsum(opening.astype(np.int32) - closing, dtype=np.int64).max(initial=0))
    if depth > settings.max_json_depth:
        raise _bad(f"the body is nested {depth} deep, at most {settings.max_json_depth} is read")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _bad(f"a key stands twice in an object: {twice[:60]!r}", "give each key once")
    return out


def _constant(word: str) -> Any:
    raise _bad(f"{word} is not JSON", "write null for a number that is absent")


def _bad(message: str, hint: str = "") -> FuselineError:
    return FuselineError("bad_request", message, hint)
