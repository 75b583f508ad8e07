"""The last part of a recording, played again as the rows that a caller would send: what sensors would say now.

Dimensions: L steps behind, K steps ahead, C channels.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline import Recipe
from fuseline.data.table import Table
from fuseline.data.windows import Windows


@dataclass(frozen=True)
class Quantiles:
    """An answer's numbers, each (K, C)."""

    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray


class Replay:
    """Every window of a recording from the first test moment on."""

    def __init__(self, recipe: Recipe, since: datetime.datetime) -> None:
        assert recipe.table.path is not None
        assert recipe.table.windows is not None
        windows = recipe.table.windows.model_copy(update={"stride": 1})
        self.table = Windows(Table.open(Path(recipe.table.path)), windows)
        self.target = str(recipe.task.options["target"])
        self.history = self.target.removesuffix("@next")
        self.columns = [recipe.inputs[n].column or n for n in recipe.inputs]
        self.channels = self.table.store.channels(self.history)
        moments = self.table.take(np.arange(self.table.n_rows), ["time"])["time"].to_numpy()
        # The windows at the very end know nothing of what came: there is nothing to show beside them.
        last = len(moments) - windows.horizon
        self.rows = np.flatnonzero(moments[:last] >= np.datetime64(since))
        self.moments = moments[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def past(self, place: int) -> np.ndarray:
        """(L, C) float, NaN at gaps."""
        return self._array(place, self.history)

    def truth(self, place: int) -> np.ndarray:
        """(K, C) float, what came."""
        return self._array(place, self.target)

    def row(self, place: int, silent_C: np.ndarray | None = None) -> dict[str, Any]:
        """What a caller would send: JSON values. Silent channels have no numbers at all."""
        out = {name: _plain(self._array(place, name)) for name in self.columns}
        if silent_C is not None and silent_C.any():
            past_LC = self.past(place)
            past_LC[:, silent_C] = np.nan
            out[self.history] = None if np.isnan(past_LC).all() else _plain(past_LC)
        return out

    def _array(self, place: int, name: str) -> np.ndarray:
        cell = self.table.take(self.rows[[place]], [name])[name][0]
        if cell is None:
            return np.full((1, len(self.table.store.channels(name))), np.nan)
        array = np.array(cell.to_list() if isinstance(cell, pl.Series) else cell, dtype=np.float64)
        return array[:, None] if array.ndim == 1 else array


def _plain(array_LC: np.ndarray) -> list[Any] | None:
    if np.isnan(array_LC).all():
        return None
    rows = [[None if np.isnan(v) else float(v) for v in row] for row in array_LC]
    return [r[0] for r in rows] if array_LC.shape[1] == 1 else rows


def quantiles_of(answer: dict[str, Any]) -> Quantiles:
    """The numbers of an answer as it is served: its conformal interval where it has one, else its quantiles; the median
    lies between them."""
    details = answer["details"]

    def array(said: Any) -> np.ndarray:
        columns = [said] if isinstance(said, list) else list(said.values())
        return np.array(columns, dtype=np.float64).T

    quantiles = details["quantiles"]
    low, middle, high = (array(quantiles[name]) for name in ("0.1", "0.5", "0.9"))
    if (interval := details.get("interval")) is not None:
        low, high = np.minimum(array(interval["low"]), middle), np.maximum(array(interval["high"]), middle)
    return Quantiles(low, middle, high)
