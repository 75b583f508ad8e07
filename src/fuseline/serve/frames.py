"""Messages between the front process and its workers: JSON and the bytes of media beside it. No pickle.

A frame is two little-endian numbers (uint32 length of the JSON, uint64 length of the bytes), the JSON, the bytes. Rows
go as JSON with every bytes cell taken out and listed in `blobs` as [row, column, length], in the order of the bytes.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = struct.Struct("<IQ")


def pack(message: Mapping[str, Any], rows: Sequence[Any] = ()) -> list[bytes]:
    """The pieces of one frame, to be written in order. What is no row goes through as it is: the parser names it."""
    blobs: list[list[Any]] = []
    data: list[bytes] = []
    plain: list[Any] = []
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            plain.append(row)
            continue
        cells = {}
        for column, cell in row.items():
            if isinstance(cell, (bytes, bytearray, memoryview)):
                blobs.append([i, column, len(cell)])
                data.append(bytes(cell))
            else:
                cells[column] = cell
        plain.append(cells)
    text = json.dumps({**message, "rows": plain, "blobs": blobs}, separators=(",", ":"), default=str).encode()
    return [_HEAD.pack(len(text), sum(map(len, data))), text, *data]


async def read(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next message, its rows whole again. Raises asyncio.IncompleteReadError where the other side is gone."""
    text_size, data_size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    message: dict[str, Any] = json.loads(await reader.readexactly(text_size))
    data = memoryview(await reader.readexactly(data_size)) if data_size else memoryview(b"")
    at = 0
    for i, column, size in message.pop("blobs"):
        message["rows"][i][column] = bytes(data[at : at + size])
        at += size
    return message
