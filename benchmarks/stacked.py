"""`fusion: auto` against its two choices, the model trained end to end and boosted trees, on the same rows of test.

One training a split: the choice is made as a user's run makes it, and both choices are evaluated from its checkpoints.
`--tables` as often as wanted: chest-xray, stamps, speech-emotion, clinic (the made one: notes and vitals), cars and
airports (of the PyPI package vega_datasets).

    python benchmarks/stacked.py --tables chest-xray stamps
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import chest_xray
import polars as pl
import speech_emotion
import stamps
import yaml
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.demo import generate
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import fold_rows
from fuseline.lab.training.run import run
from fuseline.package.files import write_text
from fuseline.progress import Silent
from fuseline.recipe import Recipe, dump_recipe, parse_recipe

TEXT = {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}}
TRAINING = {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "precision": "float32", "loggers": []}
KINDS = {"end to end": "base", "stacked": "stacked", "auto": "auto"}
STATES = 10
"""of airports: those with most of them"""


def vega(file: str) -> Path:
    found = find_spec("vega_datasets")
    if found is None or found.origin is None:
        raise SystemExit("cars and airports need: pip install vega_datasets")
    return Path(found.origin).parent / "_data" / file


def cars() -> tuple[Table, dict[str, Any], str]:
    frame = pl.read_json(vega("cars.json")).with_columns(pl.col("Year").str.slice(0, 4))
    columns = dict.fromkeys(("Cylinders", "Displacement", "Horsepower", "Weight_in_lbs", "Acceleration"), "number")
    inputs = {
        "Name": TEXT,
        "facts": {"modality": "tabular", "columns": {**columns, "Year": "number", "Origin": "category"}},
    }
    task = {"kind": "regression", "target": "Miles_per_Gallon"}
    return Table.open(frame), {"inputs": inputs, "task": task, "split": {"kind": "random", "folds": 5}}, "r2"


def airports() -> tuple[Table, dict[str, Any], str]:
    frame = pl.read_csv(vega("airports.csv")).filter(pl.col("country") == "USA")
    most = frame["state"].value_counts(sort=True).head(STATES)["state"]
    inputs = {
        "name": TEXT,
        "city": TEXT,
        "place": {"modality": "tabular", "columns": {"latitude": "number", "longitude": "number"}},
    }
    task = {"kind": "classification", "target": "state"}
    table = Table.open(frame.filter(pl.col("state").is_in(most.implode())))
    return table, {"inputs": inputs, "task": task, "split": {"kind": "stratified", "folds": 3}}, "macro_f1"


def clinic(folder: Path) -> tuple[Table, dict[str, Any], str]:
    generate(folder, rows=800)
    table = Table.open(folder / "table.csv")
    recipe = yaml.safe_load(api.init(folder / "table.csv", "diagnosis")[0])
    inputs = {k: v for k, v in recipe["inputs"].items() if v["modality"] in ("text", "tabular")}
    for spec in inputs.values():
        if spec["modality"] == "text":
            spec.update(TEXT)
    return table, {"inputs": inputs, "task": recipe["task"], "split": {**recipe["split"], "folds": 3}}, "auroc"


def subject(name: str, folder: Path) -> tuple[Table, dict[str, Any], str]:
    """Table, recipe, and the metric that is compared."""
    match name:
        case "chest-xray":
            recipe = {**chest_xray.BASE, "split": {**chest_xray.BASE["split"], "val": 0.2}}
            return Table.open(DATA / name / "table.csv"), recipe, "auroc"
        case "stamps":
            return Table.open(DATA / name / "table.csv"), {**stamps.BASE, "inputs": stamps.INPUTS}, "macro_f1"
        case "speech-emotion":
            recipe = {**speech_emotion.BASE, "split": {**speech_emotion.BASE["split"], "val": 0.15}}
            return Table.open(DATA / name / "table.csv"), recipe, "macro_f1"
        case "clinic":
            return clinic(folder)
        case "cars":
            return cars()
        case "airports":
            return airports()
    raise SystemExit(f"no table {name}")


def three(recipe: Recipe, table: Table, split: Split, keep: Cache, metric: str) -> dict[str, Any]:
    """The test metric of each kind, and what auto chose."""
    base = recipe.fusion.kind
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        first = Path(place) / "auto"
        first.mkdir()
        start = time.perf_counter()
        for label, kind in reversed(KINDS.items()):
            folder = Path(place) / kind
            fusion = {**recipe.fusion.options}
            fusion |= {"kind": base} if kind == "base" else {"kind": kind, "base": base}
            own = parse_recipe({**recipe.model_dump(), "fusion": fusion})
            if folder != first:
                shutil.copytree(first, folder)
                write_text(folder / "recipe.yaml", dump_recipe(own))
            found = run(own, table, folder, voice=Silent(), cache=keep, split=split, resume=folder != first)
            out[label] = found["parts"]["test"]["metrics"][metric]["value"]
            if kind == "auto":
                out["seconds"] = time.perf_counter() - start
        out["choice"] = json.loads((first / "run.json").read_text(encoding="utf-8"))["choice"]
    return out


def measure(name: str, seeds: int, most: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        table, given, metric = subject(name, Path(folder))
        keep = Cache(1024)
        for seed in range(seeds):
            recipe = parse_recipe(
                {
                    **{k: v for k, v in given.items() if k in ("inputs", "task", "fusion")},
                    "split": {"val": 0.15, **given["split"], "seed": seed},
                    "training": {**TRAINING, **given.get("training", {}), "seed": seed},
                    "evaluation": LEAN,
                }
            )
            for fold, split in enumerate(fold_rows(recipe, table)[:most]):
                row = three(recipe, table, split, keep, metric)
                rows.append(row)
                figures = ", ".join(f"{k} {row[k]:.4f}" for k in KINDS)
                seen = ", ".join(f"{k} {row['choice'][k]:.4f}" for k in ("end_to_end", "stacked"))
                print(f"{name} seed {seed} fold {fold} {metric}: {figures} (validation: {seen})", file=sys.stderr)
    mean = {k: 100 * statistics.mean(r[k] for r in rows) for k in KINDS}
    chosen = sum(r["choice"]["chosen"] == "stacked" for r in rows)
    return {
        "table": name,
        "metric": metric,
        "splits": len(rows),
        **{k: round(v, 2) for k, v in mean.items()},
        "auto - better single": round(mean["auto"] - max(mean["end to end"], mean["stacked"]), 2),
        "auto chose stacked": f"{chosen} of {len(rows)}",
        "seconds of auto": round(statistics.median(r["seconds"] for r in rows), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["chest-xray", "stamps"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, default=5, help="most folds of a seed")
    parser.add_argument("--out")
    args = parser.parse_args()
    rows = [measure(name, args.seeds, args.folds) for name in args.tables]
    tell("fusion: auto and its two choices, test rows, metric x 100", rows, args.out)


if __name__ == "__main__":
    main()
