"""From one row's raw cells to one value an input: the only way through, for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.modalities import Cells, MediaRoot, Modality, modality_class
from fuseline.recipe import Recipe


@dataclass
class Parsed:
    """One row's values by input (None where absent), what was said of it, or why it cannot be used."""

    values: dict[str, Any | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: FuselineError | None = None
    by: dict[str, Any] = field(default_factory=dict)
    """cells of the columns that promises are made by (`evaluation.conformal.by`), whether or not the model reads
    them"""


class RowParser:
    """Reads rows by the recipe's rules for absent and broken cells. Thread-safe."""

    def __init__(self, recipe: Recipe, modalities: Mapping[str, Modality]) -> None:
        self.recipe = recipe
        self.modalities = dict(modalities)
        self.names = tuple(recipe.inputs)
        self.columns = tuple(dict.fromkeys(c for name in self.names for c in recipe.columns_of(name)))
        conformal = recipe.evaluation.conformal
        self.by: tuple[str, ...] = () if conformal is None else conformal.by
        self._absent = frozenset(recipe.table.absent)

    @classmethod
    def from_states(cls, recipe: Recipe, columns: Mapping[str, Mapping[str, Any]]) -> RowParser:
        """From a package's columns.json."""
        return cls(recipe, {n: modality_class(e["modality"]).from_state(e["state"]) for n, e in columns.items()})

    def states(self) -> dict[str, dict[str, Any]]:
        return {name: {"modality": m.name, "state": m.state()} for name, m in self.modalities.items()}

    def cells(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """The cells that input `name` reads, with the recipe's words for `no value` turned to None."""
        return {column: self.cell(row.get(column)) for column in self.modalities[name].columns}

    def cell(self, cell: Any) -> Any:
        return None if isinstance(cell, str) and cell.strip() in self._absent else cell

    def parse_input(self, name: str, cells: Cells, media: MediaRoot) -> tuple[Any | None, str]:
        """One input's value and what is to be said of it. Raises FuselineError where the recipe says `error`."""
        try:
            value = self.modalities[name].parse(cells, media)
            return value, said_of(value)
        except FuselineError as error:
            if error.code != "bad_cell" or self.recipe.inputs[name].on_bad_cell == "error":
                raise
            return None, f"{name} taken as absent: {error.message}"

    def parse(self, row: Mapping[str, Any], media: MediaRoot, place: int | None = None) -> Parsed:
        """Read one row. Never raises for a bad cell: the result's `error` says it."""
        out = Parsed(by={column: self.cell(row.get(column)) for column in self.by})
        for name in self.names:
            try:
                out.values[name], note = self.parse_input(name, self.cells(name, row), media)
            except FuselineError as error:
                return Parsed({}, out.notes, error.at(place))
            if note:
                out.notes.append(note)
        return out

    def present(self, rows: Sequence[Mapping[str, Any | None]]) -> np.ndarray:
        """`present_BM`: which inputs each row has."""
        return np.array([[row[n] is not None for n in self.names] for row in rows], dtype=bool).reshape(
            len(rows), len(self.names)
        )

    def collate(self, name: str, values: Sequence[Any | None]) -> dict[str, np.ndarray]:
        """One input's arrays, under the names that the graph gives them."""
        return {f"{name}.{key}": array for key, array in self.modalities[name].collate(values).items()}

    def arrays(self, rows: Sequence[Mapping[str, Any | None]]) -> dict[str, np.ndarray]:
        """All arrays of a batch, `present` included."""
        out = {"present": self.present(rows)}
        for name in self.names:
            out |= self.collate(name, [row[name] for row in rows])
        return out


def said_of(value: Any | None) -> str:
    """What is to be said of a value that was read: that more was there than its input takes."""
    return str(getattr(value, "note", ""))


def lengths_of(modalities: Mapping[str, Modality], values: Mapping[str, Any | None]) -> np.ndarray:
    """(M,) in (0, 1]. An absent input still costs the dummy that stands for it: a picture's whole, a text's least."""
    out = []
    for name, modality in modalities.items():
        if not modality.lengths:
            out.append(1.0)
            continue
        low, high = next(iter(modality.lengths.values()))
        value = values[name]
        out.append(max(low, low if value is None else len(value)) / high)
    return np.array(out, dtype=np.float64)
