"""One package of a finished cross-validation: all folds' models, which answer by their mean.

Its metrics are out of fold: every row is answered by the one member that was not trained on it. Of the members
together nothing can be measured on the table, since each row trained some of them; a mean of several is on average no
worse than one of them (by Jensen's inequality for log loss and squared error), which is why it is worth making.

Dimensions: N rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.build import build_model
from fuseline.lab.encoders.tuning import merge_lora
from fuseline.lab.ensemble import model as mean
from fuseline.lab.ensemble.same import check_ensemble, check_tasks, joined
from fuseline.lab.export import export_package
from fuseline.lab.model import FusionModel
from fuseline.lab.training import loop
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.checkpoint import load_weights
from fuseline.lab.training.evaluate import Outputs, run_rows
from fuseline.lab.training.held_out import answers_profile, embedding_profile
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.lab.training.reader import Reader
from fuseline.lab.training.run import PARITY_ROWS
from fuseline.modalities import Modality
from fuseline.modalities.rows import RowParser
from fuseline.package import Package
from fuseline.package.files import finite
from fuseline.progress import Silent, Voice
from fuseline.recipe import Recipe
from fuseline.tasks import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.degradation import degradation, subsets

SHOWN = 256
"""rows whose embedding is kept in the profile"""


@dataclass
class Member:
    prepared: Prepared
    model: FusionModel
    outputs: Outputs
    """of its test rows, by the trained model as it was"""


def write_ensemble(
    recipe: Recipe, table: Table, splits: Sequence[Split], folder: Path, *, voice: Voice, cache: Cache
) -> tuple[Package, dict[str, Any]]:
    """`folder`/model.fuse from `folder`/fold-0, fold-1, ..., and its out-of-fold metrics.

    Raises FuselineError ``bad_recipe``, ``unlike_folds``, ``no_such_run``, ``parity``.
    """
    check_ensemble(recipe)
    members = [_member(recipe, table, split, folder / f"fold-{i}", voice, cache) for i, split in enumerate(splits)]
    tasks = [m.prepared.task for m in members]
    check_tasks(tasks)
    names = members[0].prepared.parser.names
    modalities: dict[str, Modality] = {}
    recodes: list[dict[str, mean.Recode]] = [{} for _ in members]
    for name in names:
        modalities[name], own = joined(name, [m.prepared.parser.modalities[name] for m in members])
        for i, recode in enumerate(own or ()):
            recodes[i][name] = recode
    parser = RowParser(recipe, modalities)
    metrics, found = _out_of_fold(members, tasks[0], voice)
    ensemble = mean.Ensemble([m.model for m in members], _mean_of(tasks[0]), recodes).eval()
    if ensemble.shared_names:
        voice.say(f"· computed once for all {len(members)} members: {', '.join(ensemble.shared_names)}")
    reader = Reader(table, parser, tasks[0], members[0].prepared.reader.media, cache)
    run = json.loads((folder / "fold-0" / "run.json").read_text(encoding="utf-8"))
    package = export_package(
        cast("FusionModel", ensemble),  # answers as one, and is all that the export asks of a model
        recipe=recipe,
        parser=parser,
        task=tasks[0],
        rows=_parsed(reader, found.rows),
        target=folder / "model.fuse",
        name=folder.name,
        run={**run, "name": folder.name, "members": len(members)},
        metrics=metrics,
        profile={**members[0].prepared.profile, **_profile(ensemble, reader, tasks[0], found)},
    )
    return package, metrics


def _member(recipe: Recipe, table: Table, split: Split, folder: Path, voice: Voice, cache: Cache) -> Member:
    weights = folder / "checkpoints" / "best.safetensors"
    if not weights.exists():
        raise FuselineError(
            "no_such_run", f"{folder} has no trained weights", f"go on with it: fuseline train --resume {folder.parent}"
        )
    with tempfile.TemporaryDirectory() as own:
        prepared = prepare(recipe, table, folder=Path(own), voice=Silent(), cache=cache, split=split)
    recorded = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if recorded.get("table_digest", prepared.fingerprint()) != prepared.fingerprint():
        raise FuselineError("table_changed", f"the table is not the one of {folder}", "give the folds' own table")
    model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task)
    load_weights(model, weights)
    loop.keep_frozen(prepared, model, Silent())
    wanted = subsets(model.names) if recipe.evaluation.degradation else [tuple(model.names)]
    size = max(64, recipe.training.batch_size)
    rows = prepared.rows("test")
    title = f"answering the rows held out of {folder.name}"
    outputs = run_rows(model, prepared.reader, rows, wanted, batch_size=size, voice=voice, title=title)
    model = model.cpu().float().eval()
    merge_lora(model)
    return Member(prepared, model, outputs)


def _out_of_fold(members: Sequence[Member], task: Task, voice: Voice) -> tuple[dict[str, Any], Outputs]:
    """What metrics.json holds, and every row's answer by the member that was not trained on it."""
    own = [m.outputs for m in members]
    rows = np.concatenate([o.rows for o in own])
    assert len(np.unique(rows)) == len(rows), "test parts are disjoint"
    by_subset = {
        s: {k: np.concatenate([o.by_subset[s][k] for o in own]) for k in first} for s, first in own[0].by_subset.items()
    }
    found = Outputs(
        rows,
        np.concatenate([o.targets for o in own]),
        np.concatenate([o.present_NM for o in own]),
        by_subset,
    )
    first = members[0].prepared
    spec, seed = first.recipe.evaluation, first.recipe.training.seed
    groups = None if first.groups is None else first.groups[rows]
    voice.say(f"scoring {len(rows)} rows out of fold")
    scores = task.score(found.targets, found.full, bootstrap=spec.bootstrap, seed=seed, groups=groups)
    degraded = []
    if spec.degradation:
        degraded = degradation(
            task,
            first.parser.names,
            found.present_NM,
            found.targets,
            found.by_subset,
            bootstrap=min(200, spec.bootstrap),
            seed=seed,
            groups=groups,
        )
    metrics = {
        "task": task.name,
        "metric": task.metric,
        "parts": {"test": finite(scores.to_dict())},
        "degradation": finite(degraded),
        "ensemble": {"members": len(members), "scored": "out of fold: each row by the member not trained on it"},
    }
    return metrics, found


def _mean_of(task: Task) -> Any:
    if not isinstance(task, Classification):
        return mean.mean_of_numbers
    return mean.mean_of_labels if task.mode == "multilabel" else mean.mean_of_classes


def _parsed(reader: Reader, rows: np.ndarray) -> list[Mapping[str, Any]]:
    """Rows to replay, from all folds."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(PARITY_ROWS, len(rows))).astype(int)]
    read = reader.read(chosen)
    for row in read:
        if row.error is not None:
            raise row.error
    return [row.values for row in read]


@torch.inference_mode()
def _profile(ensemble: mean.Ensemble, reader: Reader, task: Task, found: Outputs) -> dict[str, Any]:
    """What answers of unseen rows look like: out of fold. Embeddings are the members', of rows that most met."""
    rng = np.random.default_rng(reader.parser.recipe.training.seed)
    rows = np.sort(rng.choice(found.rows, min(SHOWN, len(found.rows)), replace=False))
    parts = [ensemble(b.arrays, b.present_BM)["embedding"].numpy() for b in reader.batches(rows, 64)]
    of = "out-of-fold rows"
    out = {
        "predictions": answers_profile(task.decode(found.full), of),
        "embedding": embedding_profile(np.concatenate(parts), rng, of),
    }
    return {k: finite(v) for k, v in out.items() if k not in reader.parser.names}
