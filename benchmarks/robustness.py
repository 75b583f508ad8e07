"""The demo's made clinic (`diagnosis`) from picture, note and vitals, with encoders from scratch: trained on rows as
they are, on rows that FGM pushed, and on rows that PGD pushed (beside those as they are, or alone); each measured clean
and under PGD of ten steps.

    python benchmarks/robustness.py --seeds 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import LEAN, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.demo import generate
from fuseline.demo.statement import NUMBERS, VITALS
from fuseline.lab.robustness.measure import ALL
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import split_rows
from fuseline.recipe import parse_recipe

INPUTS = {
    "picture": {"modality": "image", "encoder": {"kind": "small", "size": 48, "channels": [8, 16, 32], "augment": 0.0}},
    "note": {"modality": "text", "encoder": {"kind": "small", "width": 32, "layers": 0}},
    "vitals": {
        "modality": "tabular",
        "columns": {name: "number" if name in (*NUMBERS, "age") else "category" for name in VITALS},
        "encoder": {"kind": "small", "width": 32, "layers": 0},
    },
}
BASE: dict[str, Any] = {
    "inputs": INPUTS,
    "task": {"kind": "classification", "target": "diagnosis"},
    "split": {"kind": "group", "group": "patient", "val": 0.15, "test": 0.3},
    "fusion": {"kind": "concat", "width": 32},
    "training": {"epochs": 20, "batch_size": 32, "learning_rate": 3e-3, "precision": "float32", "loggers": []},
    "evaluation": {**LEAN, "robustness": True},
}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "FGM": {"kind": "fgm"},
    "PGD": {"kind": "pgd", "steps": 3},
    "PGD alone": {"kind": "pgd", "steps": 3, "weight": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="with commas")
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.rows, 0)
        measure(args, Table.open(Path(folder) / "table.csv"))


def measure(args: argparse.Namespace, table: Table) -> None:
    keep = Cache(256)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in args.variants.split(",")}
    for seed in range(args.first, args.first + args.seeds):
        base = {**BASE, "table": {"media_root": str(table.folder)}, "split": {**BASE["split"], "seed": seed}}
        split = split_rows(parse_recipe(base), table)
        for name in found:
            training = {**BASE["training"], "seed": seed, "adversarial": VARIANTS[name]}
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                run = api.train(
                    {**base, "training": training},
                    table=table,
                    out=Path(folder) / "run",
                    split=split,
                    cache=keep,
                    quiet=True,
                )
                robust = run._json("robustness.json")
                row = {"clean": robust["clean"][args.metric]["value"], "seconds": run.record["seconds"]["train"]}
            for place in (*INPUTS, ALL):
                for point in robust["attacked"][place]["curve"]:
                    row[f"{place} × {point['strength']:g}"] = point["metrics"][args.metric]
            row["noise × 1, picture"] = robust["noise"]["picture"]["curve"][1]["metrics"][args.metric]
            found[name].append(row)
            print(f"seed {seed} {name}: {row} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    rows = []
    for name, values in found.items():
        means = {key: round(statistics.mean(v[key] for v in values), 3) for key in values[0]}
        spread = float(np.std([v["clean"] for v in values], ddof=1)) if len(values) > 1 else 0.0
        rows.append({"trained on": name, "runs": len(values), **means, "spread of clean": round(spread, 3)})
    tell(f"made clinic, {args.rows} rows: {args.metric}, clean and under PGD of ten steps", rows, args.out)


if __name__ == "__main__":
    main()
