"""The cells that a run's model was shown, read from its table where that still lies where it lay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.errors import FuselineError
from fuseline.lab.report.boxed import Boxed
from fuseline.lab.report.neighbours import Neighbours
from fuseline.lab.report.read import RunFiles, listing, mapping
from fuseline.lab.report.views import Budget, CellView, view_of
from fuseline.lab.report.words import clean
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.cells import is_absent
from fuseline.recipe import ABSENT, WindowSpec, read_options


class Shown:
    """Cells of some rows of a run's table, made ready for the page in the order in which they are asked for.

    Args:
        files: the run.
        rows: those that will be asked for.
        octets: bytes of media in all; once they are spent, cells say so instead.

    Attributes:
        why: a word of explanation where the table is gone or has changed, so that no cell is shown.
    """

    def __init__(self, files: RunFiles, rows: Sequence[int], octets: int) -> None:
        self._files = files
        different = list(dict.fromkeys(rows))
        cells, self.why = _cells(files, different)
        self._cells = dict(zip(different, cells, strict=True))
        self._absent = frozenset(_absent_words(files))
        self._media, self._budget = MediaRoot(_media_root(files)), Budget(octets)
        self._near = Neighbours(mapping(files.recipe.get("inputs")), self._media.folder)
        self._views: dict[int, list[CellView]] = {}

    def views(self, row: int, found: Boxed | None = None, used: Any = None) -> list[CellView]:
        """One view an input. `found`: boxes to draw; `used`: the inputs that the answer used, where it says so."""
        if row not in self._views:
            self._views[row] = self._make(self._cells[row], found, used)
        return self._views[row]

    def _make(self, cells: dict[str, Any], found: Boxed | None, used: Any) -> list[CellView]:
        where = mapping(self._files.recipe.get("task")).get("image")
        views: list[CellView] = []
        for name, modality, names in _columns(self._files) if cells else []:
            present = {c: cells.get(c) for c in names if not self._is_absent(cells.get(c))}
            if not present:
                views.append(CellView(clean(name, 60), absent=True))
                continue
            marked = found if where in (None, name) else None
            views.append(view_of(name, modality, present, len(names), self._media, self._budget, marked))
            if modality == "graph":
                views[-1].note = self._near.of(name, next(iter(present.values())))
            if isinstance(used, list) and name not in used:
                views[-1].note = " · ".join(n for n in (views[-1].note, "not used") if n)
        return views

    def _is_absent(self, cell: Any) -> bool:
        return is_absent(cell) or (isinstance(cell, str) and cell.strip() in self._absent)


def _columns(files: RunFiles) -> list[tuple[str, str, list[str]]]:
    """input, modality, its columns: from run.json, else from the recipe."""
    out = []
    for item in files.inputs:
        names = [str(c) for c in listing(item.get("columns"))] or [str(item.get("name", ""))]
        out.append((str(item.get("name", "")), str(item.get("modality", "")), names))
    if not out:
        for name, value in mapping(files.recipe.get("inputs")).items():
            spec = mapping(value)
            names = list(mapping(spec.get("columns"))) or [str(spec.get("column") or name)]
            out.append((name, str(spec.get("modality", "")), names))
    return out


def _table_path(files: RunFiles) -> Path | None:
    given = mapping(files.run.get("table")).get("path")
    if not isinstance(given, str) or not given:
        return None
    path = Path(given)
    return path if path.is_absolute() or path.exists() else files.folder / path


def _media_root(files: RunFiles) -> str | None:
    """The folder that training read media from: the recipe's, else the table's."""
    root = mapping(files.recipe.get("table")).get("media_root")
    path = _table_path(files)
    return root if isinstance(root, str) and root else str(path.parent) if path is not None else None


def _absent_words(files: RunFiles) -> tuple[str, ...]:
    given = mapping(files.recipe.get("table")).get("absent")
    return tuple(str(a) for a in given) if isinstance(given, list) else ABSENT


def _cells(files: RunFiles, rows: list[int]) -> tuple[list[dict[str, Any]], str]:
    """The table's cells of `rows`; empty ones and a word of explanation where the table is gone or has changed."""
    from fuseline.data.table import Table
    from fuseline.data.windows import open_windows

    nothing: list[dict[str, Any]] = [{} for _ in rows]
    path = _table_path(files)
    if path is None:
        return nothing, "The run does not say where its table lies, so the cells are not shown."
    try:
        table = open_windows(Table.open(path, absent=_absent_words(files)), _windows(files))
        there = set(table.columns)
        wanted = list(dict.fromkeys(c for _, _, names in _columns(files) for c in names if c in there))
        if not wanted or not all(0 <= r < table.n_rows for r in rows):
            return nothing, "The table no longer has these rows and columns, so the cells are not shown."
        return Table.rows(table.take(np.asarray(rows), wanted)), ""
    except (FuselineError, OSError, pl.exceptions.PolarsError):
        return nothing, "The table can no longer be read, so the cells are not shown."


def _windows(files: RunFiles) -> WindowSpec | None:
    found = mapping(files.recipe.get("table")).get("windows")
    return None if found is None else read_options(WindowSpec, mapping(found), "table.windows")
