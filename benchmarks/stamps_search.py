"""`stamps`: find the picture that a description or a spoken French name belongs to, and the other way round.

Five folds by description, so that no object of a test fold was seen in training, nor one of the same description. The
candidates are all rows of the test fold that have both sides (about 160). Against:

- chance: an order drawn by lot (several rows may share a description: either is right)
- `minilm`, one encoder: cosine of the description and of the picture's category, the one word that a folder of pictures
  comes with. A text encoder sees no picture, and `path` all but spells the description.
- two frozen encoders, nothing learned: a picture is the mean `minilm` vector of the descriptions of the ten training
  pictures that look most like it to `efficientnet-lite0` (Norouzi et al. 2014 do so with classes)

    python benchmarks/stamps_search.py
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
import torch
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.build import plan_inputs
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import fold_rows
from fuseline.modalities import MediaRoot, modality_class
from fuseline.recipe import parse_recipe
from fuseline.tasks.ranking import place
from fuseline.vectors.folder import unit

DESCRIPTION = {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}}
IMAGE = {"modality": "image", "encoder": {"kind": "efficientnet-lite0", "tune": "frozen", "tokens": "pooled"}}
SPEECH = {"modality": "audio", "max_seconds": 2.5, "encoder": {"kind": "small", "channels": [16, 32, 64]}}
BASE: dict[str, Any] = {
    "split": {"kind": "group", "group": "description", "folds": 5},
    "fusion": {"kind": "sum", "width": 256, "input_dropout": 0.5, "head_dropout": 0.1},
    "training": {
        "epochs": 60,
        "patience": 60,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "precision": "float32",
        "loggers": [],
    },
    "evaluation": {**LEAN, "degradation": True},
}
MODELS: dict[str, dict[str, Any]] = {
    "description": {"inputs": {"description": DESCRIPTION, "image": IMAGE}, "task": {"locked": "left"}},
    "description, not locked": {"inputs": {"description": DESCRIPTION, "image": IMAGE}},
    "speech_fr": {"inputs": {"speech_fr": SPEECH, "image": IMAGE}, "training": {"epochs": 20}},
    "description + speech_fr": {
        "inputs": {"description": DESCRIPTION, "speech_fr": SPEECH, "image": IMAGE},
        "training": {"epochs": 20},
    },
}
SHOWN = ("recall_at_1", "recall_at_5", "recall_at_10")
WAYS = ("left_to_right", "right_to_left")
NEIGHBOURS, SHARPNESS = 10, 20.0

Figures = dict[str, float]


def recipe_of(model: dict[str, Any], seed: int) -> dict[str, Any]:
    left = [name for name in model["inputs"] if name != "image"]
    out = {**BASE, **model}
    out["task"] = {"kind": "retrieval", "left": left, "right": ["image"], **model.get("task", {})}
    out["training"] = {**BASE["training"], **model.get("training", {}), "seed": seed}
    return out


def trained(model: dict[str, Any], table: Table, splits: list[Any], keep: Cache, seed: int) -> dict[str, list[Figures]]:
    """The test metrics of every fold, by the inputs that were there."""
    found: dict[str, list[Figures]] = {}
    for fold, split in enumerate(splits):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            recipe = {**recipe_of(model, seed), "table": {"media_root": str(table.folder)}}
            run = api.train(recipe, table=table, out=Path(folder) / "run", split=split, cache=keep, quiet=True)
            entries = run.metrics["degradation"]
        for entry in entries:
            figures = {k: m["value"] for k, m in entry["metrics"].items()}
            if "image" in entry["present"] and len(entry["present"]) > 1:
                name = " + ".join(n for n in entry["present"] if n != "image")
                found.setdefault(name, []).append(figures)
                shown = ", ".join(f"{figures[f'{k}_{w}']:.3f}" for w in WAYS for k in SHOWN)
                print(
                    f"fold {fold} {name}: {shown} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True
                )
    return found


def frozen(table: Table, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Each input's one frozen token, unit length, all rows."""
    recipe = parse_recipe({"inputs": inputs, "task": {"kind": "classification", "target": "category"}})
    media, out = MediaRoot(str(table.folder)), {}
    for name, plan in plan_inputs(recipe).items():
        column = recipe.columns_of(name)[0]
        cells = [{column: cell} for cell in table.column(column).to_list()]
        modality = modality_class(plan.modality).fit(plan.modality_config, {column: ""}, cells, media)
        encoder = plan.encoder_class(plan.encoder_config, modality).eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(cells), 32):
                arrays = modality.collate([modality.parse(cell, media) for cell in cells[start : start + 32]])
                parts.append(encoder(**{k: torch.from_numpy(v) for k, v in arrays.items()}).values_BTD[:, 0].numpy())
        out[name] = unit(np.concatenate(parts))
    return out


def figures(left: np.ndarray, right: np.ndarray, same: np.ndarray) -> Figures:
    alone = np.arange(len(same))
    ways = {"left_to_right": place(left, right, same, alone), "right_to_left": place(right, left, alone, same)}
    return {f"{name}_{way}": float(v.mean()) for way, values in ways.items() for name, v in values.items()}


def untrained(table: Table, splits: list[Any]) -> dict[str, list[Figures]]:
    vectors = frozen(
        table,
        {"description": DESCRIPTION, "category": {**DESCRIPTION, "column": "category"}, "image": IMAGE},
    )
    texts = table.column("description").to_list()
    has = np.array([text is not None for text in texts])
    _, same = np.unique([text or "" for text in texts], return_inverse=True)
    found: dict[str, list[Figures]] = {"chance": [], "minilm: the picture's category": [], "two frozen encoders": []}
    for split in splits:
        test, train = (np.flatnonzero(has & some) for some in (split.part == 2, split.part < 2))
        text = vectors["description"][test]
        nothing = np.zeros((len(test), 1))
        alike = vectors["image"][test] @ vectors["image"][train].T
        near = np.argsort(-alike, axis=1)[:, :NEIGHBOURS]
        weight = np.exp(SHARPNESS * np.take_along_axis(alike, near, 1))
        stands = unit((weight[..., None] * vectors["description"][train][near]).sum(axis=1))
        pairs = ((nothing, nothing), (text, vectors["category"][test]), (text, stands))
        for name, (left, right) in zip(found, pairs, strict=True):
            found[name].append(figures(left, right, same[test]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=5, help="run only the first so many")
    parser.add_argument("--only", choices=sorted(MODELS), action="append", help="train only this")
    parser.add_argument("--out")
    args = parser.parse_args()
    table = Table.open(DATA / "stamps" / "table.csv")
    keep = Cache(1024)
    splits = fold_rows(parse_recipe(recipe_of(MODELS["description"], args.seed)), table)[: args.folds]
    lines: dict[str, list[Figures]] = untrained(table, splits)
    for name in args.only or MODELS:
        model = MODELS[name]
        for seen, values in trained(model, table, splits, keep, args.seed).items():
            lines[f"trained on {name}; asked by {seen}"] = values
    rows = []
    for name, values in lines.items():
        row: dict[str, Any] = {"model": name}
        for way, arrow in zip(WAYS, ("→ image", "image →"), strict=True):
            for k in SHOWN:
                mean = statistics.mean(v[f"{k}_{way}"] for v in values)
                row[f"{arrow} {k.replace('recall_at_', 'R@')}"] = f"{mean:.3f}"
        rows.append(row)
    tell("stamps, retrieval on objects never seen", rows, args.out)


if __name__ == "__main__":
    main()
