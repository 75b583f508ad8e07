"""`stamps`: the English description of an object never seen, written from its picture and its name spoken in French.

The objects are split five ways; pictures of one object (`frog`, `frog-1`) and equal descriptions stay together. Beside
the models stands the copy of the nearest training description: that of the picture with the most similar pretrained
embedding.

    python benchmarks/stamps_texts.py --folds 5 --out stamps_texts.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache
from fuseline.tasks import text_metrics

IMAGE = {"modality": "image", "encoder": {"kind": "efficientnet-lite0", "tune": "frozen", "tokens": "pooled"}}
SPEECH = {"modality": "audio", "max_seconds": 4.0, "encoder": {"kind": "small"}}
INPUTS: dict[str, dict[str, Any]] = {
    "image + speech": {"image": IMAGE, "speech_fr": SPEECH},
    "image": {"image": IMAGE},
    "speech": {"speech_fr": SPEECH},
}
BASE: dict[str, Any] = {
    "task": {
        "kind": "generation",
        "target": "description",
        "max_length": 48,
        "vocab_size": 1000,
        "label_smoothing": 0.1,
        "decoder": {"kind": "small", "width": 128, "layers": 2, "dropout": 0.2, "token_dropout": 0.2},
        "decoding": {"strategy": "beam", "beams": 4, "no_repeat": 4},
    },
    "fusion": {"kind": "attention", "modality_dropout": 0.3},
    "training": {
        "epochs": 30,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "precision": "float32",
        "patience": 6,
        "loggers": [],
    },
    "evaluation": LEAN,
}
METRICS = ("bleu", "chrf", "rougeL", "exact")


def objects(table: pl.DataFrame) -> np.ndarray:
    """Number of each row's object: rows that share a path but for its last number, or a description, are one."""
    parent = list(range(table.height))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, (path, text) in enumerate(zip(table["path"], table["description"], strict=True)):
        keys = [("path", re.sub(r"[-_ ]?\d+$", "", path))] + ([("text", text)] if text else [])
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    return np.array([root(i) for i in range(table.height)])


def splits(table: pl.DataFrame, folds: int = 5, val: float = 0.12) -> list[Split]:
    """Test parts of whole objects; of the other objects some validate. Rows without a description take no part."""
    groups = objects(table)
    names = np.unique(groups)
    order = np.random.default_rng(0).permutation(names)
    lacking = table["description"].is_null().to_numpy()
    out = []
    for fold in range(folds):
        test = order[fold::folds]
        rest = np.random.default_rng(fold).permutation(np.setdiff1d(order, test))
        part = np.zeros(table.height, np.int8)
        part[np.isin(groups, rest[: round(val * len(rest))])] = 1
        part[np.isin(groups, test)] = 2
        part[lacking] = -1
        out.append(Split(part, []))
    return out


def copied(table: Table, split: Split, keep: Cache) -> dict[str, float]:
    """Scores of the nearest training description, by cosine of the pretrained picture embeddings."""
    from fuseline.lab.encoders.image_pretrained import EfficientNetLite0
    from fuseline.modalities import MediaRoot
    from fuseline.modalities.image import Image, ImageConfig

    frame = table.take(np.arange(table.n_rows), ["image", "description"])
    config = EfficientNetLite0.Config(tokens="pooled")
    media = MediaRoot(str(table.folder))
    image = Image.fit(ImageConfig(**EfficientNetLite0.cell_options(config)), {"image": ""}, (), media)
    encoder = EfficientNetLite0(config, image).eval()
    import torch

    vectors = []
    with torch.no_grad():
        for start in range(0, table.n_rows, 32):
            values = [image.parse({"image": cell}, media) for cell in frame["image"][start : start + 32]]
            arrays = {k: torch.from_numpy(v) for k, v in image.collate(values).items()}
            vectors.append(encoder(**arrays).values_BTD.mean(dim=1).numpy())
    unit = np.concatenate(vectors)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    train, test = np.flatnonzero(split.part == 0), np.flatnonzero(split.part == 2)
    nearest = train[(unit[test] @ unit[train].T).argmax(axis=1)]
    texts = frame["description"].to_list()
    return scores([texts[i] for i in nearest], [texts[i] for i in test])


def scores(answers: list[str], wanted: list[str]) -> dict[str, float]:
    once = np.ones((1, len(wanted)))
    return {
        "bleu": float(text_metrics.bleu(once @ text_metrics.bleu_counts(answers, wanted, "13a"))[0]),
        "chrf": float(text_metrics.chrf(once @ text_metrics.chrf_counts(answers, wanted))[0]),
        "rougeL": float(text_metrics.rouge(answers, wanted)["rougeL"].mean()),
        "exact": float(np.mean([a == b for a, b in zip(answers, wanted, strict=True)])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five are run")
    parser.add_argument("--only", action="append", choices=list(INPUTS))
    parser.add_argument("--change", default="{}", help="JSON of recipe sections to merge, e.g. {'training': {...}}")
    parser.add_argument("--show", type=int, default=0, help="answers of the first fold to print")
    parser.add_argument("--out")
    args = parser.parse_args()
    table = Table.open(DATA / "stamps" / "table.csv")
    keep, found = Cache(1024), {}
    change = json.loads(args.change)
    base = {k: {**v, **change.get(k, {})} for k, v in BASE.items()}
    frame = table.take(np.arange(table.n_rows), ["path", "description"])
    for fold, split in enumerate(splits(frame)[: args.folds]):
        found.setdefault("copy of the nearest", []).append({**copied(table, split, keep), "seconds": 0.0})
        for name in args.only or INPUTS:
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                recipe = {**base, "inputs": INPUTS[name], "table": {"media_root": str(table.folder)}}
                run = api.train(recipe, table=table, out=Path(folder) / "run", split=split, cache=keep, quiet=True)
                values = {k: run.metrics["parts"]["test"]["metrics"][k]["value"] for k in METRICS}
                said = pl.read_parquet(run.folder / "predictions.parquet").filter(pl.col("part") == "test")
                best = run.record.get("best", {})
            found.setdefault(name, []).append({**values, "seconds": time.perf_counter() - start})
            print(f"fold {fold} {name}: {found[name][-1]}, best at {best}", file=sys.stderr, flush=True)
            if fold == 0:
                for row in said.head(args.show).iter_rows(named=True):
                    print(f"   {row['target']!r} <- {row['value']!r}", file=sys.stderr)
        print(f"fold {fold} copy: {found['copy of the nearest'][-1]}", file=sys.stderr, flush=True)
    rows = []
    for name, runs in found.items():
        means = {k: round(float(np.mean([r[k] for r in runs])), 4) for k in (*METRICS, "seconds")}
        rows.append({"variant": name, "folds": len(runs), **means})
    tell("stamps, description of objects never seen", rows, args.out)


if __name__ == "__main__":
    main()
