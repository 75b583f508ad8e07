"""Reading rows of a Parquet file in pieces: its row groups, found in the footer, are never all in memory."""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

SEGMENT_BYTES = 8 * 2**20
"""Largest decoded row group that is read as it is; files with larger ones are rewritten once."""
SEGMENT_ROWS = 4096
CACHE_BYTES = 8 * SEGMENT_BYTES


class Store(Protocol):
    """Where a table's rows lie. `block_rows`: how many neighbouring rows are cheap to read at random together."""

    columns: list[str]
    n_rows: int
    block_rows: int

    def read(self, start: int, length: int, columns: list[str]) -> pl.DataFrame:
        """Rows [start, start + length), fewer at the end."""
        ...

    def take(self, rows: np.ndarray, columns: list[str]) -> pl.DataFrame:
        """`rows` (N,) int64 in the given order, repeats allowed."""
        ...


class MemoryStore:
    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self.columns, self.n_rows = frame.columns, frame.height
        self.block_rows = frame.height

    def read(self, start: int, length: int, columns: list[str]) -> pl.DataFrame:
        return self._frame.select(columns).slice(start, length)

    def take(self, rows: np.ndarray, columns: list[str]) -> pl.DataFrame:
        return self._frame.select(columns)[rows]


class ParquetStore:
    """A Parquet file read by segments (neighbouring row groups, about 4,096 rows or 8 MB).

    The segments used last are kept, up to 64 MB decoded: taking sorted blocks of rows, or random rows inside a window
    of blocks, decodes each segment about once. Safe to share between threads; a pickled copy opens the file anew.
    """

    def __init__(self, path: Path, absent: tuple[str, ...]) -> None:
        self._path, self._absent = path, absent
        self._open()

    def _open(self) -> None:
        # One LazyFrame for all reads: it remembers the footer.
        self._scan = pl.scan_parquet(self._path, glob=False)
        self._schema = self._scan.collect_schema()
        self.columns = self._schema.names()
        groups = read_row_groups(self._path)
        self._starts = _segments(groups, len(self.columns))
        self.n_rows = int(self._starts[-1])
        self.block_rows = int(np.diff(self._starts).max(initial=1))
        self._cache: OrderedDict[tuple[int, tuple[str, ...]], tuple[pl.DataFrame, int]] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[Path, tuple[str, ...]]:
        return self._path, self._absent

    def __setstate__(self, state: tuple[Path, tuple[str, ...]]) -> None:
        self._path, self._absent = state
        self._open()

    def read(self, start: int, length: int, columns: list[str]) -> pl.DataFrame:
        stop = min(start + length, self.n_rows)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        for at in range(first, len(self._starts) - 1):
            low, high = int(self._starts[at]), int(self._starts[at + 1])
            if low >= stop:
                break
            begin = max(start, low)
            pieces.append(self._segment(at, columns).slice(begin - low, min(stop, high) - begin))
        return pl.concat(pieces) if pieces else self._segment(0, columns).clear()

    def take(self, rows: np.ndarray, columns: list[str]) -> pl.DataFrame:
        if len(rows) == 0:
            return self._segment(0, columns).clear()
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        segments = np.searchsorted(self._starts, ordered, side="right") - 1
        cuts = np.flatnonzero(np.diff(segments)) + 1
        pieces = []
        for part in np.split(np.arange(len(ordered)), cuts):
            at = int(segments[part[0]])
            pieces.append(self._segment(at, columns)[ordered[part] - self._starts[at]])
        back = np.empty(len(rows), dtype=np.int64)
        back[order] = np.arange(len(rows))
        out: pl.DataFrame = pl.concat(pieces)[back]
        return out

    def _segment(self, at: int, columns: list[str]) -> pl.DataFrame:
        key = (at, tuple(columns))
        with self._lock:
            hit = self._cache.get(key)
            if hit is not None:
                self._cache.move_to_end(key)
                return hit[0]
        low, high = int(self._starts[at]), int(self._starts[at + 1])
        frame = self._scan.select(columns).slice(low, high - low).collect()
        # Rechunked: a chunk may otherwise keep alive a larger buffer than the rows it shows.
        frame = frame.select(clean(frame.schema, self._absent)).rechunk()
        size = int(frame.estimated_size())
        with self._lock:
            if key not in self._cache:
                self._cache[key] = frame, size
                self._cached_bytes += size
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1][1]
        return frame


