"""How figures look on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from fuseline.api import Run


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def span(metric: dict[str, Any]) -> str:
    if metric.get("low") is None:
        return ""
    return f"{metric['low']:.3f} … {metric['high']:.3f}"


def show_metrics(metrics: dict[str, Any], console: Console | None = None) -> None:
    """The table of metrics, and the degradation table below it."""
    console = console or Console()
    for part, scores in metrics["parts"].items():
        grid = Grid("metric", "value", "95 % interval", title=f"{part}: {scores['rows']} rows", title_justify="left")
        for name, metric in scores["metrics"].items():
            grid.add_row(name, number(metric["value"]), span(metric))
        console.print(grid)
    if metrics.get("degradation"):
        name = metrics["metric"]
        grid = Grid(
            "inputs present", "rows", name, "95 % interval", title="when inputs are absent", title_justify="left"
        )
        for entry in metrics["degradation"]:
            metric = entry["metrics"].get(name, {})
            grid.add_row(
                escape(", ".join(entry["present"])), str(entry["rows"]), number(metric.get("value")), span(metric)
            )
        console.print(grid)
    show_slices(metrics.get("slices") or {}, console)
    left = metrics.get("left_out", {})
    if left.get("bad_rows") or left.get("no_target"):
        console.print(f"left out: {left['bad_rows']} rows with broken cells, {left['no_target']} without a target")


def show_slices(found: dict[str, Any], console: Console) -> None:
    """The watched metric by groups of rows, and the worst of them."""
    if not found:
        return
    name = found["metric"]
    grid = Grid("group", "rows", name, "95 % interval", title="group by group", title_justify="left")
    for column, groups in found["columns"].items():
        for entry in groups:
            metric = entry["metrics"].get(name, {})
            value = "too few rows" if entry["few"] else number(metric.get("value"))
            grid.add_row(escape(f"{column}: {entry['group']}"), str(entry["rows"]), value, span(metric))
    console.print(grid)
    if worst := found.get("worst"):
        others = f"{number(worst['value'])}, all others {number(worst['others'])}"
        console.print(f"worst: {worst['column']}: {worst['group']}, {others}", markup=False)


def show_robustness(found: dict[str, Any], console: Console | None = None) -> None:
    """The watched metric, input by input: clean, and at every strength of noise, absence and attack."""
    console = console or Console()
    name = found["metric"]
    first = found["clean"][name]
    console.print(f"{name} {number(first['value'])} {span(first)} on {found['rows']} {found['of']} rows as they are")
    for kind, at, title in (
        ("noise", "strength", "under noise of strength"),
        ("absent", "share", "taken away from a share of the rows"),
        ("attacked", "strength", "attacked with strength"),
    ):
        curves = {n: item["curve"] for n, item in found[kind].items() if item["curve"]}
        if not curves:
            continue
        levels = [point[at] for point in next(iter(curves.values()))]
        grid = Grid("input", *(f"{level:g}" for level in levels), title=title, title_justify="left")
        for one, curve in curves.items():
            grid.add_row(escape(one), *(number(point["metrics"].get(name)) for point in curve))
        console.print(grid)


def show_run(run: Run) -> None:
    console = Console()
    metrics = run.metrics
    if "folds" in metrics:
        grid = Grid("metric", "mean", "std", title=f"{len(metrics['folds'])} folds", title_justify="left")
        for name, value in metrics["mean"].items():
            grid.add_row(name, number(value), number(metrics["std"][name]))
        console.print(grid)
    else:
        show_metrics(metrics, console)
    # What the recipe switched off is not there, and a cross-validation has a model in each fold.
    for title, path in (("report: ", run.report), ("model:  ", run.package), ("folds:  ", run.folder / "folds.json")):
        if path.exists():
            console.print(f"{title} {path}", markup=False, soft_wrap=True)
