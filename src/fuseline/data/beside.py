"""Graphs that lie beside a table: for `fuseline init`, which looks for columns of their entities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fuseline.data.edges import names_of, read_edges
from fuseline.data.guess import is_blank, to_number
from fuseline.data.sources import FORMATS
from fuseline.errors import FuselineError

WORDS = ("edges", "edge_list", "edgelist", "triples", "adjacency")
MOST_FILES = 4
MOST_BYTES = 64 * 2**20
FEWEST = 5
SHARE = 0.9
"""of a column's different values that must be entities"""


class Beside:
    """The edge lists in a table's folder, by their names; read when the first column asks."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._entities: dict[str, frozenset[str]] | None = None

    def graph_of(self, kind: str, values: Sequence[Any]) -> tuple[str, str] | None:
        """The file whose entities a column names, and why; None where there is none.

        Args:
            kind: what the column would be otherwise. Numbers may coincide with numbered entities: of columns of
                numbers only identifiers are asked.
            values: a sample of its cells.
        """
        if self.folder is None or kind not in ("ignored", "group", "category"):
            return None
        there = pl.Series([str(v) for v in values if not is_blank(v)], dtype=pl.String)
        names = [n for n in names_of(there).unique().to_list() if n is not None]
        if len(names) < FEWEST or (kind == "category" and all(to_number(n) is not None for n in names)):
            return None
        for file, entities in self._read().items():
            hits = sum(n in entities for n in names)
            if hits >= SHARE * len(names):
                return file, f"{hits} of its {len(names)} different values are entities of {file}"
        return None

    def _read(self) -> dict[str, frozenset[str]]:
        if self._entities is None:
            assert self.folder is not None
            self._entities = {}
            for file in self._files(self.folder):
                try:
                    self._entities[file] = frozenset(read_edges(self.folder / file).entities)
                except FuselineError:
                    continue
        return self._entities

    @staticmethod
    def _files(folder: Path) -> list[str]:
        with os.scandir(folder) as entries:
            named = [
                e.name
                for e in entries
                if any(w in e.name.lower() for w in WORDS)
                and e.name.lower().endswith(FORMATS)
                and e.is_file(follow_symlinks=False)
                and e.stat().st_size <= MOST_BYTES
            ]
        return sorted(named)[:MOST_FILES]
