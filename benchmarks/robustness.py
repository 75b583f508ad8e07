"""`stamps`, target `category`, from the picture and its description with encoders from scratch: trained on rows as they
are, on rows that FGM pushed, and on rows that PGD pushed; each measured clean and under PGD of ten steps.

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
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.robustness.measure import ALL
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import split_rows
from fuseline.recipe import parse_recipe

INPUTS = {
    "image": {"modality": "image", "encoder": {"kind": "small", "size": 48, "channels": [16, 32, 64]}},
    "description": {"modality": "text", "encoder": {"kind": "small", "width": 64, "layers": 0}},
}
BASE: dict[str, Any] = {
    "inputs": INPUTS,
    "task": {"kind": "classification", "target": "category"},
    "split": {"kind": "stratified", "val": 0.15, "test": 0.25},
    "fusion": {"kind": "concat", "width": 64},
    "training": {"epochs": 20, "batch_size": 32, "learning_rate": 3e-3, "precision": "float32", "loggers": []},
    "evaluation": {**LEAN, "robustness": True},
}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "FGM": {"kind": "fgm"},
    "PGD": {"kind": "pgd", "steps": 3},
    "PGD, attacked rows alone": {"kind": "pgd", "steps": 3, "weight": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--out")
    args = parser.parse_args()
    table, keep = Table.open(DATA / "stamps" / "table.csv"), Cache(256)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in range(args.seeds):
        base = {**BASE, "table": {"media_root": str(table.folder)}, "split": {**BASE["split"], "seed": seed}}
        split = split_rows(parse_recipe(base), table)
        for name, adversarial in VARIANTS.items():
            training = {**BASE["training"], "seed": seed, "adversarial": adversarial}
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
            for place in ("image", "description", ALL):
                for point in robust["attacked"][place]["curve"]:
                    row[f"{place} × {point['strength']:g}"] = point["metrics"][args.metric]
            row["noise × 1, image"] = robust["noise"]["image"]["curve"][1]["metrics"][args.metric]
            found[name].append(row)
            print(f"seed {seed} {name}: {row} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    rows = []
    for name, values in found.items():
        means = {key: round(statistics.mean(v[key] for v in values), 3) for key in values[0]}
        spread = float(np.std([v["clean"] for v in values], ddof=1)) if len(values) > 1 else 0.0
        rows.append({"trained on": name, "runs": len(values), **means, "spread of clean": round(spread, 3)})
    tell(f"stamps, category: {args.metric}, clean and under PGD of ten steps", rows, args.out)


if __name__ == "__main__":
    main()
