"""`stamps`, target `category`, from picture and description with encoders from scratch, when a tenth of the training
rows has a label: from random weights, against weights pretrained on all training rows without their labels. The same
splits, the same labelled rows. Test rows are not seen by the pretraining either.

    python benchmarks/pretrained.py --seeds 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from augmentation import fewer
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import fold_rows
from fuseline.recipe import parse_recipe

INPUTS: dict[str, dict[str, Any]] = {
    "image": {"modality": "image", "encoder": {"kind": "small", "size": 32, "channels": [16, 32, 64]}},
    "description": {"modality": "text", "max_length": 24, "encoder": {"kind": "small", "width": 64, "layers": 0}},
}
BASE: dict[str, Any] = {
    "split": {"kind": "stratified", "folds": 5},
    "fusion": {"kind": "concat", "width": 64},
    "training": {"epochs": 40, "batch_size": 16, "learning_rate": 2e-3, "precision": "float32", "loggers": []},
    "evaluation": LEAN,
}
OBJECTIVES = {
    "both": {},
    "contrast": {"masked": 0.0},
    "masked": {"contrast": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--share", type=float, default=0.1, help="of the training rows' labels")
    parser.add_argument("--epochs", type=int, default=30, help="of pretraining")
    parser.add_argument("--objectives", default="both", help=f"some of {', '.join(OBJECTIVES)}")
    parser.add_argument("--out")
    args = parser.parse_args()
    table, keep = Table.open(DATA / "stamps" / "table.csv"), Cache(256)
    classes = sorted(table.column("category").unique().to_list())
    base = {
        **BASE,
        "task": {"kind": "classification", "target": "category", "classes": classes},
        "table": {"media_root": str(table.folder)},
        "inputs": INPUTS,
    }
    names = ["from scratch", *args.objectives.split(",")]
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for seed in range(args.first, args.first + args.seeds):
        recipe = {**base, "split": {**base["split"], "seed": seed}, "training": {**base["training"], "seed": seed}}
        split = fold_rows(parse_recipe(recipe), table)[0]
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                init, seconds = None, 0.0
                if name in OBJECTIVES:
                    spec = {"epochs": args.epochs, "learning_rate": 2e-3, **OBJECTIVES[name]}
                    got = api.pretrain(
                        {**recipe, "pretrain": spec},
                        table=table,
                        out=Path(folder) / "pretrained",
                        split=split,
                        cache=keep,
                        quiet=True,
                    )
                    init, seconds = got.folder, got.learned["seconds"]["train"]
                    print(name, got.learned["best"], got.learned["held_out"], file=sys.stderr, flush=True)
                run = api.train(
                    recipe,
                    table=table,
                    out=Path(folder) / "run",
                    split=fewer(split, args.share, seed),
                    cache=keep,
                    quiet=True,
                    init=init,
                )
                found[name].append((run.score("accuracy"), run.score("macro_f1"), seconds))
            print(f"seed {seed}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    rows = []
    for name, values in found.items():
        accuracy = [v[0] for v in values]
        against = [a - b[0] for a, b in zip(accuracy, found["from scratch"], strict=True)]
        rows.append(
            {
                "begun": name,
                "runs": len(values),
                "accuracy": round(statistics.mean(accuracy), 3),
                "by seed": ", ".join(f"{a:.3f}" for a in accuracy),
                "against scratch": f"{statistics.mean(against):+.3f} ({min(against):+.3f} … {max(against):+.3f})",
                "macro-F1": round(statistics.mean(v[1] for v in values), 3),
                "pretraining, s": round(statistics.median(v[2] for v in values), 1),
            }
        )
    tell(f"stamps, category, {args.share:.0%} of the labels", rows, args.out)


if __name__ == "__main__":
    main()
