"""Series of numbers: one channel or several, with gaps, evenly spaced or with stamps. Dimensions: B batch, L steps,
C channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fuseline.data.series import NEXT, read_series, step_of
from fuseline.errors import FuselineError
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import Noted, bad_cell, noted, only_column, sha256
from fuseline.recipe import Frozen

LONGEST = 4096
"""steps that a series may have unless the recipe says more"""
FEW_CHANNELS = 8
"""channels up to which the profile keeps each one's statistics"""


class TimeSeriesConfig(Frozen):
    length: int | None = Field(
        None, ge=1, le=65536, description=f"L: steps; default: the longest training cell, at most {LONGEST}"
    )
    align: Literal["auto", "end", "start"] = Field(
        "auto",
        description="which end of a shorter or longer cell is kept in place: end for what has been, start for what is "
        f"to come; auto: start where the column's name ends in {NEXT}",
    )
    step: float | None = Field(
        None,
        gt=0,
        description="seconds between steps, for cells with stamps; default: the usual distance of the training cells'",
    )
    channels: tuple[str, ...] = Field((), description="names of the channels, in order; default: 1, 2, ...")


class TimeSeries:
    """A cell is a list of numbers, a list of equally long lists (a step each, a number a channel), JSON text of either,
    or {"time": [...], "value": [...]} with a stamp a step (seconds, or ISO 8601 texts); null is a gap.

    A value is a float32 (L', C) :class:`Noted` array, NaN at gaps, at most `length` steps; its fact `cut` is 1 where
    the cell was longer. A series of gaps alone is absent. Arrays have L steps: shorter series are gaps where they lack.
    """

    Config: ClassVar[type[Frozen]] = TimeSeriesConfig
    file: ClassVar[bool] = False

    def __init__(self, config: TimeSeriesConfig, column: str, mean: Sequence[float], std: Sequence[float]) -> None:
        """`mean`, `std` (C,): of the training cells' known numbers. `config` has a length."""
        assert config.length is not None
        self.name = "timeseries"
        self.config = config
        self.columns: tuple[str, ...] = (column,)
        self.lengths: dict[str, tuple[int, int]] = {}
        self.notes: tuple[str, ...] = ()
        self.mean, self.std = tuple(mean), tuple(std)
        self.length, self.size_C = config.length, len(self.mean)
        self.ahead = _ahead(config, column)
        self.channels = config.channels or tuple(str(i + 1) for i in range(self.size_C))

    @classmethod
    def fit(
        cls, config: TimeSeriesConfig, columns: Mapping[str, str], cells: Iterable[Cells], media: MediaRoot
    ) -> TimeSeries:
        """Longest series, number of channels, mean and deviation of each. Cells that cannot be read are left to the
        scan, which names their rows."""
        column = only_column(columns)
        longest, channels, cut = 0, len(config.channels), 0
        total = np.zeros((3, channels))
        most = config.length or LONGEST
        steps: list[float] = []
        for row in cells:
            own_step = None if config.step else step_of(row.get(column))
            if own_step is not None:
                steps.append(own_step)
            try:
                series_LC = read_series(row.get(column), column, config.step)
            except FuselineError:
                continue
            if series_LC is None or (channels and series_LC.shape[1] != channels):
                continue
            if not channels:
                channels, total = series_LC.shape[1], np.zeros((3, series_LC.shape[1]))
            cut += len(series_LC) > most
            longest = max(longest, min(most, len(series_LC)))
            known_LC = ~np.isnan(series_LC)
            plain_LC = np.where(known_LC, series_LC, 0.0)
            total += np.stack([known_LC.sum(0), plain_LC.sum(0), np.square(plain_LC).sum(0)])
        count_C = np.maximum(total[0], 1)
        mean_C = total[1] / count_C
        std_C = np.sqrt(np.maximum(total[2] / count_C - mean_C**2, 0.0))
        std_C = np.where(std_C > 1e-6 * np.maximum(1.0, np.abs(mean_C)), std_C, 1.0)
        if steps:  # one grid for all cells, also for those that come later at another rate
            config = config.model_copy(update={"step": float(np.median(steps))})
        config = config.model_copy(update={"length": config.length or max(1, longest)})
        out = cls(config, column, mean_C.tolist() or [0.0], std_C.tolist() or [1.0])
        notes = [] if longest else [f"{column} holds no series in the training rows"]
        if cut and not config.length:
            notes.append(f"{cut} series are longer than {most} steps and are cut: set `length`")
        out.notes = tuple(notes)
        return out

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TimeSeries:
        return cls(TimeSeriesConfig.model_validate(state["config"]), state["column"], state["mean"], state["std"])

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "column": self.columns[0],
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def parse(self, cells: Cells, media: MediaRoot) -> Noted | None:
        """(L', C) float32, or None. Raises FuselineError ``bad_cell``."""
        column = self.columns[0]
        series_LC = read_series(cells.get(column), column, self.config.step)
        if series_LC is None:
            return None
        if series_LC.shape[1] != self.size_C:
            raise bad_cell(
                column,
                f"a step has {series_LC.shape[1]} numbers, the training series had {self.size_C}",
                f"one number a channel: {', '.join(self.channels[:10])}",
            )
        cut = len(series_LC) > self.length
        kept_LC = series_LC[: self.length] if self.ahead else series_LC[-self.length :]
        if np.isnan(kept_LC).all():
            return None
        return noted(kept_LC.astype(np.float32), cut=float(cut))

    def collate(self, values: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """`values` (B, L, C) float32, 0 at gaps; `known` (B, L, C) bool."""
        values_BLC = np.full((len(values), self.length, self.size_C), np.nan, dtype=np.float32)
        for own_LC, value in zip(values_BLC, values, strict=True):
            if value is not None:
                own_LC[slice(0, len(value)) if self.ahead else slice(self.length - len(value), None)] = value
        known_BLC = ~np.isnan(values_BLC)
        return {"values": np.where(known_BLC, values_BLC, np.float32(0)), "known": known_BLC}

    def arrays(self) -> dict[str, ArraySpec]:
        shape = ("B", self.length, self.size_C)
        return {"values": ArraySpec("float32", shape), "known": ArraySpec("bool", shape)}

    def digest(self, value: np.ndarray) -> bytes:
        return sha256(value)

    def size(self, value: np.ndarray) -> float:
        """Numbers."""
        return float(value.size)

    def summary(self, value: Noted) -> dict[str, float | str]:
        """Steps, share of gaps, and of each of few channels (or over all of many) mean, deviation and last number."""
        plain_LC = np.asarray(value, dtype=np.float64)
        out: dict[str, float | str] = {"steps": float(len(value)), "gaps": float(np.isnan(plain_LC).mean())}
        several = 1 < self.size_C <= FEW_CHANNELS
        parts = dict(zip(self.channels, plain_LC.T, strict=True)) if several else {"": plain_LC}
        for name, part in parts.items():
            known = part[~np.isnan(part)]
            if len(known):
                tail = f"_{name}" if name else ""
                out |= {f"mean{tail}": float(known.mean()), f"std{tail}": float(known.std())}
                out[f"last{tail}"] = float(known[-1])
        return out


def _ahead(config: TimeSeriesConfig, column: str) -> bool:
    return config.align == "start" or (config.align == "auto" and column.endswith(NEXT))
