"""Cells of several items, and videos and pages, through the doors: forms, schemas and the v2 protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from fuseline.errors import FuselineError
from fuseline.serve.calls import ColumnInfo, ModelInfo
from fuseline.serve.openapi import column_schema
from fuseline.serve.rest import _from_form
from fuseline.serve.v2.codec import Tensor
from fuseline.serve.v2.tensors import rows_of

KINDS = {"photos": "images", "remarks": "texts", "clip": "video", "scan": "image", "ocr": "words", "age": "number"}
INFO = ModelInfo(
    name="m",
    version="1",
    task="classification",
    mode="binary",
    classes=("a", "b"),
    targets=("y",),
    inputs={},
    columns=tuple(ColumnInfo(name, kind, name) for name, kind in KINDS.items()),  # type: ignore[arg-type]
    bytes=0,
    fuseline="0",
)


def form(files: list[tuple[str, Any]], data: dict[str, Any] | None = None) -> dict[str, Any]:
    request = httpx.Request("POST", "http://x", files=files, data=data)
    rows, _ = asyncio.run(_from_form(Headers(dict(request.headers)), request.read(), INFO, ()))
    return dict(rows[0])


def test_the_field_of_a_set_may_come_several_times() -> None:
    files = [("photos", ("a.png", b"one")), ("photos", ("b.png", b"two")), ("clip", ("c.mp4", b"film"))]
    row = form(files, {"remarks": ["no fever", "a cough"], "age": "40"})
    assert row == {"photos": [b"one", b"two"], "remarks": ["no fever", "a cough"], "clip": b"film", "age": "40"}
    assert form([("photos", ("a.png", b"one"))]) == {"photos": b"one"}
    assert form([("clip", ("c.mp4", b""))], {"remarks": '["a", "b"]'})["remarks"] == '["a", "b"]'
    with pytest.raises(FuselineError, match="'clip' is there twice"):
        form([("clip", ("a.mp4", b"one")), ("clip", ("b.mp4", b"two"))])


def test_every_kind_has_a_schema() -> None:
    for column in INFO.columns:
        schema = column_schema(column)
        assert "absent (input" in schema["description"]
    assert column_schema(INFO.columns[0])["anyOf"][0] == {"type": "array", "items": {"type": "string"}}


def test_v2_elements_are_files_or_lists() -> None:
    elements: dict[str, Any] = {"photos": b'["aGk=", "aG8="]', "clip": b"\0film", "ocr": b'[{"text": "a"}]'}
    tensors = [Tensor(name, "BYTES", (1,), [element]) for name, element in elements.items()]
    [row] = rows_of(tensors, INFO, 8)
    assert row == {"photos": elements["photos"], "clip": b"\0film", "ocr": '[{"text": "a"}]'}
