"""Reads what a run left in its folder. Every file may be absent or half written: a report is then shorter, not lost."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from fuseline.errors import FuselineError

FILES = ("run.json", "data.json", "metrics.json", "history.csv", "predictions.parquet", "recipe.yaml")
PACKAGE = "model.fuse"


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping (keys as text), else an empty one."""
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def number(value: Any) -> float | None:
    """A finite number, or None: metrics that are not defined come as NaN, null or not at all."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(value: Any) -> list[float]:
    """The finite numbers of a list; others become NaN, so that paired lists stay paired."""
    return [math.nan if (x := number(v)) is None else x for v in listing(value)]


@dataclass(frozen=True)
class Estimate:
    """A metric as it stands in metrics.json; `value` None where it is not defined."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True

    @classmethod
    def read(cls, name: str, item: Any) -> Estimate:
        if not isinstance(item, dict):
            return cls(name, number(item))
        low, high = number(item.get("low")), number(item.get("high"))
        up = item.get("higher_is_better", True)
        return cls(name, number(item.get("value")), low, high, up if isinstance(up, bool) else True)


@dataclass(frozen=True)
class Part:
    """The scores of one part of the table: val or test. `folds` is a cross-validation: means over its folds, with the
    lowest and the highest fold as `low` and `high`."""

    name: str
    rows: int
    metrics: dict[str, Estimate]
    details: dict[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """One run's folder, read. Absent files are empty here and named in `absent`; unreadable ones in `broken`."""

    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    folds: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    augmented: dict[str, Any] = field(default_factory=dict)
    robustness: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    """one mapping an interval: column -> number, absent cells left out"""
    predictions: pl.DataFrame | None = None
    fold_runs: list[RunFiles] = field(default_factory=list)
    """of a cross-validation: the runs of its folds"""
    absent: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.run.get("name") or self.folder.name)

    @property
    def task(self) -> str:
        kind = self.metrics.get("task") or mapping(self.recipe.get("task")).get("kind")
        return str(kind or "")

    @property
    def target(self) -> str:
        """The target column; several are joined by a comma."""
        task = mapping(self.recipe.get("task"))
        given = mapping(self.data.get("target")).get("column") or task.get("target") or task.get("targets") or ""
        return ", ".join(str(t) for t in given) if isinstance(given, list) else str(given)

    @property
    def metric(self) -> str:
        return str(self.metrics.get("metric") or mapping(self.run.get("best")).get("metric") or "")

    @property
    def inputs(self) -> list[dict[str, Any]]:
        return [mapping(i) for i in listing(self.run.get("inputs"))]

    def part(self, name: str) -> Part | None:
        scores = mapping(mapping(self.metrics.get("parts")).get(name))
        found = {k: Estimate.read(k, v) for k, v in mapping(scores.get("metrics")).items()}
        if not found:
            return None
        return Part(name, int(number(scores.get("rows")) or 0), found, mapping(scores.get("details")))

    @property
    def parts(self) -> list[Part]:
        return [p for name in ("val", "test") if (p := self.part(name)) is not None]

    @property
    def main(self) -> Part | None:
        """The part whose figures speak for the run."""
        return self.part("test") or self.part("val") or self._folds()

    def _folds(self) -> Part | None:
        found: dict[str, list[Estimate]] = {}
        folds = [mapping(f) for f in listing(self.folds.get("folds"))]
        for fold in folds:
            for name, item in mapping(fold.get("metrics")).items():
                found.setdefault(name, []).append(Estimate.read(name, item))
        up = {n: e.higher_is_better for f in self.fold_runs for p in f.parts for n, e in p.metrics.items()}
        means = {}
        for name, estimates in found.items():
            values = [e.value for e in estimates if e.value is not None]
            if values:
                mean = sum(values) / len(values)
                means[name] = Estimate(name, mean, min(values), max(values), up.get(name, True))
        rows = sum(p.rows for f in self.fold_runs if (p := f.part("test")) is not None)
        return Part("folds", rows, means, {}) if means else None

    @property
    def package_bytes(self) -> int | None:
        """Size of the package's files, or None where the run wrote none."""
        folder = self.folder / PACKAGE
        if not folder.is_dir():
            return None
        return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


