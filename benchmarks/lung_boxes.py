"""`chest-xray`, target `boxes` (two lungs), folds by patient: mAP@50 and mAP@50:95, with everything and with the
picture alone.

python benchmarks/lung_boxes.py --folds 5
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import DATA, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import fold_rows
from fuseline.recipe import parse_recipe

VITALS = {
    "age": "number",
    "sex": "category",
    "temperature": "number",
    "po2_saturation": "number",
    "days_since_onset": "number",
    "view": "category",
}
RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {"modality": "image", "encoder": {"kind": "small", "size": 96, "channels": [16, 32, 48, 64]}},
        "notes": {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}},
        "vitals": {"modality": "tabular", "columns": VITALS, "encoder": {"kind": "small"}},
    },
    "task": {
        "kind": "detection",
        "target": "boxes",
        "mirror": True,
        "mirror_labels": {"Left Lung": "Right Lung"},
        "zoom": 0.15,
        "layers": 2,
    },
    # All epochs are run and a tenth of the patients choose the threshold.
    "split": {"kind": "group", "group": "patient", "folds": 5, "val": 0.1},
    "fusion": {"kind": "attention", "layers": 1, "width": 64},
    "training": {
        "epochs": 30,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "patience": 40,
        "precision": "float32",
        "loggers": [],
    },
    "evaluation": {"bootstrap": 0, "degradation": True, "export": False, "report": False},
}
METRICS = ("map_50", "map_50_95", "map_75", "f1", "iou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five are run")
    parser.add_argument("--epochs", type=int, default=RECIPE["training"]["epochs"])
    parser.add_argument("--keep", help="folder where the first fold's run is kept, with its package and report")
    parser.add_argument("--out")
    args = parser.parse_args()
    path = DATA / "chest-xray" / "table.csv"
    table = Table.open(path)
    recipe = {**RECIPE, "training": {**RECIPE["training"], "epochs": args.epochs}}
    cache = Cache(1024)
    rows = []
    for fold, split in enumerate(fold_rows(parse_recipe(recipe), table)[: args.folds]):
        start = time.perf_counter()
        whole = {"bootstrap": 1000, "degradation": True} if args.keep and not fold else recipe["evaluation"]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(args.keep) if args.keep and not fold else Path(folder) / "run"
            source: Any = {**recipe, "evaluation": whole, "table": {"path": str(path)}}
            run = api.train(source, out=out, split=split, cache=cache, quiet=True)
            all_there = {k: m["value"] for k, m in run.metrics["parts"]["test"]["metrics"].items()}
            [alone] = [e for e in run.metrics["degradation"] if e["present"] == ["image"]]
            row = {"fold": fold, "test rows": run.metrics["parts"]["test"]["rows"]}
        row |= {name: round(all_there[name], 3) for name in METRICS}
        row |= {f"{name}, picture alone": round(alone["metrics"][name]["value"], 3) for name in METRICS[:2]}
        rows.append({**row, "seconds": round(time.perf_counter() - start)})
        print(rows[-1], file=sys.stderr, flush=True)
    names = [name for name in rows[0] if name not in ("fold", "test rows")]
    mean = {name: round(statistics.mean(row[name] for row in rows), 3) for name in names}
    rows.append({"fold": "mean", "test rows": sum(row["test rows"] for row in rows), **mean})
    tell("chest-xray, lung boxes, folds by patient", rows, args.out)


if __name__ == "__main__":
    main()
