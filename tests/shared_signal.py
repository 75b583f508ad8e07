"""A table whose inputs share a hidden class, and how well a linear probe on a model's encoders finds it.

Dimensions: N rows, M inputs, T tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.pretrain.init import load_init, open_init
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import prepare
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe

CLASSES = 5
RECIPE: dict[str, Any] = {
    "inputs": {
        "note": {
            "modality": "text",
            "max_length": 24,
            "vocab_size": 400,
            "encoder": {"kind": "small", "width": 32, "layers": 0},
        },
        "vitals": {
            "modality": "tabular",
            "columns": {"a": "number", "b": "number", "c": "number"},
            "encoder": {"kind": "small", "width": 32, "layers": 1},
        },
    },
    "task": {"kind": "classification", "target": "kind"},
    "fusion": {"kind": "concat", "width": 32},
    "split": {"kind": "stratified", "val": 0.15, "test": 0.4},
    "training": {"epochs": 2, "batch_size": 32, "precision": "float32", "loggers": []},
    "evaluation": {"bootstrap": 0, "export": False, "report": False, "degradation": False},
    "pretrain": {"epochs": 15, "batch_size": 64, "dim": 16, "learning_rate": 5e-3},
}


def signal_table(rows: int, *, labelled: bool = True, absent: float = 0.0, seed: int = 0) -> pl.DataFrame:
    """Notes of words of which half are the class's own, of many; numbers around the class's own middle. Each input
    alone says the class to who knows the words or the places."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(rows):
        kind = int(rng.integers(CLASSES))
        own, any_ = (f"w{kind}{rng.integers(10)}" for _ in range(4)), (f"x{rng.integers(30)}" for _ in range(4))
        a, b = np.cos(2 * np.pi * kind / CLASSES), np.sin(2 * np.pi * kind / CLASSES)
        row: dict[str, Any] = {
            "note": " ".join(rng.permutation([*own, *any_])),
            "a": float(a + rng.normal(0, 0.3)),
            "b": float(b + rng.normal(0, 0.3)),
            "c": float(rng.normal()),
            "kind": f"k{kind}",
        }
        if rng.random() < absent:
            row |= {"note": None} if rng.random() < 0.5 else {"a": None, "b": None, "c": None}
        out.append(row)
    frame = pl.DataFrame(out, infer_schema_length=None)
    return frame if labelled else frame.drop("kind")


@torch.no_grad()
def probe(table: Any, init: Path | None, folder: Path, labels: int) -> float:
    """Accuracy on the recipe's test rows of logistic regression on the frozen encoders' mean tokens."""
    recipe = parse_recipe({**RECIPE, "init": None if init is None else str(init)})
    prepared = prepare(recipe, Table.open(table), folder=folder, voice=Silent(), cache=Cache(16))
    model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task).eval()
    begun = open_init(recipe, prepared.plans)
    if begun is not None:
        load_init(begun, model)

    def seen(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = prepared.reader.batch(rows)
        parts = []
        for place, tokens in enumerate(model.encoded(batch.arrays).values()):
            real_BT1 = (tokens.mask_BT.bool() & batch.present_BM[:, place, None])[..., None]
            total_BD = torch.where(real_BT1, tokens.values_BTD, 0.0).sum(dim=1)
            parts.append(total_BD / real_BT1.sum(dim=1).clamp(min=1))
        assert batch.targets is not None
        return torch.cat(parts, dim=1).numpy(), batch.targets.numpy()

    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return float(line.fit(*seen(prepared.rows("train")[:labels])).score(*seen(prepared.rows("test"))))
