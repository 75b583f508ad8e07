"""Broken cells met in a scan: one error that lists them, or a file that they are put aside in."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fuseline.data.guess import to_number
from fuseline.data.table import Table
from fuseline.errors import FuselineError

LISTED = 10
EXTRA = ("_row", "_column", "_reason")
_LONGEST = 2000


class Quarantine:
    """Collects broken cells.

    ``stop``: :meth:`finish` raises one error for them all. ``quarantine``: their rows are written to a CSV with row,
    column and reason, and :meth:`finish` gives the rows to leave out. A row counts once, with its first broken cell.

    Args:
        path: the CSV; made at the first broken row, and gone on with if a scan of the same table wrote it before.
        table: gives the columns of the CSV and, where `add` is not told them, the raw cells.
        mode: what the recipe says under table.on_error.
        max_share: share of the scanned rows above which ``quarantine`` gives up.
    """

    def __init__(
        self, path: Path, table: Table, *, mode: Literal["stop", "quarantine"] = "stop", max_share: float = 0.05
    ) -> None:
        self.path, self.table, self.mode, self.max_share = path, table, mode, max_share
        self.rows: set[int] = set()
        self._first: list[FuselineError] = []
        self._header = [*table.columns, *_free(table.columns)]
        self._written: set[int] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: int, error: FuselineError, cells: Mapping[str, Any] | None = None) -> None:
        """A broken cell of `row`. `cells`: the raw cells already at hand; the others are read from the table."""
        if row in self.rows:
            return
        self.rows.add(row)
        if len(self._first) < LISTED:
            self._first.append(self._placed(error, row))
        if self.mode == "quarantine":
            self._write(row, error, cells or {})

    def finish(self, scanned: int | None = None) -> set[int]:
        """The rows to leave out. `scanned`: how many rows were looked at; default: all of the table's.

        Raises:
            FuselineError: in ``stop`` mode, with the code, row and column of the first broken cell, a list of the
                first ten and their number; ``too_many_bad_rows`` in ``quarantine`` mode.
        """
        if not self.rows:
            return set()
        if self.mode == "stop":
            raise self._listed()
        total = self.table.n_rows if scanned is None else scanned
        if len(self.rows) > self.max_share * total:
            lines = "\n".join(f"  {_line(e)}" for e in self._first)
            raise FuselineError(
                "too_many_bad_rows",
                f"{len(self.rows)} of {total} rows have a broken cell, more than table.max_bad_share "
                f"({self.max_share:g}):\n{lines}",
                f"all are in {self.path}; mend them, or raise table.max_bad_share",
            )
        return set(self.rows)

    def _placed(self, error: FuselineError, row: int) -> FuselineError:
        """With its row; of tables that were joined, the row of the file that the user can open."""
        file, own = self.table.origin(row)
        if not file:
            return error.at(row)
        return FuselineError(error.code, f"in {file}: {error.message}", error.hint, row=own, column=error.column)

    def _listed(self) -> FuselineError:
        first = self._first[0]
        if len(self.rows) == 1:
            return first
        lines = "\n".join(f"  {_line(e)}" for e in self._first)
        more = f"\n  and {len(self.rows) - LISTED} more" if len(self.rows) > LISTED else ""
        hint = "mend them, or leave their rows out: on_error: quarantine (--on-error quarantine)"
        return FuselineError(
            first.code,
            f"{len(self.rows)} rows have a broken cell:\n{lines}{more}",
            f"{first.hint}\n  or: {hint}" if first.hint else hint,
            row=first.row,
            column=first.column,
        )

    def _write(self, row: int, error: FuselineError, cells: Mapping[str, Any]) -> None:
        if self._written is None:
            self._written = self._begin()
        if row in self._written:
            return
        self._written.add(row)
        others = [c for c in self.table.columns if c not in cells]
        raw = dict(cells)
        if others:
            raw |= Table.rows(self.table.take(np.array([row]), others))[0]
        with self.path.open("a", encoding="utf-8", newline="") as file:
            line = [as_text(raw[c]) for c in self.table.columns]
            csv.writer(file).writerow([*line, row, as_text(error.column), as_text(error.message)])

    def _begin(self) -> set[int]:
        """The rows that the file holds already; a file of another table is overwritten."""
        header = [as_text(h) for h in self._header]
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                lines = csv.reader(file)
                if next(lines, None) == header:
                    place = len(self.table.columns)
                    return {int(line[place]) for line in lines if len(line) == len(header) and line[place].isdigit()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(header)
        return set()


def _free(columns: list[str]) -> list[str]:
    """`_row`, `_column`, `_reason`, with more underscores where the table has such columns."""
    out = []
    for name in EXTRA:
        while name in columns:
            name = f"_{name}"
        out.append(name)
    return out


def _line(error: FuselineError) -> str:
    return f"{error.place}: {error.message}"


def as_text(cell: Any) -> str:
    """A cell as CSV text: bytes by their number, and nothing that a spreadsheet would take for a formula."""
    if cell is None:
        return ""
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return f"<{len(cell)} bytes>"
    text = str(cell)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    if text[:1] in ("=", "+", "-", "@", "\t", "\r") and to_number(text) is None:
        return f"'{text}"
    return text
