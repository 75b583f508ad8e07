"""Of a model of several tasks: each one's answers and truth, shown as a model of that task alone would show them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from fuseline.lab.report.answers import quality_plots
from fuseline.lab.report.plots import Plot
from fuseline.lab.report.read import Part, RunFiles, mapping, number
from fuseline.lab.report.tables import Confusion, confusion, per_class
from fuseline.lab.report.words import clean, count


@dataclass(frozen=True)
class Block:
    title: str
    measured: str
    confusion: Confusion | None
    quality: list[Plot]
    headings: list[str]
    rows: list[list[str]]


def blocks(files: RunFiles, part: Part | None) -> list[Block]:
    """One a task; none where the model has one task."""
    if part is None or files.task != "multi":
        return []
    out = []
    for name, item in mapping(part.details.get("tasks")).items():
        details = mapping(item)
        own = {
            key.removeprefix(f"{name}."): replace(e, name=key.removeprefix(f"{name}."))
            for key, e in part.metrics.items()
            if key.startswith(f"{name}.")
        }
        rows, kind = int(number(details.get("rows")) or 0), str(details.get("kind", ""))
        alone = replace(files, metrics={**files.metrics, "task": kind}, predictions=_own(files, name))
        headings, table = per_class(details)
        out.append(
            Block(
                clean(name, 60),
                f"{kind.capitalize()}: the {count(rows)} rows of the {part.name} part that have its target.",
                confusion(details),
                quality_plots(alone, Part(part.name, rows, own, details)),
                headings,
                table,
            )
        )
    return out


def _own(files: RunFiles, name: str) -> pl.DataFrame | None:
    """The predictions with one task's value and target."""
    frame = files.predictions
    if frame is None or not {"target", "value"} <= set(frame.columns):
        return None
    spec = mapping(mapping(mapping(files.recipe.get("task")).get("tasks")).get(name))
    several = spec.get("targets")
    columns = [str(c) for c in several] if isinstance(several, list) else [str(spec.get("target") or name)]
    values = [mapping(_read(v)).get(name) for v in frame["value"].to_list()]
    cells = [mapping(_read(t)) for t in frame["target"].to_list()]
    targets = [c.get(columns[0]) if len(columns) == 1 else {k: c.get(k) for k in columns} for c in cells]
    return frame.with_columns(value=_texts(values), target=_texts(targets))


def _read(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


def _texts(values: list[Any]) -> pl.Series:
    return pl.Series([v if isinstance(v, str) or v is None else json.dumps(v) for v in values], dtype=pl.String)
