"""Active learning and few-shot heads on `stamps` (16 categories; a picture and a description, frozen encoders), and the
curves also on `speech-emotion` (8 emotions, 24 speakers; an encoder that `fuseline pretrain` taught without a label).

curves: from a few labelled rows, rounds of suggestions by each method, a linear probe on embeddings that were made once
as the inner model; macro-F1 on the same test rows, and the area under the learning curve against random choice.
full: the same as a user does it: train, package, `suggest` without torch, labels filled in, `take_labels`, train again.
fewshot: 1, 5 and 10 rows a class: end to end, trees, linear probe, prototypes. No validation rows.

Encoders' outputs and finished seeds are kept in `--keep`: a run that was stopped goes on there.

    python benchmarks/active.py --parts curves,fewshot --seeds 5
    python benchmarks/active.py --parts curves --seeds 5 --table speech-emotion
"""

from __future__ import annotations

import argparse
import json
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
from scipy.stats import t as student

from fuseline import api
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.pretrain.init import load_init, open_init
from fuseline.lab.stacked.boost import Rows
from fuseline.lab.stacked.embed import Embedded, embed
from fuseline.lab.stacked.fewshot import linear_probe
from fuseline.lab.stacked.linear import LinearHead, SideBySide
from fuseline.lab.stacked.probe import centred, features_of
from fuseline.lab.training import loop
from fuseline.lab.training.disk.where import open_cache
from fuseline.lab.training.prepare import prepare
from fuseline.labelling.choose import badge, highest, k_center
from fuseline.labelling.measures import unsure
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe
from fuseline.tasks.classification import Classification


@dataclass(frozen=True)
class Case:
    """`group`: rows that share its value are tested, or not, together. `pretrained`: whether the encoders are first
    taught by all rows' cells, without labels."""

    target: str
    inputs: dict[str, dict[str, Any]]
    group: str | None = None
    pretrained: bool = False


CASES = {
    "stamps": Case(
        "category",
        {
            "image": {
                "modality": "image",
                "encoder": {"kind": "efficientnet-lite0", "tune": "frozen", "tokens": "pooled"},
            },
            "description": {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}},
        },
    ),
    "speech-emotion": Case(
        "emotion",
        {"audio": {"modality": "audio", "max_seconds": 3.0, "sample_rate": 16000, "encoder": {"kind": "small"}}},
        group="actor",
        pretrained=True,
    ),
}
STAMPS = CASES["stamps"]
METHODS = ("random", "entropy", "margin", "diversity", "badge")
START, BATCH, ROUNDS = 48, 32, 6
TEST = 0.3
SHOTS = (1, 5, 10)


def embedded(case: Case, table: Table, kept: Path) -> Embedded:
    """Every row's mean tokens, made once."""
    file = kept / "rows.npz"
    if file.exists():
        with np.load(file) as held:
            return Embedded([held[f"pooled{m}"] for m in range(len(case.inputs))], held["present"], held["targets"])
    classes = sorted(set(table.column(case.target).to_list()))
    spec: dict[str, Any] = {
        "inputs": case.inputs,
        "task": {"kind": "classification", "target": case.target, "classes": classes},
        "split": {"kind": "random", "val": 0.0, "test": 0.0},
        "training": {"cache_folder": str(kept.absolute() / "tokens"), "precision": "float32"},
        "table": {"media_root": str(table.folder)},
    }
    if case.pretrained:
        spec["init"] = taught(spec, case, table, kept)
    recipe = parse_recipe(spec)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(recipe, table, folder=Path(folder), voice=Silent(), cache=open_cache(recipe.training))
        model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task)
        if begun := open_init(recipe, prepared.plans):
            load_init(begun, model)
        loop.keep_frozen(prepared, model, Silent())
        rows = np.arange(table.n_rows)
        made = embed(model, {}, prepared.reader, rows, kept / "pooled", batch_size=32, voice=Silent(), title="")
    pooled = {f"pooled{m}": v for m, v in enumerate(made.pooled)}
    np.savez(file, present=made.present_NM, targets=made.targets, **pooled)
    return made


