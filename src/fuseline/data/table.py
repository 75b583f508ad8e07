"""The table: rows and columns from wherever they come, read in bounded memory."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.data.parquet import Store
from fuseline.data.sources import open_source
from fuseline.errors import FuselineError, closest
from fuseline.recipe import ABSENT


class Table:
    """Rows that can be read in order, in blocks, or by number, without ever being all in memory.

    Columns of a CSV hold text, exactly as written ("007" stays "007"); other sources keep their kinds. In every
    source a text cell that is one of the `absent` words is null.

    Attributes:
        columns: the header.
        n_rows: how many rows.
        folder: where relative paths in cells start; None for tables that were no file.
        block_rows: how many neighbouring rows belong together: random access inside a few such blocks is cheap.
        notes: what was done on opening that a user may want to know.
        name: the file's, for errors; empty for tables that were no file.
        joined: of a table that was put together from files: (name, rows) of each, in order.
    """

    name: str = ""
    joined: tuple[tuple[str, int], ...] = ()

    def __init__(self, store: Store, folder: Path | None = None, notes: Sequence[str] = ()) -> None:
        self._store = store
        self.columns: list[str] = store.columns
        self.n_rows: int = store.n_rows
        self.block_rows: int = store.block_rows
        self.folder = folder
        self.notes = list(notes)

    @classmethod
    def open(cls, source: Any, *, absent: Sequence[str] = ABSENT, cache_dir: Path | None = None) -> Table:
        """A path (.csv .tsv, either with .gz, .parquet .jsonl .ndjson .arrow .feather .ipc), a polars or pandas frame,
        anything with ``__arrow_c_stream__`` (Arrow tables, Hugging Face datasets), or a list of dicts.

        Text files above 64 MB and Parquet files with row groups above 8 MB are rewritten once, streaming, as Parquet
        with small row groups: in `cache_dir`, found again next time, or else in a temporary folder that goes with the
        table.

        Raises:
            FuselineError: ``no_such_file``, ``bad_table``, ``empty_table``, ``duplicate_column``.
        """
        opened = open_source(source, tuple(absent), Path(cache_dir) if cache_dir is not None else None)
        table = cls(opened.store, opened.folder, opened.notes)
        table.name = Path(source).name if isinstance(source, (str, Path)) else ""
        if opened.temporary is not None:
            weakref.finalize(table, _remove, opened.temporary, os.getpid())
        return table

    def require(self, columns: Sequence[str]) -> None:
        """Raises FuselineError ``missing_column`` unless every column is there, naming the closest header of each."""
        lacking = [c for c in columns if c not in self.columns]
        if not lacking:
            return
        near = [f"{closest(c, self.columns)!r} for {c!r}" for c in lacking if closest(c, self.columns)]
        names = ", ".join(repr(c) for c in lacking[:10]) + (", ..." if len(lacking) > 10 else "")
        shown = ", ".join(self.columns[:20]) + (", ..." if len(self.columns) > 20 else "")
        raise FuselineError(
            "missing_column",
            f"{self.name or 'the table'} has no column {names}",
            (f"did you mean {', '.join(near)}? " if near else "") + f"its columns: {shown}",
            column=lacking[0],
        )

    def origin(self, row: int) -> tuple[str, int]:
        """The file that `row` came from (empty: the table itself), and its row there."""
        for name, count in self.joined:
            if row < count:
                return name, row
            row -= count
        return "", row

    def batches(self, columns: Sequence[str] | None = None, size: int = 1024) -> Iterator[tuple[int, pl.DataFrame]]:
        """(first row, frame) of `size` rows each, the last one shorter."""
        assert size > 0
        chosen = self._chosen(columns)
        for start in range(0, self.n_rows, size):
            yield start, self._store.read(start, size, chosen)

    def take(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """`rows` (N,) of integers in [0, n_rows), in the order given. Quick where they lie in few blocks."""
        rows = np.asarray(rows, dtype=np.int64)
        assert rows.ndim == 1
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.n_rows):
            raise IndexError(f"rows must be in [0, {self.n_rows})")
        return self._store.take(rows, self._chosen(columns))

    def column(self, name: str) -> pl.Series:
        """One whole column, in memory."""
        self.require([name])
        size = max(4096, self.block_rows)
        pieces = [frame.to_series() for _, frame in self.batches([name], size)]
        return pl.concat(pieces) if len(pieces) > 1 else pieces[0]

    @staticmethod
    def rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
        """The rows as Python cells: None where absent (null, NaN), a media struct as its bytes or else its path."""
        columns = {name: cells(frame[name]) for name in frame.columns}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _chosen(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return self.columns
        self.require(columns)
        return list(dict.fromkeys(columns))


def cells(series: pl.Series) -> list[Any]:
    """A column as Python cells, as in :meth:`Table.rows`."""
    if series.dtype.is_float():
        series = series.fill_nan(None)
    if isinstance(series.dtype, pl.Array) and series.dtype.base_type is not None and not series.is_null().any():
        return list(series.to_numpy())  # series of numbers stay arrays: lists of lists cost a hundred times as much
    values = series.to_list()
    if is_media_struct(series.dtype):
        return [None if v is None else v["bytes"] if v.get("bytes") is not None else v.get("path") for v in values]
    return values


def is_media_struct(kind: Any) -> bool:
    """Whether cells are Hugging Face's ``{"bytes": ..., "path": ...}``."""
    return isinstance(kind, pl.Struct) and {"bytes"} <= {f.name for f in kind.fields} <= {"bytes", "path"}


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker's copy must not take the file from under its parent
        shutil.rmtree(folder, ignore_errors=True)
