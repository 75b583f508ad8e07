"""The moments of a long table on an even grid of steps. Dimensions: E series, T steps, N rows."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from fuseline.data.guess import is_blank, to_number
from fuseline.data.moments import moments
from fuseline.data.split import codes_of
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.recipe import WindowSpec

MOST_CELLS = 500_000_000
"""numbers held in memory: 2 GB"""
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
DAY = 86_400.0
_MONTH = 365.2425 / 12 * DAY
MOST_DOUBLE = 4
"""of so many rows one may have the moment of another row of its series"""


@dataclass
class Grid:
    """The long table on an even grid of steps: every series has the same T steps."""

    seconds_ET: np.ndarray
    """moments (seconds since 1970, or step numbers)"""
    row_ET: np.ndarray
    """row of the long table at each step, -1 where there is none"""
    length_E: np.ndarray
    """steps of each series, the rest is filling"""
    dated: bool
    step: float
    """seconds between two steps, or 1 where rows are steps; of months a mean one"""


def time_columns(spec: WindowSpec) -> tuple[str, ...]:
    return () if spec.time is None else (spec.time,) if isinstance(spec.time, str) else spec.time


def _seconds(text: str) -> float:
    """`5m`, `1h`, `1d`, or a plain number."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]*)\s*", text)
    if found is None or (found[2] and found[2] not in _UNITS) or float(found[1]) <= 0:
        raise FuselineError("bad_recipe", f"table.windows.step: {text!r} is no distance", "e.g. 30s, 5m, 1h, 1d")
    return float(found[1]) * _UNITS.get(found[2], 1.0)


def _moments(table: Table, spec: WindowSpec, times: tuple[str, ...]) -> tuple[np.ndarray, bool]:
    """(N,) seconds or numbers, and whether they are dates."""
    if not times:
        step = _seconds(spec.step) if spec.step else 1.0
        start = 0.0
        if spec.start:
            start = float(moments(pl.Series("table.windows.start", [spec.start]))[0])
        return start + step * np.arange(table.n_rows), bool(spec.start)
    if len(times) == 1:
        series = table.column(times[0])
        found = moments(series)
        if series.dtype == pl.Date:
            found = found * DAY
        elif isinstance(series.dtype, pl.Datetime):
            found = found / {"ms": 1e3, "us": 1e6, "ns": 1e9}[series.dtype.time_unit]
        first = next((c for c in series.head(100).to_list() if not is_blank(c)), None)
        dated = series.dtype.is_temporal() or (isinstance(first, str) and to_number(first.strip()) is None)
        return found, dated
    parts = [moments(table.column(c)) for c in times]
    out = np.full(table.n_rows, np.nan)
    for row, values in enumerate(zip(*parts, strict=True)):
        if any(np.isnan(v) for v in values):
            continue
        try:
            out[row] = datetime.datetime(*(int(v) for v in values), tzinfo=datetime.UTC).timestamp()  # type: ignore[misc,arg-type]
        except (ValueError, TypeError):
            shown = ", ".join(f"{c} {v:g}" for c, v in zip(times, values, strict=True))
            raise FuselineError("bad_cell", f"{shown} is no moment", "", row=row, column=times[0]) from None
    return out, True


