"""Messages between front and workers come out as they went in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.serve import frames

CELL = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(), st.binary()
)
ROWS = st.lists(st.dictionaries(st.text(), CELL, max_size=5), max_size=5)


def through(message: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    async def go() -> dict[str, Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"".join(frames.pack(message, rows)))
        reader.feed_eof()
        return await frames.read(reader)

    return asyncio.run(go())


@given(rows=ROWS)
def test_rows_survive(rows: list[dict[str, Any]]) -> None:
    assert through({"do": "score", "id": 7}, rows) == {"do": "score", "id": 7, "rows": rows}


def test_rows_that_are_no_rows_survive_too() -> None:
    rows: list[Any] = ["text", 1, None, [1]]
    assert through({"id": 1}, rows)["rows"] == rows


def test_half_a_message_is_an_end() -> None:
    async def go() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"".join(frames.pack({"id": 1}, [{"a": b"xyz"}]))[:-1])
        reader.feed_eof()
        await frames.read(reader)

    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(go())
