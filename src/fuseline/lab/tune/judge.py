"""By which metric trials are judged, and which way is up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.build import build_model
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import prepare
from fuseline.progress import Voice
from fuseline.recipe import Recipe
from fuseline.tasks.decoding import watched

ROWS = 8


@torch.inference_mode()
def judged_by(recipe: Recipe, table: Table, voice: Voice, cache: Cache) -> tuple[str, bool]:
    """The validation metric's name and whether more of it is better. Reads the table once, as training would.

    Raises FuselineError ``no_validation``, ``bad_recipe`` on a metric that the task does not have, and all that
    preparing raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(recipe, table, folder=Path(folder), voice=voice, cache=cache)
    if not len(prepared.rows("val")):
        message = "a search is judged on validation rows, and the split leaves none"
        raise FuselineError("no_validation", message, "set split.val, e.g. 0.15: the test rows stay unseen")
    name = watched(prepared.task) if recipe.training.metric == "auto" else recipe.training.metric
    model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task).eval()
    batch = prepared.reader.batch(prepared.rows("val")[:ROWS])
    assert batch.targets is not None
    outputs = model.head.validation(model(batch.arrays, batch.present_BM), batch.targets)
    numbers = {k: np.asarray(v.numpy()) for k, v in outputs.items()}
    metrics = prepared.task.score(batch.targets.numpy(), numbers, details=False).metrics
    if name not in metrics:
        raise FuselineError("bad_recipe", f"training.metric: no metric {name!r}", f"known: {', '.join(metrics)}")
    return name, metrics[name].higher_is_better