def grid_of(table: Table, spec: WindowSpec, times: tuple[str, ...]) -> tuple[Grid, list[str]]:
    seconds_N, dated = _moments(table, spec, times)
    codes_N = np.zeros(table.n_rows, dtype=np.int64)
    if spec.entity is not None:
        codes_N = codes_of(table.column(spec.entity))
    kept_N = ~np.isnan(seconds_N) & (codes_N >= 0)
    notes = []
    if not kept_N.all():
        notes.append(f"{int((~kept_N).sum())} rows have no moment or no {spec.entity or 'series'} and are left out")
    order = np.flatnonzero(kept_N)
    order = order[np.lexsort((order, seconds_N[order], codes_N[order]))]
    if not len(order):
        both = f" and a {spec.entity}" if spec.entity else ""
        hint = "are table.windows.time and entity the right columns?"
        raise FuselineError("too_few_rows", f"no row has a moment{both}", hint)
    starts = np.flatnonzero(np.diff(codes_N[order], prepend=-1))
    pieces = np.split(order, starts[1:])
    gaps = np.concatenate([np.diff(seconds_N[p]) for p in pieces])
    _check_series(len(order), int((gaps == 0).sum()), spec)
    gaps = gaps[gaps > 0]
    step = _seconds(spec.step) if spec.step else _usual_step(gaps, dated)
    places = [np.rint((seconds_N[p] - seconds_N[p[0]]) / step).astype(np.int64) for p in pieces]
    length_E = np.array([int(p[-1]) + 1 for p in places])
    longest = int(length_E.max())
    if longest * len(pieces) > MOST_CELLS:
        raise FuselineError(
            "too_large",
            f"{longest} steps of {step:g} from the first moment to the last are too many",
            "is one moment far off the others? or set table.windows.step",
        )
    _check_far(pieces, places, seconds_N, times[0] if times else None)
    row_ET = np.full((len(pieces), longest), -1, dtype=np.int64)
    twice = 0
    for e, (piece, place) in enumerate(zip(pieces, places, strict=True)):
        twice += len(place) - len(np.unique(place))
        row_ET[e, place] = piece  # of two rows at one step the later counts
    if twice:
        notes.append(f"{twice} rows share a step of their series with another row: the later one counts")
    empty = int((length_E - (row_ET >= 0).sum(axis=1)).sum())
    if empty:
        notes.append(f"{empty} steps have no row: they are gaps")
    first_E1 = np.array([seconds_N[p[0]] for p in pieces])[:, None]
    seconds_ET = first_E1 + step * np.arange(longest)
    seconds_ET = np.where(row_ET >= 0, seconds_N[np.maximum(row_ET, 0)], seconds_ET)
    return Grid(seconds_ET, row_ET, length_E, dated, step), notes


def _check_series(rows: int, twice: int, spec: WindowSpec) -> None:
    """A double row now and then is a slip; many are several series taken for one, all but one of them lost."""
    if twice * MOST_DOUBLE > rows:
        of = f"one {spec.entity}" if spec.entity else "the table"
        raise FuselineError(
            "bad_recipe",
            f"table.windows: {twice} of {rows} rows have the moment of another row of {of}: are they several series?",
            "name the column that tells them apart in table.windows.entity, or keep one row a moment",
        )


def _check_far(pieces: list[np.ndarray], places: list[np.ndarray], seconds_N: np.ndarray, column: str | None) -> None:
    """One stamp of the year 9024 would be answered with millions of windows of nothing."""
    for piece, place in zip(pieces, places, strict=True):
        if place[-1] > 100_000 + 200 * len(piece):
            first = int(np.diff(place).argmax())
            gap = np.diff(seconds_N[piece])[first]
            away = first + 1 if 2 * first >= len(piece) else first
            raise FuselineError(
                "too_large",
                f"{place[-1] + 1:,} steps for {len(piece):,} rows: this moment is {gap:,.0f} s from the next known one",
                "mend or remove the moment that is far off, or set a longer table.windows.step",
                row=int(piece[away]),
                column=column,
            )


def _usual_step(gaps: np.ndarray, dated: bool) -> float:
    """The median distance. Months, quarters and the like differ in length: theirs is the mean one, which keeps each
    within half a step of its own place for ever; by the median, two of them would meet after some years."""
    step = float(np.median(gaps)) if len(gaps) else 1.0
    months = round(step / _MONTH)
    if dated and months in (1, 2, 3, 4, 6, 12) and abs(step - months * _MONTH) < 3.0 * DAY and len(np.unique(gaps)) > 1:
        return months * _MONTH
    return step
