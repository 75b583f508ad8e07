"""What is to be compressed: a package as a torch model again, with the rows that trained it and those held out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.data.windows import Windows
from fuseline.errors import FuselineError
from fuseline.lab.build import Plan, build_model, plan_inputs
from fuseline.lab.compress.crop import crop
from fuseline.lab.compress.shapes import fit_shapes
from fuseline.lab.export.parity import difference
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.options import boosts, stacked_config
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import Prepared, fold_rows, set_apart, split_rows
from fuseline.lab.training.reader import Reader
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import RowParser
from fuseline.package import Package, read_member
from fuseline.progress import Voice
from fuseline.recipe import Recipe
from fuseline.runtime import load
from fuseline.tasks import Task, task_class

WEIGHTS = "weights.safetensors"
HELD_BACK = 0.2
"""share of the training rows that stand in where the run kept no validation rows"""


@dataclass
class Subject:
    """A package opened for compression. `prepared` has the package's own parser and task, never refitted ones."""

    package: Package
    model: FusionModel
    prepared: Prepared

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names


def open_subject(package: Package, table: Table, *, cache: Cache, voice: Voice, split: Split | None = None) -> Subject:
    """Rebuild the torch model of a package and read its table.

    Args:
        package: of float weights.
        table: the table that the model was trained on; the recipe's split divides it again, into the same parts.
        cache: for decoded cells.
        voice: progress of reading.
        split: the parts, where the run was given a split of its own.

    Raises:
        FuselineError: ``already_quantised``, ``cannot_rebuild`` where the model's sources are not on this machine or
            the rebuilt model answers otherwise than the package, ``missing_column``, ``empty_table``.
    """
    recipe = package.recipe
    parser = RowParser.from_states(recipe, package.columns)
    task: Task = task_class(package.task["kind"]).from_state(package.task["state"])
    plans = plan_inputs(recipe)
    model = rebuild(package, plans, parser, task)
    table.require([*parser.columns, *parser.by, *task.columns])
    if split is None:
        split = split_of(recipe, table, package.folder)
    media = MediaRoot(recipe.table.media_root or (str(table.folder) if table.folder else None))
    reader = Reader(table, parser, task, media, cache)
    prepared = Prepared(recipe, table, split.part.copy(), plans, parser, task, reader, list(split.notes), {})
    _leave_out_unreadable(prepared, voice)
    _hold_back(prepared)
    if recipe.split.group and recipe.split.group in table.columns:
        _, codes = np.unique(np.array([str(v) for v in table.column(recipe.split.group)]), return_inverse=True)
        prepared.groups = codes
    set_apart(prepared, table.store.blocks() if isinstance(table, Windows) else prepared.groups)
    _check(package, model, prepared)
    return Subject(package, model, prepared)


def rebuild(package: Package, plans: Mapping[str, Plan], parser: RowParser, task: Task) -> FusionModel:
    """The package's model in torch, in eval mode, cut as the package says it was."""
    if WEIGHTS not in package.manifest["members"] or "weights.bin" in package.manifest["members"]:
        raise FuselineError(
            "already_quantised",
            f"{package.name} holds no float weights: it was compressed to other numbers",
            f"compress the model that it came from{_parent(package)}",
        )
    if boosts(package.recipe):
        raise FuselineError(
            "cannot_rebuild",
            f"{package.name} answers by {_estimator(package)} (fusion: stacked), which nothing here makes smaller",
            "compress a model that was trained end to end, e.g. with fusion: attention; it is the encoders that cost",
        )
    # A package's adapters are merged into its weights.
    merged = {n: replace(p, tune="full" if p.tune == "lora" else p.tune, lora={}) for n, p in plans.items()}
    try:
        model = build_model(package.recipe, merged, parser.modalities, task)
    except FuselineError as error:
        raise FuselineError(
            "cannot_rebuild", f"the model cannot be built again: {error.message}", error.hint, column=error.column
        ) from error
    state: dict[str, Tensor] = load_tensors(read_member(package, WEIGHTS))
    crop(model, lineage(package).get("layers", {}))
    fit_shapes(model, state)
    missing, unexpected = model.load_state_dict(state, strict=False)
    lost = [name for name in missing if model.state_dict()[name].numel()]
    if lost or unexpected:
        raise FuselineError(
            "cannot_rebuild",
            f"the package's weights do not fit its recipe: {(lost or unexpected)[0]}",
            "was it written by another version of fuseline?",
        )
    return model.eval()


