"""`stamps`, target `category`: all inputs, and what an absent description costs.

Three trainings on the same splits: on all inputs, on all but the description, on the description alone. Each is tested
with every description there, and with the description of half of the test rows absent.

    python benchmarks/stamps.py --seeds 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.split import make_folds
from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache
from fuseline.recipe import parse_recipe

INPUTS = {
    "image": {"modality": "image", "encoder": {"kind": "efficientnet-lite0", "tune": "frozen", "tokens": "pooled"}},
    "description": {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}},
    "speech_fr": {"modality": "audio", "max_seconds": 4.0, "encoder": {"kind": "small"}},
}
BASE = {
    "task": {"kind": "classification", "target": "category"},
    "split": {"kind": "stratified", "folds": 5},
    "fusion": {"kind": "attention"},
    "training": {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "precision": "float32", "loggers": []},
    "evaluation": {**LEAN, "export": True},
}


def halved(table: Table, rows: np.ndarray, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The test rows, and the same with the description of a random half absent."""
    whole = table.take(rows, table.columns)
    hidden = np.random.default_rng(seed).permutation(len(rows)) < len(rows) // 2
    column = [None if h else t for h, t in zip(hidden, whole["description"], strict=True)]
    return whole, whole.with_columns(description=pl.Series(column, dtype=pl.String))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out")
    args = parser.parse_args()
    table = Table.open(DATA / "stamps" / "table.csv")
    keep = Cache(1024)
    some = {k: v for k, v in INPUTS.items() if k != "description"}
    trained = {
        "all inputs": INPUTS,
        "trained without description": some,
        "description alone": {"description": INPUTS["description"]},
    }
    found: dict[str, list[tuple[float, float, float]]] = {k: [] for k in trained}
    for seed in range(args.seeds):
        spec = parse_recipe({**BASE, "inputs": INPUTS, "split": {**BASE["split"], "seed": seed}})
        for fold, split in enumerate(make_folds(table, spec.split, target_column="category", stratify="classes")):
            rows = np.flatnonzero(split.part == 2)
            whole, half = halved(table, rows, seed * 10 + fold)
            for name, inputs in trained.items():
                training = {**BASE["training"], "seed": seed}
                start = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    recipe = {
                        **BASE,
                        "inputs": inputs,
                        "training": training,
                        "table": {"media_root": str(table.folder)},
                    }
                    run = api.train(recipe, table=table, out=Path(folder) / "run", split=split, cache=keep, quiet=True)
                    seconds = time.perf_counter() - start
                    scores = [
                        api.evaluate(run.package, rows_, bootstrap=0, subsets=False, quiet=True)["parts"]["test"][
                            "metrics"
                        ]["macro_f1"]["value"]
                        for rows_ in (whole, half)
                    ]
                found[name].append((*scores, seconds))
                print(f"seed {seed} fold {fold} {name}: {scores} in {seconds:.0f} s", file=sys.stderr, flush=True)
    rows_out = [
        {
            "trained on": name,
            "runs": len(values),
            "macro-F1, all there": round(statistics.mean(v[0] for v in values), 4),
            "macro-F1, description absent for half": round(statistics.mean(v[1] for v in values), 4),
            "seconds": round(statistics.median(v[2] for v in values), 1),
        }
        for name, values in found.items()
    ]
    tell("stamps, category", rows_out, args.out)


if __name__ == "__main__":
    main()
