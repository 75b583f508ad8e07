"""Runs side by side: metrics with their intervals, cost, and where the recipes differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.lab.report.plots import Bar, ranking
from fuseline.lab.report.read import Estimate, Part, RunFiles, mapping, number, read_run
from fuseline.lab.report.words import KEY, SPACE, amount, clean, count, estimate, fmt, interval, label, seconds, size
from fuseline.package.files import write_text

QUIET = ("version",)
"""top keys of a recipe whose difference says nothing"""


@dataclass(frozen=True)
class ComparedRun:
    """One run. `metrics` are the test part's (the validation part's where `part` says so)."""

    run: str
    folder: Path
    part: str
    rows: int
    metrics: dict[str, Estimate]
    train_seconds: float | None
    parameters: float | None
    trainable: float | None
    package_bytes: int | None
    recipe: dict[str, Any]
    """the recipe's differing keys only: dotted path -> value, None where the key is absent"""


@dataclass(frozen=True)
class Comparison:
    """Runs of one task and target. `metrics`: their names, the watched one first."""

    task: str
    target: str
    metrics: list[str]
    table: list[ComparedRun]
    differences: list[str]
    """dotted paths at which the recipes differ"""
    cautions: list[str] = field(default_factory=list)

    def best(self, metric: str) -> int | None:
        """The index of the run with the best value, None where none has one or several share it."""
        found = [(i, e) for i, r in enumerate(self.table) if (e := r.metrics.get(metric)) and e.value is not None]
        if len(found) < 2:
            return None
        up = found[0][1].higher_is_better
        values = [(e.value or 0.0) * (1 if up else -1) for _, e in found]
        return found[values.index(max(values))][0] if values.count(max(values)) == 1 else None


