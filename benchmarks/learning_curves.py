"""Few labels: how far each method gets with 5, 10, 25, 50 and 100 % of the training rows' labels, on two real tables.

For each seed one split; the rows whose label is taken away are the same for every method, and smaller shares are part
of larger ones. One JSON line a finished run: the same command goes on where it was interrupted.

    python benchmarks/learning_curves.py --table stamps --seeds 3 --log build/stamps.jsonl

Methods: scratch (no change of inputs at all), augmented (`augment: default`), ema (augmented, and the weights' moving
average), semi (`augment: default` and `training.unlabelled`), pretrained (`fuseline pretrain` on all training rows,
then augmented; where this version has it).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.disk.where import open_cache
from fuseline.lab.training.prepare import split_rows
from fuseline.recipe import Recipe, TrainingSpec, parse_recipe

STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""runs -> 97.5 % quantile of Student's t with one degree of freedom less"""
SHORT: dict[str, Any] = {"batch_size": 32, "precision": "float32", "loggers": [], "patience": 1000}


@dataclass(frozen=True)
class Case:
    """A table and how it is learned. `steps`: of every run, whatever its share of labels, so that all have the same
    time to learn; the last weights are kept, since few labels leave none to validate with."""

    target: str
    inputs: dict[str, dict[str, Any]]
    split: dict[str, Any]
    steps: int
    training: dict[str, Any]
    unlabelled: dict[str, Any]


CASES = {
    "stamps": Case(
        "category",
        {
            "image": {"modality": "image", "encoder": {"kind": "small", "size": 48, "channels": [16, 32, 64]}},
            "description": {"modality": "text", "encoder": {"kind": "small", "width": 64, "layers": 0}},
        },
        {"kind": "stratified", "val": 0.0, "test": 0.25},
        300,
        {"learning_rate": 3e-3},
        {},
    ),
    # Pictures and descriptions by pretrained encoders that stay as they are: nothing of a cell can be augmented.
    "stamps-frozen": Case(
        "category",
        {
            "image": {
                "modality": "image",
                "encoder": {"kind": "efficientnet-lite0", "tune": "frozen", "tokens": "pooled"},
            },
            "description": {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}},
        },
        {"kind": "stratified", "val": 0.0, "test": 0.25},
        300,
        {"learning_rate": 2e-3},
        {},
    ),
    "speech-emotion": Case(
        "emotion",
        {"audio": {"modality": "audio", "max_seconds": 3.0, "sample_rate": 16000, "encoder": {"kind": "small"}}},
        {"kind": "group", "group": "actor", "val": 0.0, "test": 0.25},
        400,
        {"learning_rate": 2e-3},
        {},
    ),
}
METHODS = ("scratch", "augmented", "ema", "semi", "pretrained")


def hidden(table: Table, split: Split, target: str, share: float, seed: int) -> Table:
    """The table with the labels of all but `share` of the training rows taken away, of each class alike; a class keeps
    at least one."""
    labels = np.array([str(v) for v in table.column(target).to_list()], dtype=object)
    train, rng = np.flatnonzero(split.part == 0), np.random.default_rng([seed, 7])
    keep = split.part > 0
    for label in sorted(set(labels[train])):
        own = rng.permutation(train[labels[train] == label])
        keep[own[: max(1, round(share * len(own)))]] = True
    frame = table.take(np.arange(table.n_rows), table.columns)
    cells = [label if kept else None for label, kept in zip(labels, keep, strict=True)]
    whole = Table.open(frame.with_columns(pl.Series(target, cells, dtype=pl.String)))
    whole.folder = table.folder
    return whole


def recipe_of(case: Case, method: str, table: Table, classes: list[str], labelled: int, seed: int) -> dict[str, Any]:
    augment = "none" if method == "scratch" else "default"
    frozen = {n for n, i in case.inputs.items() if i["encoder"].get("tune") == "frozen"}
    epochs = max(1, round(case.steps / max(1, round(labelled / SHORT["batch_size"]))))
    training: dict[str, Any] = {**SHORT, **case.training, "epochs": epochs, "seed": seed, "interval_steps": 10_000}
    if method == "ema":
        training["ema"] = 0.99
    if method == "semi":
        training["unlabelled"] = case.unlabelled
    return {
        "table": {"media_root": str(table.folder)},
        # A frozen encoder of changed cells runs in every step: left as it is, so that its tokens are kept.
        "inputs": {n: {**i, **({} if n in frozen else {"augment": augment})} for n, i in case.inputs.items()},
        # All classes in any case, though a small share has a row of each.
        "task": {"kind": "classification", "target": case.target, "classes": classes},
        "split": {**case.split, "seed": seed},
        "fusion": {"kind": "concat", "width": 64},
        "training": training,
        "evaluation": {**LEAN, "parts": ["test"]},
    }


def has_pretraining() -> bool:
    """Whether a recipe knows `init` and the api makes it."""
    return hasattr(api, "pretrain") and "init" in Recipe.model_fields