def taught(spec: dict[str, Any], case: Case, table: Table, kept: Path) -> str:
    """The folder of encoders that all rows taught; the target is not in the table that they see."""
    folder = kept / "pretrained"
    if not folder.exists():
        bare = table.take(np.arange(table.n_rows), [c for c in table.columns if c != case.target])
        spec = {**spec, "split": {"kind": "random", "val": 0.1, "test": 0.0}}
        api.pretrain(spec, table=bare, out=kept / "making", quiet=True)
        (kept / "making").rename(folder)
    return str(folder)


def split_of(y_N: np.ndarray, seed: int, group_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Test rows and the pool, both shuffled; a share of each class is tested, or a share of the groups."""
    rng = np.random.default_rng(seed)
    if group_N is not None:
        names = rng.permutation(np.unique(group_N))
        test = rng.permutation(np.flatnonzero(np.isin(group_N, names[: round(TEST * len(names))])))
    else:
        test = np.concatenate(
            [rng.permutation(np.flatnonzero(y_N == k))[: round(TEST * (y_N == k).sum())] for k in set(y_N)]
        )
    return test, rng.permutation(np.setdiff1d(np.arange(len(y_N)), test))


class Inner:
    """A linear probe over the embeddings of some rows, as `fusion.estimator: linear_probe` fits it."""

    def __init__(self, all_rows: Embedded, task: Classification, train: np.ndarray, seed: int) -> None:
        parts = [centred(p[train][all_rows.present_NM[train, m]], unit=True) for m, p in enumerate(all_rows.pooled)]
        fusion = SideBySide(parts, names=tuple(f"input{m}" for m in range(len(parts))))
        self.features_NF = features_of(fusion, all_rows)
        rows = Rows(self.features_NF[train], all_rows.targets[train], np.ones(len(train)))
        made = linear_probe(task, rows, np.arange(len(train)), None, seed=seed)
        self.head, self.task = LinearHead(task, made.arrays), task

    def chances(self, rows: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            logits = self.head.answer(torch.from_numpy(self.features_NF[rows]))["logits"].numpy()
        return self.task.scale({"logits": logits})

    def macro_f1(self, test: np.ndarray, targets: np.ndarray) -> float:
        logits = np.log(np.maximum(self.chances(test), 1e-30))
        return float(self.task.score(targets[test], {"logits": logits}, details=False).metrics["macro_f1"].value)


def pick(method: str, inner: Inner, pool: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Rows of the pool, as `fuseline suggest` chooses them."""
    rng = np.random.default_rng(seed)
    if method == "random":
        places = rng.permutation(len(pool))[:BATCH]
    elif method == "diversity":
        places, _ = k_center(inner.features_NF[pool], BATCH, inner.features_NF[train])
    elif method == "badge":
        places, _ = badge(inner.chances(pool), inner.features_NF[pool], BATCH, rng)
    else:
        places = highest(unsure(inner.chances(pool), method, several=False), BATCH)
    return pool[places]


def curves(
    name: str,
    rows: Embedded,
    task: Classification,
    group_N: np.ndarray | None,
    seeds: int,
    kept: Path,
    out: str | None,
) -> None:
    y_N = rows.targets.astype(int)
    found: dict[str, list[list[float]]] = {m: [] for m in METHODS}
    for seed in range(seeds):
        test, shuffled = split_of(y_N, seed, group_N)
        for method in METHODS:
            note = kept / f"curve-{seed}-{method}.json"
            if note.exists():
                found[method].append(json.loads(note.read_text()))
                continue
            train, pool, scores = shuffled[:START], shuffled[START:], []
            for turn in range(ROUNDS + 1):
                inner = Inner(rows, task, train, seed)
                scores.append(inner.macro_f1(test, y_N))
                if turn < ROUNDS:
                    taken = pick(method, inner, pool, train, 100 * seed + turn)
                    train, pool = np.concatenate([train, taken]), np.setdiff1d(pool, taken)
            found[method].append(scores)
            note.write_text(json.dumps(scores))
            print(f"seed {seed} {method}: {[round(s, 3) for s in scores]}", file=sys.stderr, flush=True)
    table = []
    for method, runs in found.items():
        area = [statistics.mean(s) for s in runs]
        more = [a - b for a, b in zip(area, (statistics.mean(s) for s in found["random"]), strict=True)]
        table.append(
            {
                "method": method,
                **{f"{START + BATCH * t} rows": f"{statistics.mean(s[t] for s in runs):.3f}" for t in (0, 2, 4, 6)},
                "area": f"{statistics.mean(area):.3f}",
                "over random": spread(more) if method != "random" else "",
                "better in": f"{sum(m > 0 for m in more)} of {seeds}" if method != "random" else "",
            }
        )
    tell(f"{name}: macro-F1 of {len(split_of(y_N, 0, group_N)[0])} test rows, {seeds} seeds", table, out)


def spread(values: list[float]) -> str:
    """The mean and a 95 % interval of it."""
    if len(values) < 2:
        return f"{values[0]:+.3f}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.3f} ± {half:.3f}"


def full(table: Table, y_N: np.ndarray, rounds: int, kept: Path, out: str | None) -> None:
    """One seed of what a user does, with packages and tables."""
    test, shuffled = split_of(y_N, 0)
    frame = table.take(np.arange(table.n_rows)).with_columns(pl.lit("train").alias("part"))
    classes = sorted(set(frame[STAMPS.target]))
    recipe = {
        "inputs": STAMPS.inputs,
        "task": {"kind": "classification", "target": STAMPS.target, "classes": classes},
        "split": {"kind": "given", "column": "part", "val": 0.0},
        "fusion": {"kind": "stacked", "estimator": "linear_probe"},
        "training": {"precision": "float32", "loggers": [], "cache_folder": str(kept.absolute() / "tokens")},
        "table": {"media_root": str(table.folder)},
        "evaluation": {**LEAN, "export": True},
    }
    tested = frame[test.tolist()].with_columns(pl.lit("test").alias("part"))
    rows = []
    for by in ("random", "badge"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            train, pool = folder / "train-0.csv", folder / "pool-0.csv"
            pl.concat([frame[shuffled[:START].tolist()], tested]).write_csv(train)
            frame[shuffled[START:].tolist()].with_columns(pl.lit(None, pl.String).alias(STAMPS.target)).write_csv(pool)
            truth = frame[shuffled[START:].tolist()]
            scores, spent = [], 0.0
            for turn in range(rounds + 1):
                run = api.train({**recipe}, table=train, out=folder / f"run-{turn}", quiet=True)
                scores.append(run.score("macro_f1"))
                print(f"full {by} round {turn}: {scores[-1]:.3f}", file=sys.stderr, flush=True)
                if turn == rounds:
                    break
                label = folder / f"label-{turn}.csv"
                start = time.perf_counter()
                made = api.suggest(run.folder, pool, BATCH, by=by, seed=turn, out=label, quiet=True)
                spent += time.perf_counter() - start
                answers = truth[made.rows][STAMPS.target]
                pl.read_csv(label, infer_schema=False).with_columns(answers.alias(STAMPS.target)).write_csv(label)
                left = folder / f"pool-{turn + 1}.csv"
                new = folder / f"train-{turn + 1}.csv"
                api.take_labels(run.folder, label, train, new, pool=pool, rest=left)
                truth = truth[[i for i in range(truth.height) if i not in set(made.rows)]]
                train, pool = new, left
            per = f"{spent / rounds:.1f}"
            rows.append({"method": by, **{f"round {i}": round(s, 3) for i, s in enumerate(scores)}, "suggest, s": per})
    tell("stamps: rounds of train, suggest, take_labels; macro-F1, one seed", rows, out)


def fewshot(
    table: Table, y_N: np.ndarray, seeds: int, epochs: int, only: list[str], kept: Path, out: str | None
) -> None:
    classes = sorted(set(table.column(STAMPS.target).to_list()))
    heads: dict[str, Any] = {
        "end to end": {"kind": "attention"},
        "trees": {"kind": "stacked", "estimator": "trees"},
        "linear_probe": {"kind": "stacked", "estimator": "linear_probe"},
        "prototypes": {"kind": "stacked", "estimator": "prototypes"},
        "prototypes, euclidean": {"kind": "stacked", "estimator": "prototypes", "linear": {"distance": "euclidean"}},
    }
    heads = {name: fusion for name, fusion in heads.items() if not only or name in only}
    base = {
        "inputs": STAMPS.inputs,
        "task": {"kind": "classification", "target": STAMPS.target, "classes": classes},
        "split": {"kind": "stratified", "val": 0.0, "test": 0.3},
        "training": {
            "epochs": epochs,
            "precision": "float32",
            "loggers": [],
            "learning_rate": 1e-3,
            "cache_folder": str(kept.absolute() / "tokens"),
        },
        "evaluation": {**LEAN, "parts": ["test"]},
    }
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for seed in range(seeds):
        test, shuffled = split_of(y_N, seed)
        for shots in SHOTS:
            train = np.concatenate([shuffled[y_N[shuffled] == k][:shots] for k in set(y_N)])
            part = np.full(len(y_N), -1, np.int8)
            part[train], part[test] = 0, 2
            for name, fusion in heads.items():
                note = kept / f"shots-{seed}-{shots}-{name}.json"
                if note.exists():
                    found.setdefault((shots, name), []).append(tuple(json.loads(note.read_text())))
                    continue
                training = {**base["training"], "seed": seed}
                with tempfile.TemporaryDirectory() as folder:
                    recipe = {**base, "fusion": fusion, "training": training}
                    split = Split(part, [])
                    run = api.train(recipe, table=table, out=Path(folder) / "r", split=split, quiet=True)
                    pair = (run.score("macro_f1"), run.score("log_loss"))
                found.setdefault((shots, name), []).append(pair)
                note.write_text(json.dumps(pair))
                print(f"seed {seed}, {shots} rows, {name}: {pair[0]:.3f}", file=sys.stderr, flush=True)
    rows = []
    for name in heads:
        row: dict[str, Any] = {"head": name}
        for shots in SHOTS:
            values = [v[0] for v in found[shots, name]]
            row[f"{shots} a class"] = spread(values).lstrip("+")
            row[f"log loss, {shots}"] = f"{statistics.mean(v[1] for v in found[shots, name]):.2f}"
        rows.append(row)
    tell(f"stamps: macro-F1 by rows a class, {seeds} seeds", rows, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="curves,full,fewshot", help="what is measured")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2, help="of full")
    parser.add_argument("--heads", default="", help="of fewshot, with semicolons; default: all")
    parser.add_argument("--epochs", type=int, default=30, help="of end to end in fewshot")
    parser.add_argument("--keep", default="build/active", type=Path, help="folder for what was made")
    parser.add_argument("--out")
    parser.add_argument("--table", choices=list(CASES), default="stamps", help="of curves; the others are of stamps")
    args = parser.parse_args()
    parts, case = args.parts.split(","), CASES[args.table]
    if args.table != "stamps" and parts != ["curves"]:
        parser.error(f"--table {args.table} knows --parts curves alone")
    args.keep.mkdir(parents=True, exist_ok=True)
    table = Table.open(DATA / args.table / "table.csv")
    labels = table.column(case.target).to_list()
    classes = sorted(set(labels))
    y_N = np.array([classes.index(v) for v in labels])
    if "curves" in parts:
        config = Classification.Config.model_validate({"target": case.target, "classes": classes})
        task = Classification.fit(config, {case.target: labels})  # type: ignore[arg-type]
        group_N = np.array([str(v) for v in table.column(case.group).to_list()]) if case.group else None
        curves(args.table, embedded(case, table, args.keep), task, group_N, args.seeds, args.keep, args.out)
    if "fewshot" in parts:
        only = [name.strip() for name in args.heads.split(";") if name.strip()]
        fewshot(table, y_N, args.seeds, args.epochs, only, args.keep, args.out)
    if "full" in parts:
        full(table, y_N, args.rounds, args.keep, args.out)


if __name__ == "__main__":
    main()