def compare(runs: Sequence[Path]) -> Comparison:
    """Read runs and set them side by side.

    Raises FuselineError ``runs_differ`` for runs of several tasks or targets, ``not_evaluated`` for one without
    metrics, ``no_such_run`` for a folder that is none, ``too_few_runs`` below two.
    """
    if len(runs) < 2:
        raise FuselineError("too_few_runs", "a comparison needs at least two runs", "fuseline compare RUN RUN ...")
    files = [read_run(r) for r in runs]
    _same(files, "task", [f.task for f in files])
    _same(files, "target", [f.target for f in files])
    parts = [_part(f) for f in files]
    flat = [flatten({k: v for k, v in f.recipe.items() if k not in QUIET}) for f in files]
    paths = [p for p in dict.fromkeys(k for f in flat for k in f) if len({repr(f.get(p)) for f in flat}) > 1]
    table = [
        ComparedRun(
            run=name,
            folder=f.folder,
            part=part.name,
            rows=part.rows,
            metrics=part.metrics,
            train_seconds=number(mapping(f.run.get("seconds")).get("train")),
            parameters=number(mapping(f.run.get("parameters")).get("total")),
            trainable=number(mapping(f.run.get("parameters")).get("trainable")),
            package_bytes=f.package_bytes,
            recipe={p: one.get(p) for p in paths},
        )
        for name, f, part, one in zip(_names(files), files, parts, flat, strict=True)
    ]
    watched = next((f.metric for f in files if f.metric), "")
    names = list(dict.fromkeys(m for r in table for m in r.metrics))
    metrics = sorted(names, key=lambda m: (m != watched, KEY.index(m) if m in KEY else len(KEY)))
    return Comparison(files[0].task, files[0].target, metrics, table, paths, _cautions(files, parts))


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings to dotted paths: ``{"fusion": {"kind": "sum"}}`` to ``{"fusion.kind": "sum"}``."""
    if isinstance(value, dict) and value:
        out: dict[str, Any] = {}
        for key, item in value.items():
            out |= flatten(item, f"{path}.{key}" if path else str(key))
        return out
    return {path: value}


def _same(files: Sequence[RunFiles], what: str, values: Sequence[str]) -> None:
    if len(set(values)) > 1:
        said = "; ".join(f"{f.name}: {clean(v, 60) or 'none'}" for f, v in zip(files, values, strict=True))
        hint = f"compare runs that share their {what}; a difference in anything else is what the comparison shows"
        raise FuselineError("runs_differ", f"the runs have different {what}s ({said})", hint)


def _part(files: RunFiles) -> Part:
    part = files.main
    if part is None:
        hint = "finish it with `fuseline train --resume RUN`, or run `fuseline evaluate`"
        raise FuselineError("not_evaluated", f"{files.folder} holds no metrics yet", hint)
    return part


def _names(files: Sequence[RunFiles]) -> list[str]:
    """The runs' names; equal ones are told apart by their folders, then by a number."""
    names = [f.name for f in files]
    names = [f"{n} ({f.folder.name})" if names.count(n) > 1 else n for n, f in zip(names, files, strict=True)]
    return [f"{n} #{i + 1}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def _cautions(files: Sequence[RunFiles], parts: Sequence[Part]) -> list[str]:
    """Why the figures may not be comparable."""
    out = []
    if any(p.name == "val" for p in parts):
        out.append("Runs without a test part are shown by their validation rows, which chose the model.")
    if any(p.name == "folds" for p in parts):
        out.append(
            "Of a cross-validation the mean over folds is shown, with its lowest and highest fold for an interval."
        )
    tested = [_tested(f, p.name) for f, p in zip(files, parts, strict=True)]
    if len({p.rows for p in parts}) > 1 or len({t for t in tested if t is not None}) > 1:
        out.append("The runs were not tested on the same rows, so part of any difference is the choice of rows.")
    tables = {str(mapping(f.run.get("table")).get("path") or "") for f in files} - {""}
    if len(tables) > 1:
        out.append("The runs were made from different tables.")
    return out


def _tested(files: RunFiles, part: str) -> frozenset[int] | None:
    frame, part = files.predictions, "test" if part == "folds" else part
    return None if frame is None else frozenset(frame.filter(frame["part"] == part)["row"].to_list())


def comparison_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The comparison as plain texts for a terminal's table: the headings, and a row a run."""
    metrics = comparison.metrics[:6]
    head = ["run", "rows", *map(label, metrics), "train time", "parameters", "package", *comparison.differences]
    out = []
    for run in comparison.table:
        out.append(
            [
                clean(run.run, 60),
                count(run.rows),
                *(estimate(e) if (e := run.metrics.get(m)) else "–" for m in metrics),
                seconds(run.train_seconds),
                amount(run.parameters),
                size(run.package_bytes),
                *(_setting(run.recipe[p]) for p in comparison.differences),
            ]
        )
    return head, out


def _setting(value: Any) -> str:
    return "–" if value is None else clean(value if isinstance(value, str) else repr(value), 60)


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write the comparison as one HTML file and return its path. Raises as :func:`compare`."""
    from fuseline.lab.report.report import render

    found = compare(runs)
    watched = found.metrics[0]
    measured = [(r.run, r.metrics[watched]) for r in found.table if watched in r.metrics]
    best = found.best(watched)
    bars = [
        Bar(name, e.value, e.low, e.high, "full" if best is not None and name == found.table[best].run else "")
        for name, e in measured
        if e.value is not None
    ]
    up = measured[0][1].higher_is_better if measured else True
    bars.sort(key=lambda b: -b.value if up else b.value)
    metrics = []
    for name in found.metrics:
        cells = [(fmt(e.value), interval(e)) if (e := r.metrics.get(name)) else ("–", "") for r in found.table]
        up = next(e.higher_is_better for r in found.table if (e := r.metrics.get(name)))
        metrics.append(
            (label(name) + ("" if up else f"{SPACE}↓"), name == watched or name in KEY, found.best(name), cells)
        )
    costs = [
        ("Training time", [seconds(r.train_seconds) for r in found.table]),
        ("Parameters", [amount(r.parameters) for r in found.table]),
        ("of them trained", [amount(r.trainable) for r in found.table]),
        ("Package", [size(r.package_bytes) for r in found.table]),
    ]
    page = render(
        "compare.html.j2",
        {
            "version": str(read_run(runs[0]).run.get("fuseline_version") or ""),
            "comparison": found,
            "target": clean(found.target, 80),
            "plot": ranking(label(watched), bars[:20], label(watched)) if len(bars) > 1 else None,
            "runs": [(clean(r.run, 60), count(r.rows), r.part) for r in found.table],
            "metrics": metrics,
            "costs": costs,
            "recipe": [(clean(p, 80), [_setting(r.recipe[p]) for r in found.table]) for p in found.differences],
        },
    )
    write_text(Path(out), page)
    return Path(out)