def clean(schema: pl.Schema, absent: tuple[str, ...]) -> list[pl.Expr]:
    """What every source's columns pass: absent words become null; categoricals are text, decimals are floats."""
    out = []
    for name, kind in schema.items():
        cell = pl.col(name)
        if isinstance(kind, (pl.Categorical, pl.Enum)) or kind == pl.Null:
            cell = cell.cast(pl.String)
        elif isinstance(kind, pl.Decimal):
            cell = cell.cast(pl.Float64)
        if absent and (kind == pl.String or isinstance(kind, (pl.Categorical, pl.Enum))):
            cell = pl.when(cell.is_in(list(absent)).not_()).then(cell)
        out.append(cell.alias(name))
    return out


class RowGroup(NamedTuple):
    rows: int
    bytes: int
    """encoded, not compressed"""


def decoded_bytes(group: RowGroup, columns: int) -> int:
    """A guess from above at a row group's size in memory: 16 bytes a cell stand for views and offsets."""
    return group.bytes + 16 * group.rows * columns


def _segments(groups: list[RowGroup], columns: int) -> np.ndarray:
    """(segments + 1,) int64 first rows: neighbouring row groups joined while small."""
    starts, rows, size = [0], 0, 0
    for group in groups:
        more = decoded_bytes(group, columns)
        if rows and (rows + group.rows > SEGMENT_ROWS or size + more > SEGMENT_BYTES):
            starts.append(starts[-1] + rows)
            rows = size = 0
        rows, size = rows + group.rows, size + more
    return np.array([*starts, starts[-1] + rows] if rows else starts, dtype=np.int64)


def read_row_groups(path: Path) -> list[RowGroup]:
    """The row groups named in a Parquet file's footer.

    polars does not tell them. The footer is a Thrift struct in the compact protocol (Apache Parquet format,
    `parquet.thrift`, FileMetaData); field 4 of it lists the groups. Raises ValueError on a footer that is none.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        end = file.tell()
        if end < 12:
            raise ValueError("shorter than a footer")
        file.seek(end - 8)
        size, magic = struct.unpack("<I4s", file.read(8))
        if magic != b"PAR1" or size > end - 12:
            raise ValueError("no Parquet footer")
        file.seek(end - 8 - size)
        reader = _Thrift(file.read(size))
    try:
        groups = reader.struct(0).get(4, [])
        return [RowGroup(int(g[3]), int(g[2])) for g in groups]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"unreadable Parquet footer ({error!r})") from None


class _Thrift:
    """The reading half of Thrift's compact protocol. Structs become dicts by field number; bytes stay unread."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self, depth: int) -> dict[int, Any]:
        out: dict[int, Any] = {}
        number = 0
        while head := self._data[self._at]:
            self._at += 1
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            out[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        self._at += 1
        return out

    def _value(self, kind: int, depth: int) -> Any:
        if depth > 32:
            raise IndexError("nested too deeply")
        match kind:
            case 1 | 2 | 3:  # a byte; in lists, booleans take one too
                self._at += 1
                return None
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                self._at += 8
                return None
            case 8:
                size = self._varint()
                self._at += size
                return None
            case 9 | 10:
                head = self._data[self._at]
                self._at += 1
                size = self._varint() if head >> 4 == 15 else head >> 4
                return [self._value(head & 15, depth + 1) for _ in range(size)]
            case 11:
                size = self._varint()
                if not size:
                    return None
                kinds = self._data[self._at]
                self._at += 1
                for _ in range(size):
                    self._value(kinds >> 4, depth + 1)
                    self._value(kinds & 15, depth + 1)
                return None
            case 12:
                return self.struct(depth + 1)
            case _:
                raise IndexError(f"no type {kind}")
