"""How good it is, what an absent report costs, how sure it is, and whether the heat lies where a cloud was drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

import fuseline
from examples.clinic.data import SIDE, TABLE, TRUTH
from examples.clinic.server import GRID, MOST_PARTS
from fuseline import Predictor

WATCHED = ("finding.auroc", "finding.balanced_accuracy", "severity.auroc", "severity.balanced_accuracy", "lungs.map_50")
TARGETS = ("finding", "severity")
EXPLAINED = 12
"""rows whose heat is measured: each takes as many answers as there are patches"""


def measure(folder: Path, run: Path) -> dict[str, Any]:
    """On the test rows: `absent` (by inputs shown), `report` (rows that have one, and rows that have none), `sure`; of
    a made clinic also `judge` (accuracy of whoever knows its law) and `heat`."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    said = pl.read_parquet(run / "predictions.parquet").filter(pl.col("part") == "test")
    table = pl.read_csv(folder / "data" / TABLE, infer_schema_length=None)
    recipe = fuseline.load_recipe(run / "recipe.yaml")
    columns = {t: recipe.task.options["tasks"][t]["target"] for t in TARGETS}
    out: dict[str, Any] = {"absent": absent(metrics), "report": by_report(said, table, columns), "sure": sure(metrics)}
    if (folder / "data" / TRUTH).exists():
        truth = pl.read_csv(folder / "data" / TRUTH)
        rows = said["row"].to_list()
        out["judge"] = float((truth["judge"][rows] == table["finding"][rows]).mean())  # type: ignore[arg-type]
        out["heat"] = heat(fuseline.load(run), folder / "data", table, truth, rows)
    return out


def absent(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The watched metrics with all inputs, and with each one hidden."""
    entries = metrics["degradation"]
    every = len(entries[0]["present"])
    out = []
    for entry in entries:
        if len(entry["present"]) >= every - 1:
            hidden = set(entries[0]["present"]) - set(entry["present"])
            values = {k: entry["metrics"][k]["value"] for k in WATCHED if k in entry["metrics"]}
            out.append({"hidden": "".join(hidden) or None, "rows": entry["rows"], **values})
    return out


def by_report(said: pl.DataFrame, table: pl.DataFrame, columns: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy of each target on the rows that came with a report, and on those that came without."""
    out: dict[str, Any] = {}
    for target, column in columns.items():
        right: dict[str, list[bool]] = {"with": [], "without": []}
        for row, value, used in zip(said["row"], said["value"], said["used"], strict=True):
            truth = table[column][row]
            if truth is not None:
                right["with" if "report" in json.loads(used) else "without"].append(json.loads(value)[target] == truth)
        out[target] = {k: {"rows": len(v), "accuracy": sum(v) / len(v) if v else None} for k, v in right.items()}
    return out


def sure(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Coverage and size of the sets, what is answered and how often wrongly; with everything, and without a report."""
    out: dict[str, Any] = {}
    for target in TARGETS:
        own = metrics["sure"]["tasks"][target]
        groups = {"as they come": own["conformal"][0]}
        for group in own["conformal"]:
            if group["kind"] == "shown" and group["present"] == ["xray", "vitals", "person"]:
                groups["report hidden"] = group
        found = {k: {n: g[n] for n in ("rows", "fitted_rows", "coverage", "size")} for k, g in groups.items()}
        first = own["selective"]["abstain"]["checked"][0]
        out[target] = {"sets": found, "wrong_of_surest": own["selective"]["risk"], "abstain": first}
    return out


def heat(predictor: Predictor, root: Path, table: pl.DataFrame, truth: pl.DataFrame, rows: list[int]) -> dict[str, Any]:
    """Of test rows with a cloud and a picture: `hit`, how often the patch that speaks most for murk touches the cloud's
    box; `chance`, how often any patch does. The picture alone is shown, so that it decides."""
    hits, chances = list[bool](), list[float]()
    for row in rows:
        if len(hits) == EXPLAINED:
            break
        if truth["cloud"][row] is None:
            continue
        box = json.loads(truth["cloud"][row])
        cell = {"image": (root / table["image"][row]).read_bytes()}
        found = predictor.explain([cell], inside=["xray"], of="finding=murk", grid=GRID, most_parts=MOST_PARTS).rows[0]
        parts = found.inside[0].parts
        touched = [_touch([SIDE * p for p in part.place], box) for part in parts]
        best = max(range(len(parts)), key=lambda i: parts[i].value)
        hits.append(touched[best])
        chances.append(sum(touched) / len(touched))
    if not hits:
        return {"rows": 0, "hit": None, "chance": None}
    return {"rows": len(hits), "hit": sum(hits) / len(hits), "chance": math.fsum(chances) / len(chances)}


def _touch(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
