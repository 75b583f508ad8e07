"""A commented recipe for the forecast of one column of a long table."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from fuseline.data.draft import scalar
from fuseline.data.guess import name_tokens
from fuseline.data.infer import Column, Inferred, infer
from fuseline.data.series import NEXT
from fuseline.data.split import codes_of
from fuseline.data.table import Table
from fuseline.errors import FuselineError

PARTS = ("year", "month", "day", "hour", "minute")
MOST_WORDS = 32


def draft_forecast(path: str, table: Table, target: str, *, horizon: int, history: int | None) -> tuple[str, Inferred]:
    """YAML that :func:`fuseline.recipe.parse_recipe` takes, and what each column was taken for.

    Raises FuselineError ``missing_column``, ``bad_usage`` where the target is no column of numbers.
    """
    table.require([target])
    found = infer(table)
    if found[target].kind not in ("number", "boolean"):
        message = f"{target} is no column of numbers ({found[target].reason})"
        raise FuselineError("bad_usage", message, "a forecast is of numbers, a row of the table a moment")
    time = _time(found.columns)
    entity = next((c.name for c in found.columns if c.kind == "group"), None) or _entity(
        table, found.columns, time, target
    )
    used = {target, *time, *([entity] if entity else [])}
    others = [c for c in found.columns if c.name not in used and c.kind in ("number", "boolean", "category")]
    history = history or 2 * horizon
    lines = [
        f"# A draft: read it, change what is wrong. The table has {found.rows} rows, each a moment.",
        "version: 1",
        "table:",
        *([f"  path: {scalar(path)}"] if path else []),
        "  windows:   # a row becomes a window: what came before it, and what comes next",
        *([f"    time: {_listed(time)}"] if time else ["    # no column of moments was found: rows are steps"]),
        *([f"    entity: {scalar(entity)}   # one series each"] if entity else []),
        f"    history: {history}",
        f"    horizon: {horizon}",
        *([f"    series: {{others: {_listed([c.name for c in others], always=True)}}}"] if others else []),
        "",
        "inputs:",
        f"  {_name(target)}:",
        "    modality: timeseries",
        f"    column: {scalar(target)}",
    ]
    if others:
        lines += ["  others:", "    modality: timeseries"]
        lines += ["  # others_ahead:   # where they are known before, as a weather forecast is"]
        lines += ["  #   modality: timeseries", f"  #   column: others{NEXT}"]
    if time:
        lines += ["  calendar_ahead:   # hour, weekday and season of the steps ahead", "    modality: timeseries"]
        lines += [f"    column: calendar{NEXT}"]
    lines += ["", "task:", "  kind: forecast", f"  target: {scalar(target + NEXT)}"]
    lines += ["  # season: 24   # steps after which it repeats itself, for the seasonal-naive forecast beside yours"]
    lines += ["", "split:   # later moments test", "  kind: time", "  time: time", "  val: 0.15", "  test: 0.15"]
    lines += ["  # folds: 5   # rolling origin instead: each fold trains on all before it", ""]
    columns = [_told(c, target, used, others) for c in found.columns]
    columns = [
        replace(c, kind="group", reason=f"one series each; {c.reason}") if c.name == entity else c for c in columns
    ]
    return "\n".join(lines), replace(found, columns=columns, target=target, task={"kind": "forecast"})


def _time(columns: list[Column]) -> list[str]:
    """One column of dates, or those of year, month, day and so on."""
    by_part = {c.name.casefold(): c.name for c in columns if name_tokens(c.name) and c.name.casefold() in PARTS}
    parts = [by_part[p] for p in PARTS if p in by_part]
    if [p.casefold() for p in parts[:3]] == list(PARTS[:3]):
        return parts
    dates = [c.name for c in columns if c.kind == "date"]
    return dates[:1]


def _entity(table: Table, columns: list[Column], time: list[str], target: str) -> str | None:
    """Where several rows have the same moment, the column that tells them apart: about as many values as a moment has
    rows, and hardly a moment with one of them twice."""
    if not time:
        return None
    codes = pl.DataFrame({str(i): codes_of(table.column(name)) for i, name in enumerate(time)})
    together = int(codes.group_by(pl.all()).len()["len"].max() or 0)  # type: ignore[arg-type]
    if together < 2 or codes.n_unique() > 0.75 * table.n_rows:
        return None
    found = []
    for column in columns:
        if column.name in (*time, target) or column.kind not in ("category", "boolean", "ignored", "number"):
            continue
        own = pl.Series("own", codes_of(table.column(column.name)))
        values = own.n_unique()
        if 1 < values <= 2 * together and codes.with_columns(own).n_unique() > 0.99 * table.n_rows:
            found.append((values, column.name))
    return min(found)[1] if found else None


def _listed(names: list[str], *, always: bool = False) -> str:
    if len(names) == 1 and not always:
        return scalar(names[0])
    return "[" + ", ".join(scalar(n) for n in names) + "]"


def _name(column: str) -> str:
    return scalar("".join("_" if c == "." or not c.isprintable() else c for c in column))


def _told(column: Column, target: str, used: set[str], others: list[Column]) -> Column:
    if column.name == target:
        return replace(column, kind="target", reason=f"forecast from its own past; {column.reason}")
    if column.name in used or column in others:
        return column
    return replace(column, kind="ignored", reason=f"not read; {column.reason}")
