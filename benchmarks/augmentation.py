"""`stamps`, target `category`, from the picture and its description with encoders from scratch: what augmentation and
mixup change, at all labels and at a quarter of them. The same folds for each.

    python benchmarks/augmentation.py --folds 3
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import fold_rows
from fuseline.recipe import parse_recipe

INPUTS: dict[str, dict[str, Any]] = {
    "image": {"modality": "image", "encoder": {"kind": "small", "size": 48, "channels": [16, 32, 64]}},
    "description": {"modality": "text", "encoder": {"kind": "small", "width": 64, "layers": 0}},
}
BASE: dict[str, Any] = {
    "task": {"kind": "classification", "target": "category"},
    "split": {"kind": "stratified", "folds": 5},
    "fusion": {"kind": "concat", "width": 64},
    "training": {"epochs": 20, "batch_size": 32, "learning_rate": 3e-3, "precision": "float32", "loggers": []},
    "evaluation": LEAN,
}
VARIANTS = {
    "none": ("none", 0.0),
    "auto (the encoders' own)": ("auto", 0.0),
    "default": ("default", 0.0),
    "strong": ("strong", 0.0),
    "default, mixup 0.2": ("default", 0.2),
}


def fewer(split: Split, share: float, seed: int) -> Split:
    """The same split with only a share of the training rows."""
    part = split.part.copy()
    train = np.flatnonzero(part == 0)
    part[np.random.default_rng(seed).permutation(train)[round(share * len(train)) :]] = -1
    return replace(split, part=part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=3, choices=range(1, 6))
    parser.add_argument("--first", type=int, default=0, help="fold to begin with")
    parser.add_argument("--inputs", default="image,description")
    parser.add_argument("--shares", default="1,0.25")
    parser.add_argument("--out")
    args = parser.parse_args()
    table, keep = Table.open(DATA / "stamps" / "table.csv"), Cache(256)
    names = args.inputs.split(",")
    # All classes, since a quarter of the rows may lack a rare one.
    task = {**BASE["task"], "classes": sorted(table.column("category").unique().to_list())}
    base = {
        **BASE,
        "task": task,
        "table": {"media_root": str(table.folder)},
        "inputs": {n: INPUTS[n] for n in names},
    }
    rows = []
    for share in (float(s) for s in args.shares.split(",")):
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in VARIANTS}
        splits = list(enumerate(fold_rows(parse_recipe(base), table)))
        for fold, split in splits[args.first : args.first + args.folds]:
            for name, (preset, mixup) in VARIANTS.items():
                inputs = {n: {**INPUTS[n], "augment": preset} for n in names}
                training = {**BASE["training"], "seed": fold, "mixup": mixup}
                with tempfile.TemporaryDirectory() as folder:
                    run = api.train(
                        {**base, "inputs": inputs, "training": training},
                        table=table,
                        out=Path(folder) / "run",
                        split=fewer(split, share, fold) if share < 1 else split,
                        cache=keep,
                        quiet=True,
                    )
                    found[name].append((run.score("macro_f1"), run.score("log_loss"), run.record["seconds"]["train"]))
                print(f"{share:g} of labels, fold {fold}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
        for name, values in found.items():
            f1 = [v[0] for v in values]
            against = [a - b[0] for a, b in zip(f1, found["none"], strict=True)]
            rows.append(
                {
                    "labels": f"{share:.0%}",
                    "augment": name,
                    "runs": len(values),
                    "macro-F1": round(statistics.mean(f1), 3),
                    "against none": f"{statistics.mean(against):+.3f} ({min(against):+.3f} … {max(against):+.3f})",
                    "log loss": round(statistics.mean(v[1] for v in values), 3),
                    "seconds": round(statistics.median(v[2] for v in values), 1),
                }
            )
    tell(f"stamps, category, from {' and '.join(names)}", rows, args.out)


if __name__ == "__main__":
    main()
