"""CSV and TSV: checked by Python's csv module, which counts lines and fields exactly, then read by polars.

polars alone pads short lines with nulls, renames repeated headers, and takes blank lines for rows, all in silence.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from fuseline.errors import FuselineError

if TYPE_CHECKING:
    import _csv

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


@dataclass(frozen=True)
class CsvShape:
    columns: list[str]
    separator: str
    rows: int
    plain: bool
    """whether polars may read it: no blank lines"""
    note: str = ""


def check_csv(path: Path, name: str, separator: str) -> CsvShape:
    """One pass over the file in bounded memory. `name`: the file as the user knows it.

    A file whose first lines only agree on several columns at semicolons, tabs or bars is read so, with a note.

    Raises:
        FuselineError: ``bad_table`` (no UTF-8, lines of different lengths, an open quote, a nameless column),
            ``duplicate_column``, ``empty_table``.
    """
    line = 0
    try:
        note = ""
        if separator == "," and (separator := _separator(path)) != ",":
            note = f"{name}: read with {_SEPARATORS[separator]} between cells"
        header = next(iter(_first_lines(path, separator)), None)
        if header is None:
            raise FuselineError("empty_table", f"{name} is empty", "its first line should name the columns")
        check_names(header, name)
        rows, blank, width = 0, 0, len(header)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = _reader(file, separator)
            next(r for r in reader if r)
            for cells in reader:
                line = reader.line_num
                if len(cells) == width:
                    rows += 1
                elif not cells:
                    blank += 1
                else:
                    raise FuselineError(
                        "bad_table",
                        f"{name}, line {line}: {len(cells)} cells where the header has {width}",
                        "quote cells that hold the separator or a line break, or complete the line",
                        row=rows + blank * (width == 1),
                    )
    except UnicodeDecodeError as error:
        raise FuselineError(
            "bad_table", f"{name} is not UTF-8 text (byte {error.object[error.start]:#04x})", "save it as CSV UTF-8"
        ) from None
    except csv.Error as error:
        raise FuselineError(
            "bad_table",
            f"{name}, after line {line or 1}: {error}",
            'a quoted cell may not be closed; a quote inside quotes is written twice ("")',
        ) from None
    if width == 1:  # a line of a single column that is blank is an absent cell
        rows += blank
    if rows == 0:
        raise FuselineError("empty_table", f"{name} has a header and no rows", "add rows below the header")
    return CsvShape(header, separator, rows, plain=not blank, note=note)


def read_csv(path: Path, shape: CsvShape) -> pl.DataFrame:
    """The whole file, every cell as the text that stands there."""
    if shape.plain:
        try:
            frame = scan_csv(path, shape).collect()
            if frame.height == shape.rows and frame.columns == shape.columns:
                return frame
        except pl.exceptions.PolarsError:
            pass  # e.g. a quote amid a cell, which the csv module takes literally
    return pl.concat(csv_frames(path, shape))


def scan_csv(path: Path, shape: CsvShape) -> pl.LazyFrame:
    scan = pl.scan_csv(path, separator=shape.separator, infer_schema=False, glob=False)
    return scan.with_columns(pl.all().fill_null(""))


def csv_frames(path: Path, shape: CsvShape, size: int = 4096) -> Iterator[pl.DataFrame]:
    """The slow way, cell by cell in Python; for the files that polars reads differently."""
    schema = dict.fromkeys(shape.columns, pl.String)
    width = len(shape.columns)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = _reader(file, shape.separator)
        next(r for r in reader if r)
        rows = (cells or [""] for cells in reader if cells or width == 1)
        while chunk := list(itertools.islice(rows, size)):
            yield pl.DataFrame(
                dict(zip(shape.columns, map(list, zip(*chunk, strict=True)), strict=True)), schema=schema
            )


def check_names(names: list[str], source: str) -> None:
    """Raises FuselineError ``bad_table`` or ``duplicate_column``."""
    for at, name in enumerate(names):
        if not name.strip():
            raise FuselineError(
                "bad_table",
                f"{source}: column {at + 1} of {len(names)} has no name",
                "name it, or leave it out; pandas writes such a column unless to_csv(index=False)",
            )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise FuselineError(
                "duplicate_column", f"{source} has two columns called {name!r}", "rename one of them", column=name
            )
        seen.add(name)


def _separator(path: Path) -> str:
    """The sign at which header and first row fall into the same number of cells, the most; else the first at which
    the header falls into several; else the comma."""
    several, agreed = [], {}
    for sign in _SEPARATORS:
        try:
            widths = [len(cells) for cells in _first_lines(path, sign)]
        except csv.Error:  # quotes that only make sense with another sign between cells
            continue
        if widths and widths[0] > 1:
            several.append(sign)
            if len(set(widths)) == 1:
                agreed[sign] = widths[0]
    if agreed:
        return max(agreed, key=lambda sign: agreed[sign])
    return several[0] if several else ","


def _first_lines(path: Path, separator: str) -> list[list[str]]:
    """Header and first row, as far as there are any."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(itertools.islice((cells for cells in _reader(file, separator) if cells), 2))


def _reader(file: Iterable[str], separator: str) -> _csv.Reader:
    csv.field_size_limit(2**31 - 1)  # global, by default 128 KB: base64 cells are longer
    return csv.reader(file, delimiter=separator, strict=True)
