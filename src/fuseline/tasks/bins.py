"""Groups of rows by any column: a value each, numbers by quantile. numpy only; what is fitted is JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ABSENT = "absent"
OTHER = "other"
MOST_VALUES = 20
"""values of a column that are groups of their own, the most frequent ones; the rest are `other`"""
FEWEST_OF_MANY = 20
"""rows of a value that is a group of its own where a column has more values than that: a column of names or numbers of
people makes no groups, and nobody's name gets into a report or a package"""
FEW = 6
"""numbers of no more distinct values are values, not amounts"""
BINS = 4


@dataclass(frozen=True)
class Bins:
    """How one column's cells are told apart: by `values`, or by `edges` where they are amounts."""

    column: str
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    """inner ones, rising: a value below the first is of the first group"""

    @classmethod
    def fit(cls, column: str, cells: Sequence[Any]) -> Bins:
        """`cells`: of any rows, None where absent. Numbers of more than six values are cut at their quartiles."""
        numbers = [_number(c) for c in cells if not _absent(c)]
        known = [n for n in numbers if n is not None]
        if known and len(known) == len(numbers) and len(set(known)) > FEW:
            edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
            return cls(column, edges=tuple(float(e) for e in edges))
        counts: dict[str, int] = {}
        for cell in cells:
            if not _absent(cell):
                counts[_text(cell)] = counts.get(_text(cell), 0) + 1
        least = FEWEST_OF_MANY if len(counts) > MOST_VALUES else 1
        most = [v for v in sorted(counts, key=lambda v: (-counts[v], v))[:MOST_VALUES] if counts[v] >= least]
        return cls(column, values=tuple(most))

    def to_dict(self) -> dict[str, Any]:
        return {"column": self.column, "values": list(self.values), "edges": list(self.edges)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Bins:
        return cls(data["column"], tuple(data["values"]), tuple(data["edges"]))

    def of(self, cell: Any) -> str:
        """The group of one cell, whatever it holds."""
        if _absent(cell):
            return ABSENT
        if not self.edges:
            return _text(cell) if _text(cell) in self.values else OTHER
        number = _number(cell)
        if number is None:
            return OTHER
        place = int(np.searchsorted(self.edges, number, side="right"))
        edges = _apart(self.edges)
        low = "" if place == 0 else f"from {edges[place - 1]}"
        high = "" if place == len(edges) else f"below {edges[place]}"
        return " ".join(part for part in (low, high) if part)


def _absent(cell: Any) -> bool:
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def _number(cell: Any) -> float | None:
    if isinstance(cell, (bool, np.bool_)):
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _apart(edges: Sequence[float]) -> list[str]:
    """Edges in as few digits as tell them apart: two groups of one name would be one."""
    for digits in range(6, 18):
        texts = [f"{e:.{digits}g}" for e in edges]
        if len(set(texts)) == len(edges):
            break
    return texts


def _text(cell: Any) -> str:
    """`1` and `1.0` are one value, as everywhere; what is no plain cell is none of the known ones."""
    if isinstance(cell, (bytes, bytearray, memoryview, list, dict, tuple)):
        return ""
    number = _number(cell)
    return f"{number:.15g}" if number is not None else str(cell).strip()
