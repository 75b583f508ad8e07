"""What a table may be opened from, brought to a frame in memory or to a Parquet file with small row groups."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.data.csvfile import check_csv, csv_frames, read_csv, scan_csv
from fuseline.data.objects import check_columns, to_frame
from fuseline.data.parquet import (
    SEGMENT_BYTES,
    SEGMENT_ROWS,
    MemoryStore,
    ParquetStore,
    Store,
    clean,
    decoded_bytes,
    read_row_groups,
)
from fuseline.errors import FuselineError

IN_MEMORY_BYTES = 64 * 2**20
"""Files of text up to this size are read whole; larger ones are rewritten once, streaming, as Parquet."""
FORMATS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".jsonl", ".ndjson", ".arrow", ".feather", ".ipc")
_KNOWN = "known: " + ", ".join(FORMATS)
_MAGIC = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"PK\x03\x04": "a zip archive (an Excel workbook is one)",
    b"\x1f\x8b": "gzip",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "PDF",
    b"SQLite format 3": "an SQLite database",
}


@dataclass
class Opened:
    store: Store
    folder: Path | None = None
    temporary: Path | None = None
    """a folder to remove when the table is done with"""
    notes: list[str] = field(default_factory=list)


@dataclass
class _Opening:
    """One file on its way: where rewritten files go, and what is to be said about it."""

    path: Path
    absent: tuple[str, ...]
    cache_dir: Path | None
    temporary: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    def scratch(self) -> Path:
        if self.temporary is None:
            self.temporary = Path(tempfile.mkdtemp(prefix="fuseline-"))
        return self.temporary

    def rewritten(self, write: Callable[[Path], None]) -> Path:
        """The Parquet file that `write` makes of this file, kept in the cache by path, size and time of change."""
        status = self.path.stat()
        key = f"1|{self.path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        folder = self.cache_dir or self.scratch()
        target = folder / f"table-{hashlib.sha256(key.encode()).hexdigest()[:20]}.parquet"
        if not target.exists():
            self.notes.append(f"{self.name}: rewritten once as Parquet with small row groups in {folder}")
            folder.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(f".{uuid.uuid4().hex}.part")
            try:
                write(part)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
        return target


def open_source(source: Any, absent: tuple[str, ...], cache_dir: Path | None) -> Opened:
    """See :meth:`fuseline.data.table.Table.open`."""
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source), absent, cache_dir)
    if isinstance(source, pl.LazyFrame):
        return _open_lazy(source, absent)
    return Opened(_in_memory(to_frame(source), absent, type(source).__name__))


def _open_path(path: Path, absent: tuple[str, ...], cache_dir: Path | None) -> Opened:
    suffix = _check_path(path)
    opening = _Opening(path, absent, cache_dir)
    try:
        with _as_bad_table(opening.name):
            if suffix in (".csv", ".tsv", ".csv.gz", ".tsv.gz"):
                store = _open_csv(opening, suffix)
            elif suffix == ".parquet":
                store = _open_parquet(opening, opening.path)
            elif suffix in (".jsonl", ".ndjson"):
                store = _open_jsonl(opening)
            else:
                store = _open_arrow(opening)
    except BaseException:
        if opening.temporary:
            shutil.rmtree(opening.temporary, ignore_errors=True)
        raise
    return Opened(store, path.resolve().parent, opening.temporary, opening.notes)


def _check_path(path: Path) -> str:
    """The suffix. Raises FuselineError ``no_such_file``, ``bad_table`` or ``empty_table``."""
    try:
        if path.is_dir():
            raise FuselineError("no_such_file", f"{path} is a folder, not a table", f"give one file in it; {_KNOWN}")
        if not path.is_file():
            near = f"the folder {path.parent} does not exist" if not path.parent.is_dir() else "check the path"
            raise FuselineError("no_such_file", f"no table at {path}", near)
        lower = path.name.lower()
        suffix = next((s for s in sorted(FORMATS, key=len, reverse=True) if lower.endswith(s)), None)
        if suffix is None:
            raise FuselineError("bad_table", f"{path.name} is no kind of table that is read here", _KNOWN)
        with path.open("rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise FuselineError("no_such_file", f"cannot open {path}: {reason}", "check the path and its rights") from None
    if not head:
        raise FuselineError("empty_table", f"{path.name} is empty (0 bytes)", "give a table with a header and rows")
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    fitting = {".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow", ".ipc": "Arrow"}
    expected = "gzip" if suffix.endswith(".gz") else fitting.get(suffix)
    if found and found != expected:
        raise FuselineError(
            "bad_table", f"{path.name} ends in {suffix} but holds {found}", "rename it, or save it as CSV UTF-8"
        )
    return suffix


@contextmanager
def _as_bad_table(name: str) -> Any:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FuselineError("bad_table", f"{name} cannot be read: {lines[0][:200]}", "is the file complete?") from None
    except (OSError, EOFError, zlib.error) as error:
        raise FuselineError("bad_table", f"{name} cannot be read: {error}", "is the file complete?") from None


def _open_csv(opening: _Opening, suffix: str) -> Store:
    path = opening.path
    if suffix.endswith(".gz"):
        path = opening.scratch() / "table.csv"
        with gzip.open(opening.path) as packed, path.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 2**20)
        if path.stat().st_size == 0:
            raise FuselineError("empty_table", f"{opening.name} is empty", "its first line should name the columns")
    shape = check_csv(path, opening.name, "\t" if suffix.startswith(".tsv") else ",")
    if shape.note:
        opening.notes.append(shape.note)
    size = path.stat().st_size
    if size <= IN_MEMORY_BYTES:
        return _in_memory(read_csv(path, shape), opening.absent, opening.name)

    def write(part: Path) -> None:
        rows = _group_rows(size, shape.rows)
        if shape.plain:
            try:
                scan_csv(path, shape).sink_parquet(part, row_group_size=rows)
                if ParquetStore(part, ()).n_rows == shape.rows:
                    return
            except pl.exceptions.PolarsError:
                pass  # as in `read_csv`
        _sink(csv_frames(path, shape), dict.fromkeys(shape.columns, pl.String), part, rows)

    return ParquetStore(opening.rewritten(write), opening.absent)


def _open_parquet(opening: _Opening, path: Path) -> Store:
    try:
        groups = read_row_groups(path)
    except ValueError as error:
        raise FuselineError(
            "bad_table", f"{opening.name} is no Parquet file: {error}", "is the file complete?"
        ) from None
    scan = pl.scan_parquet(path, glob=False)
    schema = scan.collect_schema()
    rows = sum(g.rows for g in groups)
    check_columns(schema, opening.name)
    if rows == 0:
        raise FuselineError("empty_table", f"{opening.name} has no rows", "")
    width = len(schema)
    if max(decoded_bytes(g, width) for g in groups) > SEGMENT_BYTES and max(g.rows for g in groups) > 1:
        size = _group_rows(sum(g.bytes for g in groups), rows)
        if max(g.rows for g in groups) > size:
            path = opening.rewritten(lambda part: scan.sink_parquet(part, row_group_size=size))
    return ParquetStore(path, opening.absent)


def _open_jsonl(opening: _Opening) -> Store:
    path = opening.path
    try:
        # The whole file decides the columns' kinds: a column whose first thousand cells are absent has one too.
        scan = pl.scan_ndjson(path, infer_schema_length=None)
        if path.stat().st_size <= IN_MEMORY_BYTES:
            return _in_memory(scan.collect(), opening.absent, opening.name)
        check_columns(scan.collect_schema(), opening.name)

        def write(part: Path) -> None:
            with path.open("rb") as file:
                rows = sum(1 for _ in file)
            scan.sink_parquet(part, row_group_size=_group_rows(path.stat().st_size, rows))

        return ParquetStore(opening.rewritten(write), opening.absent)
    except pl.exceptions.PolarsError as error:
        raise _explain_jsonl(path, error) from None


def _explain_jsonl(path: Path, error: Exception) -> FuselineError:
    """polars names no line; find it."""
    hint = "every line is one JSON object, one key a column"
    row = -1
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row += 1
                where = f"{path.name}, line {number}"
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as broken:
                    return FuselineError("bad_table", f"{where} is no JSON: {broken}", hint, row=row)
                if not isinstance(value, dict):
                    return FuselineError("bad_table", f"{where} is a JSON {type(value).__name__}", hint, row=row)
    except UnicodeDecodeError:
        return FuselineError("bad_table", f"{path.name} is not UTF-8 text", "save it as UTF-8")
    if row < 0:
        return FuselineError("empty_table", f"{path.name} has no rows", hint)
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return FuselineError("bad_table", f"{path.name} cannot be read: {reason}", hint)


def _open_arrow(opening: _Opening) -> Store:
    path = opening.path
    with path.open("rb") as file:
        is_file = file.read(6) == b"ARROW1"
    if not is_file:  # the streaming format, which Hugging Face datasets keep on disk
        frame = pl.read_ipc_stream(path)
        return _in_memory(frame, opening.absent, opening.name)
    scan = pl.scan_ipc(path, glob=False)
    if path.stat().st_size <= IN_MEMORY_BYTES:
        return _in_memory(scan.collect(), opening.absent, opening.name)
    check_columns(scan.collect_schema(), opening.name)
    rows = int(scan.select(pl.len()).collect().item())
    size = _group_rows(path.stat().st_size, rows)
    return ParquetStore(opening.rewritten(lambda part: scan.sink_parquet(part, row_group_size=size)), opening.absent)


def _open_lazy(source: pl.LazyFrame, absent: tuple[str, ...]) -> Opened:
    folder = Path(tempfile.mkdtemp(prefix="fuseline-"))
    try:
        with _as_bad_table("the LazyFrame"):
            source.sink_parquet(folder / "lazy.parquet", row_group_size=SEGMENT_ROWS)
            opening = _Opening(folder / "lazy.parquet", absent, folder)
            store = _open_parquet(opening, opening.path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Opened(store, temporary=folder)


def _sink(frames: Iterable[pl.DataFrame], schema: Mapping[str, Any], path: Path, rows: int) -> None:
    """Write frames as they come."""
    from polars.io.plugins import register_io_source

    def produce(columns: list[str] | None, predicate: Any, limit: int | None, batch: int | None) -> Any:
        for frame in frames:
            yield frame.select(columns) if columns else frame

    register_io_source(produce, schema=dict(schema)).sink_parquet(path, row_group_size=rows)


def _group_rows(size: int, rows: int) -> int:
    """Rows of a row group of about 4 MB."""
    return int(np.clip(SEGMENT_BYTES // 2 // max(1, size // max(1, rows)), 1, SEGMENT_ROWS))


def _in_memory(frame: pl.DataFrame, absent: tuple[str, ...], name: str) -> Store:
    check_columns(frame.schema, name)
    if frame.height == 0:
        raise FuselineError("empty_table", f"{name} has no rows", "")
    return MemoryStore(frame.select(clean(frame.schema, absent)))
