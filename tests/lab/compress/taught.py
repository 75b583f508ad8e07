"""Small prepared tables and models for the tests of training under a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import torch

from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.model import FusionModel
from fuseline.lab.training import loop
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe

TRAINING = {"epochs": 16, "batch_size": 16, "learning_rate": 3e-3, "precision": "float32", "loggers": []}
FUSION = {"kind": "attention", "width": 32, "layers": 2, "modality_dropout": 0.1}


def rows(folder: Path, count: int = 80) -> Path:
    """A made table whose labels lie in every fourth row; `true` holds what they would be."""
    path = made.make_table(folder, count, seed=3, absent=0.2)
    frame = pl.read_csv(path, infer_schema_length=None)
    lies = pl.int_range(pl.len()) % 8 < 2
    other = pl.when(pl.col("sick") == "yes").then(pl.lit("no")).otherwise(pl.lit("yes"))
    frame.with_columns(true="sick", sick=pl.when(lies).then(other).otherwise("sick")).write_csv(path)
    return path


def prepared(path: Path, names: tuple[str, ...] = ("note", "vitals"), **changes: Any) -> Prepared:
    training = {**TRAINING, **changes.pop("training", {})}
    spec = {"fusion": FUSION, "training": training, "inputs": {n: made.INPUTS[n] for n in names}}
    spec = {**spec, "split": {"kind": "stratified", "val": 0.25, "test": 0.1}, **changes}
    spec = {**spec, "task": {"kind": "classification", "target": "true"}, **changes}
    recipe = parse_recipe(made.recipe(path, **spec))
    return prepare(recipe, Table.open(path), folder=path.parent, voice=Silent(), cache=Cache(64))


def fresh(ready: Prepared) -> FusionModel:
    return build_model(ready.recipe, ready.plans, ready.parser.modalities, ready.task).eval()


def trained(ready: Prepared, folder: Path) -> FusionModel:
    """To the end, whatever the few validation rows say: its answers are sharp."""
    model = fresh(ready)
    folder.mkdir(parents=True)
    ready = replace(ready, part=np.where(ready.part == 1, -1, ready.part).astype(np.int8))
    loop.fit(ready, model, folder, Silent(), resume=False, precision="float32")
    return model.eval()


def frozen(ready: Prepared, *names: str) -> Prepared:
    """As if these inputs' encoders were pretrained and frozen."""
    plans = {n: replace(p, tune="frozen") if n in names else p for n, p in ready.plans.items()}
    return replace(ready, plans=plans)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def copied(model: FusionModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}
