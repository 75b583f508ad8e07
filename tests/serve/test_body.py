"""Bodies within their limits, whatever a caller sends."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from starlette.requests import Request

from fuseline.errors import FuselineError
from fuseline.serve.body import parse_json, read_body
from fuseline.serve.settings import Settings

QUIET = given_settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SETTINGS = Settings(max_body_mb=1.0, max_json_depth=8, max_rows=16)
MB = 2**20


def read(chunks: Sequence[bytes | None], settings: Settings = SETTINGS, **headers: str) -> bytes:
    """What `read_body` gives for these chunks; None: the caller leaves."""
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.sleep(60)
        chunk = waiting.pop(0)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    return asyncio.run(read_body(request, settings))


def code(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(FuselineError) as caught:
        read(*args, **kwargs)
    return caught.value.code


def bare_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes, "": bytes}


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("cut", [1, 2, 7, 10**6])
def test_every_encoding_in_every_cut_gives_the_body(encoding: str, cut: int) -> None:
    body = bytes(range(256)) * 5
    sent = PACK[encoding](body)
    chunks = [sent[i : i + cut] for i in range(0, len(sent), cut)]
    assert read(chunks, content_encoding=encoding, content_length=str(len(sent))) == body


@pytest.mark.parametrize("cut", [1, 3, 10**6])
def test_bare_deflate_is_read_too(cut: int) -> None:
    sent = bare_deflate(b"hello" * 100)
    assert read([sent[i : i + cut] for i in range(0, len(sent), cut)], content_encoding="deflate") == b"hello" * 100


@QUIET
@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_random_bytes_are_a_bad_request_or_a_body(data: bytes, encoding: str) -> None:
    refused = ""
    try:
        assert isinstance(read([data], content_encoding=encoding), bytes)
    except FuselineError as error:
        refused = error.code
    assert refused in ("", "bad_request")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_is_in_memory(encoding: str) -> None:
    sent = PACK[encoding](bytes(60 * MB))
    assert len(sent) < MB
    import tracemalloc

    tracemalloc.start()
    assert code([sent], content_encoding=encoding) == "too_large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * MB


def test_the_limit_itself_is_allowed_and_one_byte_more_is_not() -> None:
    assert len(read([bytes(MB)])) == MB
    assert code([bytes(MB), b"x"]) == "too_large"
    assert len(read([gzip.compress(bytes(MB), mtime=0)], content_encoding="gzip")) == MB
    assert code([gzip.compress(bytes(MB + 1), mtime=0)], content_encoding="gzip") == "too_large"


def test_a_length_too_large_is_refused_before_reading() -> None:
    assert code([], content_length=str(MB + 1)) == "too_large"


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "٣", "9" * 30, ""])
def test_a_length_that_is_no_number(length: str) -> None:
    assert code([b"abc"], content_length=length) == "bad_request"


@pytest.mark.parametrize("length", ["2", "4"])
def test_a_length_that_lies(length: str) -> None:
    assert code([b"abc"], content_length=length) == "bad_request"


def test_encodings_that_are_not_read() -> None:
    for encoding in ("br", "zstd", "gzip, gzip", "deflate, gzip", "nonsense"):
        assert code([b"abc"], content_encoding=encoding) == "unsupported_type"
    assert read([gzip.compress(b"abc", mtime=0)], content_encoding="Identity, GZIP") == b"abc"


def test_streams_that_end_early_or_late() -> None:
    sent = gzip.compress(b"abc" * 100, mtime=0)
    assert code([sent[:-1]], content_encoding="gzip") == "bad_request"
    assert code([sent + b"x"], content_encoding="gzip") == "bad_request"
    assert code([sent, sent], content_encoding="gzip") == "bad_request"
    assert code([b""], content_encoding="gzip") == "bad_request"
    assert code([b"x"], content_encoding="deflate") == "bad_request"
    assert code([b"not gzip at all"], content_encoding="gzip") == "bad_request"


def test_a_caller_who_leaves_or_dawdles() -> None:
    assert code([b"abc", None]) == "cancelled"

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(FuselineError, match="not sent in time") as caught:
        asyncio.run(read_body(request, SETTINGS.model_copy(update={"deadline_ms": 30.0})))
    assert caught.value.code == "deadline"


def json_code(data: bytes) -> str:
    with pytest.raises(FuselineError) as caught:
        parse_json(data, SETTINGS)
    return caught.value.code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return int(isinstance(value, (dict, list))) + max(map(depth_of, inner), default=0)


@QUIET
@given(JSON, st.booleans())
def test_json_is_read_to_its_depth(value: Any, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if depth_of(value) > SETTINGS.max_json_depth:
        assert json_code(data) == "bad_request"
    else:
        assert parse_json(data, SETTINGS) == value


@QUIET
@given(
    st.binary(max_size=200) | st.text(alphabet='[]{}",:\\u0d8a1eE.-NaInfity truefalsn', max_size=200).map(str.encode)
)
def test_random_text_is_a_bad_request_or_json(data: bytes) -> None:
    refused = ""
    try:
        parse_json(data, SETTINGS)
    except FuselineError as error:
        refused = error.code
    assert refused in ("", "bad_request", "too_large")


def test_depth_counts_brackets_outside_of_strings_only() -> None:
    assert parse_json(b"[" * 8 + b"]" * 8, SETTINGS)
    assert json_code(b"[" * 9 + b"]" * 9) == "bad_request"
    assert json_code(b'{"a":' * 9 + b"1" + b"}" * 9) == "bad_request"
    tricky = ['["[[[[[[[[[[[[[[[[', '{"', '\\"[[[[[[[[[[', "\\", "]]]]]]]]]"]
    assert parse_json(json.dumps(tricky).encode(), SETTINGS) == tricky
    assert json_code(b"[" * 60_000) == "bad_request"


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', '{"a": 1, "a": 2}', "", "{", "[1,]", "'a'"])
def test_what_is_no_json(text: str) -> None:
    assert json_code(text.encode()) == "bad_request"


def test_bytes_that_are_no_utf8_and_numbers_beyond_reason() -> None:
    assert json_code(b'"\xff"') == "bad_request"
    assert json_code(b'"\xed\xa0\x80"') == "bad_request"
    assert json_code("[1]".encode("utf-16")) == "bad_request"
    assert json_code(b"\xef\xbb\xbf[1]") == "bad_request"
    assert json_code(b"[" + b"9" * 5000 + b"]") == "bad_request"
    assert parse_json(b"[" + b"9" * 4000 + b", 1e999]", SETTINGS)[1] == float("inf")


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"1,", b'"",', b'"a",1,'])
def test_many_small_values_are_refused_quickly(unit: bytes) -> None:
    data = b"[" + unit * (MB // len(unit)) + b"1]"
    start = time.perf_counter()
    assert json_code(data) == "too_large"
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("data", [b'"' + b'\\"' * (2 * MB), b'["' + b"\\\\" * (2 * MB), b'["' + b"[" * (4 * MB)])
def test_strings_made_to_slow_the_reader_down(data: bytes) -> None:
    start = time.perf_counter()
    assert json_code(data) in ("bad_request", "too_large")
    assert time.perf_counter() - start < 1.0
