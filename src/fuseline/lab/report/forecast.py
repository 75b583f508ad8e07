"""Plots of forecasts: the error at each step ahead beside the naive ones, and some rows with their intervals."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import polars as pl

from fuseline.lab.report.plots import Line, Plot, Theme, curves, plot, spread
from fuseline.lab.report.read import Part, RunFiles, listing, mapping, number
from fuseline.lab.report.words import clean, fmt

SHOWN = 4
"""rows drawn: from the best to the worst forecast"""
NAIVE = (("mae", "forecast"), ("naive_mae", "last number"), ("seasonal_mae", "a season before"))


def forecast_plots(files: RunFiles, part: Part, tested: str) -> list[Plot]:
    """Of a part's `per_step` and the run's predictions; whatever of them is not there is left out."""
    steps = [mapping(s) for s in listing(part.details.get("per_step"))]
    lines: list[Line] = []
    for key, name in NAIVE:
        pairs = [(number(s.get("step")), number(s.get(key))) for s in steps]
        found = [(a, b) for a, b in pairs if a is not None and b is not None]
        if found and not (key == "seasonal_mae" and lines and lines[-1].y == [y for _, y in found]):
            lines.append(Line(name, [x for x, _ in found], [y for _, y in found]))
    out = [curves("Mean absolute error by step ahead", lines, "steps ahead", "mean absolute error")] if lines else []
    return out + _rows(files, tested)


def _rows(files: RunFiles, part: str) -> list[Plot]:
    frame = files.predictions
    if frame is None or not {"target", "value", "error", "details"} <= set(frame.columns):
        return []
    frame = frame.filter(pl.col("part") == part).sort("error", "row")
    if frame.is_empty():
        return []
    plots = []
    for place in np.unique(np.linspace(0, frame.height - 1, SHOWN).round().astype(int)).tolist():
        row = frame.row(place, named=True)
        drawn = _fan(row)
        if drawn is not None:
            plots.append(drawn)
    return plots


def _fan(row: dict[str, Any]) -> Plot | None:
    """One row's first channel: truth, median and widest interval."""
    middle, truth = _first(_json(row["value"])), _first(_json(row["target"]))
    bands = [_first(v) for v in mapping(mapping(_json(row["details"])).get("quantiles")).values()]
    if not middle or not any(math.isfinite(t) for t in truth):
        return None
    x = list(range(1, len(middle) + 1))
    known = [t for t in truth if math.isfinite(t)]

    def draw(axes: Any, theme: Theme) -> None:
        if len(bands) > 1 and len(bands[0]) == len(bands[-1]) == len(x):
            axes.fill_between(x, bands[0], bands[-1], color=theme.accent, alpha=0.18, linewidth=0)
        axes.plot(x, middle, color=theme.accent, linewidth=1.6)
        axes.plot(x[: len(truth)], truth[: len(x)], color=theme.second, linewidth=1.4, marker="o", markersize=2.5)
        axes.xaxis.get_major_locator().set_params(integer=True)  # there is no half step
        low, high = axes.get_ylim()
        names = (("forecast", middle[-1], theme.accent), ("truth", known[-1], theme.second))
        ends = spread([end for _, end, _ in names], 0.075 * (high - low))
        for (name, _, colour), at in zip(names, ends, strict=True):
            axes.annotate(name, (x[-1], at), (4, 0), textcoords="offset points", color=colour, va="center")
        axes.set_xlabel("steps ahead")

    alt = (
        f"Row {row['row']}: forecast from {fmt(min(middle))} to {fmt(max(middle))}, "
        f"truth (dotted) from {fmt(min(known))} to {fmt(max(known))}."
    )
    return plot(clean(f"Row {row['row']}: off by {fmt(number(row['error']))}", 60), alt, draw)


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None


def _first(value: Any) -> list[float]:
    """The first channel's numbers: of a list, of channel -> list, of steps × channels."""
    if isinstance(value, dict):
        value = next(iter(value.values()), [])
    out = []
    for step in value if isinstance(value, list) else []:
        found = number(step[0] if isinstance(step, list) and step else step)
        out.append(math.nan if found is None else found)
    return out