def lineage(package: Package) -> dict[str, Any]:
    """compression.json of a compressed package, {} of one that is whole."""
    found = package.read_json("compression.json")
    return found if isinstance(found, dict) else {}


def _estimator(package: Package) -> str:
    kind = stacked_config(package.recipe).estimator
    return {"linear_probe": "a linear probe", "prototypes": "class means"}.get(kind, "boosted trees")


def _parent(package: Package) -> str:
    parent = lineage(package).get("parent", {})
    return f": {parent['name']}, version {parent['version']}" if parent else ""


def split_of(recipe: Recipe, table: Table, folder: Path) -> Split:
    """The split that the run made: a function of its recipe and its table. Of a cross-validation, its own fold's."""
    if not recipe.split.folds:
        return split_rows(recipe, table)
    fold = re.fullmatch(r"fold-(\d+)", folder.resolve().parent.name)
    if fold is None:
        raise FuselineError(
            "bad_split",
            "the model is one fold of a cross-validation, and its folder does not say which",
            "give it as RUN/fold-0 (not copied elsewhere), or pass split=... from Python",
        )
    folds = fold_rows(recipe, table)
    if int(fold[1]) >= len(folds):
        raise FuselineError("bad_split", f"the recipe has {len(folds)} folds, not fold {fold[1]}", "")
    return folds[int(fold[1])]


def _leave_out_unreadable(prepared: Prepared, voice: Voice) -> None:
    """Rows that cannot be read or have no target are counted and left out."""
    part, bad, first, without = prepared.part, 0, "", 0
    used = np.flatnonzero(part >= 0)
    with voice.track("reading cells", len(used)) as advance:
        for start in range(0, len(used), 256):
            rows = prepared.reader.read(used[start : start + 256])
            for row in rows:
                if row.error is not None:
                    bad, first = bad + 1, first or str(row.error)
                    part[row.index] = -1
                elif row.target is None:
                    without += 1
                    part[row.index] = -1
            advance(len(rows))
    if bad:
        prepared.notes.append(f"{bad} rows that cannot be read are left out; the first: {first}")
    if without:
        prepared.notes.append(f"{without} rows without a target are left out")
    if not (part == 0).any():
        raise FuselineError("empty_table", "no training row is left", "give the table that the model was trained on")


def _hold_back(prepared: Prepared) -> None:
    """Where the run kept no validation rows, some of the training rows choose between candidates."""
    if len(prepared.rows("val")):
        return
    train, spec = prepared.rows("train"), prepared.recipe.split
    kinds: Any = prepared.recipe.split.model_copy(update={"val": HELD_BACK, "test": 0.0, "folds": 0})
    if spec.kind == "given" or len(train) < 10:
        kinds = kinds.model_copy(update={"kind": "random"})
    columns = [c for c in (*prepared.task.columns[:1], spec.group, spec.time) if c is not None]
    rows = Table.open(prepared.table.take(train, list(dict.fromkeys(columns or prepared.parser.columns))))
    part = split_rows(prepared.recipe.model_copy(update={"split": kinds}), rows).part
    prepared.part[train[part == 1]] = 1
    prepared.notes.append(
        f"the run kept no validation rows: {int((part == 1).sum())} of its training rows choose between candidates, "
        "which the model has seen: drops there look smaller than they are"
    )


@torch.no_grad()
def _check(package: Package, model: FusionModel, prepared: Prepared) -> None:
    """The rebuilt model is the package's, or nothing that follows means anything."""
    rows = np.flatnonzero(prepared.part >= 0)[:4]
    batch = prepared.reader.batch(rows)
    ours = model(batch.arrays, batch.present_BM)
    theirs = load(package.folder, threads=1).backend.run(
        {**{k: v.numpy() for k, v in batch.arrays.items()}, "present": batch.present_BM.numpy()}
    )
    gap = max(difference(theirs[name], value.numpy()) for name, value in ours.items())
    if not gap <= prepared.recipe.evaluation.tolerance:
        raise FuselineError(
            "cannot_rebuild",
            f"the model built from the recipe answers {gap:.2g} away from its package",
            "the pretrained weights of a frozen encoder may have changed since; train again",
        )


def table_of(folder: Path) -> Path | None:
    """The table that a run's folder (or that of its package) says it was trained on."""
    for place in (folder, folder.resolve().parent):
        try:
            path = json.loads((place / "run.json").read_text(encoding="utf-8"))["table"]["path"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return None if path is None else Path(path)
    return None