def read_run(folder: str | Path) -> RunFiles:
    """Read a run's folder. Raises FuselineError ``no_such_run`` where it is none at all."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FuselineError("no_such_run", f"no run folder at {folder}", "give the folder that `fuseline train` wrote")
    absent: list[str] = [f for f in FILES if not (folder / f).exists()]
    broken: list[str] = []
    if {"run.json", "metrics.json", "recipe.yaml"} <= set(absent):
        if (folder / "folds.json").exists():
            return _cross_validation(folder)
        hint = "give the folder that `fuseline train` wrote: it holds run.json, metrics.json and recipe.yaml"
        raise FuselineError("no_such_run", f"{folder} is not a run: it holds none of a run's files", hint)

    text, recipe = _recipe(folder, broken)
    return RunFiles(
        folder,
        run=_load(folder, broken, "run.json"),
        data=_load(folder, broken, "data.json"),
        metrics=_load(folder, broken, "metrics.json"),
        folds=_load(folder, broken, "folds.json"),
        parity=_load(folder, broken, "parity.json", f"{PACKAGE}/parity.json"),
        augmented=_load(folder, broken, "augmented.json"),
        robustness=_load(folder, broken, "robustness.json"),
        reasons=_load(folder, broken, "reasons.json"),
        recipe=recipe,
        recipe_text=text,
        history=_history(folder, broken),
        predictions=_predictions(folder, broken),
        absent=absent,
        broken=broken,
    )


def _load(folder: Path, broken: list[str], *names: str) -> dict[str, Any]:
    """The first of these JSON files that is there."""
    path = next((p for n in names if (p := folder / n).exists()), None)
    try:
        return mapping(json.loads(path.read_text(encoding="utf-8"))) if path else {}
    except (OSError, ValueError, RecursionError):
        broken.append(names[0])
        return {}


def _cross_validation(folder: Path) -> RunFiles:
    """A folder of folds: what they share comes from the first, and every fold's tested rows are kept together."""
    broken: list[str] = []
    folds = _load(folder, broken, "folds.json")
    names = [Path(str(mapping(f).get("folder") or "")).name for f in listing(folds.get("folds"))]
    runs = [read_run(folder / n) for n in names if n and (folder / n / "run.json").exists()]
    first = runs[0] if runs else RunFiles(folder)
    spent: dict[str, float] = {}
    for one in runs:
        for stage, value in mapping(one.run.get("seconds")).items():
            spent[stage] = spent.get(stage, 0.0) + (number(value) or 0.0)
    frames = [f.predictions.filter(pl.col("part") == "test") for f in runs if f.predictions is not None]
    try:
        together = pl.concat(frames, how="diagonal_relaxed") if frames else None
    except pl.exceptions.PolarsError:
        together = None
    shared = {k: v for k, v in first.run.items() if k not in ("parts", "best", "notes")}
    return RunFiles(
        folder,
        run=shared | {"name": folder.name, "seconds": spent},
        data={"target": {"column": first.target}},
        metrics={"task": folds.get("task") or first.task, "metric": folds.get("metric") or first.metric},
        folds=folds,
        recipe=first.recipe,
        recipe_text=first.recipe_text,
        predictions=together,
        fold_runs=runs,
        broken=broken,
    )


def _recipe(folder: Path, broken: list[str]) -> tuple[str, dict[str, Any]]:
    try:
        text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError):
        broken.append("recipe.yaml")
        return "", {}
    try:
        return text, mapping(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError):
        broken.append("recipe.yaml")
        return text, {}


def _history(folder: Path, broken: list[str]) -> list[dict[str, float]]:
    rows = []
    try:
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                cells = {k: _float(v) for k, v in line.items() if isinstance(k, str) and isinstance(v, str)}
                rows.append({k: v for k, v in cells.items() if v is not None})
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error):
        broken.append("history.csv")
    return rows


def _float(text: str) -> float | None:
    try:
        return number(float(text))
    except ValueError:
        return None


def _predictions(folder: Path, broken: list[str]) -> pl.DataFrame | None:
    path = folder / "predictions.parquet"
    if not path.exists():
        return None
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):
        broken.append("predictions.parquet")
        return None
    if not {"row", "part"} <= set(frame.columns):
        broken.append("predictions.parquet")
        return None
    return frame
