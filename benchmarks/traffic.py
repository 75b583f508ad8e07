"""`traffic`: the speeds of 207 sensors, an hour behind, an hour ahead, the last fifth of the time for testing. No
validation rows, as in what is published: every epoch is run.

python benchmarks/traffic.py

The same model without the graph, with the given adjacency, and with a learned one beside it; the last known speed as
the naive forecast. Figures are over all steps up to the horizon, as those published on this split are (Zhao et al.
2020, T-GCN, 15 minutes: RMSE 5.13 and MAE 3.18; a gated recurrent unit alone 5.22 and 3.06).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from common import DATA, tell

from fuseline import api

STEPS = (3, 6, 9, 12)
ENCODERS: dict[str, dict[str, Any]] = {
    "without the graph": {"learned": 0},
    "with the adjacency": {"learned": 0, "adjacency": str(DATA / "traffic" / "adjacency.csv")},
    "adjacency and a learned one": {"learned": 16, "adjacency": str(DATA / "traffic" / "adjacency.csv")},
}


def recipe(encoder: dict[str, Any], epochs: int, seed: int) -> dict[str, Any]:
    return {
        "table": {
            "path": str(DATA / "traffic" / "speed.csv"),
            "windows": {"history": 12, "horizon": 12, "step": "5m", "start": "2012-03-01", "series": {"speed": "*"}},
        },
        "inputs": {
            "speed": {"modality": "timeseries", "encoder": {"kind": "sensors", **encoder}},
        },
        "task": {"kind": "forecast", "target": "speed@next"},
        "split": {"kind": "time", "time": "time", "val": 0.0, "test": 0.2},
        "fusion": {"kind": "concat", "width": 64},
        "training": {
            "epochs": epochs,
            "batch_size": 32,
            "learning_rate": 2e-3,
            "precision": "float32",
            "seed": seed,
            "loggers": [],
        },
        "evaluation": {"degradation": False, "export": False, "report": False, "bootstrap": 0},
    }


def up_to(steps: list[dict[str, float]], horizon: int) -> dict[str, float]:
    """Over all steps up to one; every step has as many numbers (the table has no gaps)."""
    some = steps[:horizon]
    out = {name: sum(s[name] for s in some) / horizon for name in ("mae", "naive_mae")}
    return {**out, "rmse": (sum(s["rmse"] ** 2 for s in some) / horizon) ** 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="variants by name, with commas; default: all")
    parser.add_argument("--out")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, encoder in ENCODERS.items():
        if args.only and name not in args.only.split(","):
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            run = api.train(recipe(encoder, args.epochs, args.seed), out=Path(folder) / "run", quiet=True)
            part = run.metrics["parts"]["test"]
        steps = {k: up_to(part["details"]["per_step"], k) for k in STEPS}
        seconds = round(time.perf_counter() - start)
        if not rows:
            naive = {f"{5 * k} min": f"– / {steps[k]['naive_mae']:.2f}" for k in STEPS}
            rows.append({"RMSE / MAE, mph": "last known speed", **naive})
        own = {f"{5 * k} min": f"{steps[k]['rmse']:.2f} / {steps[k]['mae']:.2f}" for k in STEPS}
        coverage = part["metrics"]["coverage"]["value"]
        rows.append({"RMSE / MAE, mph": name, **own, "80 % covers": f"{100 * coverage:.1f} %", "seconds": seconds})
        print(rows[-1], flush=True)
    tell("traffic, test rows", rows, args.out)


if __name__ == "__main__":
    main()