def one(
    case: Case, method: str, table: Table, share: float, seed: int, keep: Cache, folder: Path, begun: Path
) -> dict[str, Any]:
    """One training: macro-F1 and accuracy of the test rows. `begun`: the seed's pretraining, which sees no label and so
    is the same for every share; made here where it is not there yet, and then its seconds count."""
    spec = parse_recipe(recipe_of(case, "scratch", table, [], 1, seed) | {"task": task(case, table)})
    split = split_rows(spec, table)
    fewer = hidden(table, split, case.target, share, seed)
    labelled = int((fewer.column(case.target).is_not_null().to_numpy() & (split.part == 0)).sum())
    part = split.part.copy()
    part[fewer.column(case.target).is_null().to_numpy()] = -1
    recipe = recipe_of(case, method, table, classes_of(case, table), labelled, seed)
    start = time.perf_counter()
    if method == "pretrained":
        if not begun.exists():
            rows = fewer.take(np.flatnonzero(split.part == 0), [c for c in fewer.columns if c != case.target])
            api.pretrain(recipe, table=rows, out=begun, quiet=True)
        recipe["init"] = str(begun)
    run = api.train(recipe, table=fewer, out=folder / "run", split=Split(part), cache=keep, quiet=True)
    return {
        "labelled": labelled,
        "macro_f1": run.score("macro_f1"),
        "accuracy": run.score("accuracy"),
        "seconds": round(time.perf_counter() - start, 1),
        "unlabelled": run.record.get("unlabelled", {}).get("last"),
    }


def task(case: Case, table: Table) -> dict[str, Any]:
    return {"kind": "classification", "target": case.target, "classes": classes_of(case, table)}


def classes_of(case: Case, table: Table) -> list[str]:
    return sorted(str(v) for v in table.column(case.target).unique().to_list())


def interval(values: list[float]) -> str:
    """mean ± 95 % interval of the mean over seeds, by Student's t."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = STUDENT_T.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


def area(points: dict[float, float]) -> float:
    """Under the curve over the logarithm of the share, divided by its width: a mean score where each doubling of the
    labels counts alike."""
    x = np.log(np.array(sorted(points)))
    y = np.array([points[s] for s in sorted(points)])
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 else float(y[0])


def rows_of(done: list[dict[str, Any]], shares: list[float], methods: list[str]) -> list[dict[str, Any]]:
    out = []
    for method in methods:
        own = [d for d in done if d["method"] == method]
        if not own:
            continue
        seeds = sorted({d["seed"] for d in own})
        at = {(d["seed"], d["share"]): d["macro_f1"] for d in own}
        row: dict[str, Any] = {"method": method, "seeds": len(seeds)}
        for share in shares:
            values = [at[s, share] for s in seeds if (s, share) in at]
            row[f"{share:g} %"] = interval(values) if values else "–"
        whole = [s for s in seeds if all((s, share) in at for share in shares)]
        row["area"] = interval([area({share: at[s, share] for share in shares}) for s in whole]) if whole else "–"
        row["seconds"] = round(statistics.median(d["seconds"] for d in own), 1)
        out.append(row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=list(CASES), default="stamps")
    parser.add_argument("--shares", default="5,10,25,50,100", help="percent of the training rows' labels")
    parser.add_argument("--methods", default="scratch,augmented,semi", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with; finished ones are in the table too")
    parser.add_argument("--steps", type=int, help="of every run; default: the table's own")
    parser.add_argument("--unlabelled", default="{}", help="JSON: options of training.unlabelled for semi")
    parser.add_argument("--log", help="JSON lines of finished runs; default: build/learning_curves_TABLE.jsonl")
    parser.add_argument("--out")
    args = parser.parse_args()
    case = CASES[args.table]
    steps = args.steps or case.steps
    case = Case(case.target, case.inputs, case.split, steps, case.training, json.loads(args.unlabelled))
    shares, methods = [float(s) for s in args.shares.split(",")], args.methods.split(",")
    if unknown := [m for m in methods if m not in METHODS]:
        parser.error(f"no method {unknown[0]!r}: {', '.join(METHODS)}")
    if "pretrained" in methods and not has_pretraining():
        print("pretrained: not in this version", file=sys.stderr)
        methods.remove("pretrained")
    log = Path(args.log or f"build/learning_curves_{args.table}.jsonl")
    log.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in log.read_text().splitlines() if line] if log.exists() else []
    name = args.table.removesuffix("-frozen")
    table, keep = Table.open(DATA / name / "table.csv"), open_cache(TrainingSpec(cache_mb=1024))
    begun = Path(tempfile.mkdtemp(prefix="pretrained"))
    for seed in range(args.first, args.seeds):
        for share in shares:
            for method in methods:
                key = {"table": args.table, "method": method, "share": share, "seed": seed, "steps": steps}
                if method == "semi":
                    key["options"] = case.unlabelled
                if method == "semi" and share == 100:
                    continue  # no row is left without its label: shown as augmented
                if any(all(d.get(k) == v for k, v in key.items()) for d in done):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    found = {
                        **key,
                        **one(case, method, table, share / 100, seed, keep, Path(folder), begun / str(seed)),
                    }
                done.append(found)
                with log.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                print(f"{method}, {share:g} %, seed {seed}: {found}", file=sys.stderr, flush=True)
    shutil.rmtree(begun)
    own = [d for d in done if d["table"] == args.table and d["steps"] == steps and d["share"] in shares]
    own = [d for d in own if d["seed"] < args.seeds and d.get("options", case.unlabelled) == case.unlabelled]
    if "semi" in methods:  # with every label there it is the augmented training: the same figure ends its curve
        own += [{**d, "method": "semi"} for d in own if d["method"] == "augmented" and d["share"] == 100]
    tell(f"{args.table}, macro-F1 by share of labels, {steps} steps", rows_of(own, shares, methods), args.out)


if __name__ == "__main__":
    main()
