"""One pretraining's folder, from the recipe to the weights. Killed at any moment, it goes on from its last checkpoint.

The folder: recipe.yaml, pretraining.json (how far it is), checkpoints/, history.csv, curve.svg, and at the
end weights.safetensors and pretrained.json (see folder.py).
"""

from __future__ import annotations

import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fuseline
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.augment.batch import make_augmenter
from fuseline.lab.build import build_model
from fuseline.lab.model import FusionModel
from fuseline.lab.pretrain.curve import write_curve
from fuseline.lab.pretrain.folder import WEIGHTS, write_facts
from fuseline.lab.pretrain.init import (
    describe_fusion,
    describe_input,
    in_folder,
    keep_copy,
    load_init,
    named_weights,
    open_init,
)
from fuseline.lab.pretrain.objective import Pretraining
from fuseline.lab.pretrain.rows import unlabelled_split
from fuseline.lab.pretrain.task import Unlabelled
from fuseline.lab.training import loop
from fuseline.lab.training.begin import begin
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.checkpoint import save_weights
from fuseline.lab.training.disk.where import open_cache
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.package.files import finite, write_json, write_text
from fuseline.progress import Voice
from fuseline.recipe import Recipe, dump_recipe

FILE = "pretraining.json"


@dataclass
class Progress:
    """What pretraining.json holds."""

    folder: Path
    data: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Progress:
        try:
            return cls(folder, dict(json.loads((folder / FILE).read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            hint = "start one with `fuseline pretrain RECIPE`"
            raise FuselineError("no_such_run", f"{folder} holds no pretraining", hint) from None

    def save(self, **more: Any) -> None:
        self.data |= more
        write_json(self.folder / FILE, finite(self.data))


def pretrain(
    recipe: Recipe,
    table: Table,
    folder: Path,
    *,
    voice: Voice,
    cache: Cache | None = None,
    split: Split | None = None,
    table_path: Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Learn encoders and fusion from a table's inputs. Returns what pretrained.json says of it as `learned`.

    Args:
        recipe: its `pretrain` says what is learned; its task is not, but the rows that it would test on are left out.
        table: N rows; target columns need not be there.
        folder: see the head of this file.
        voice: progress.
        cache: instead of the recipe's.
        split: instead of the recipe's; its test rows are not read.
        table_path: where the table came from, for resuming.
        resume: go on with what `folder` holds.

    Raises FuselineError on anything the user can mend, KeyboardInterrupt after Ctrl-C (then `resume` goes on).
    """
    own = _own_recipe(recipe)
    spec, names = own.pretrain, tuple(own.inputs)
    if len(names) == 1 and not spec.masked:
        raise FuselineError("bad_recipe", "pretrain.contrast needs two inputs, and there is one", "set pretrain.masked")
    if resume:
        progress = Progress.open(folder)
    else:
        progress = Progress(folder, {"stage": "started", "table": None if table_path is None else str(table_path)})
        progress.data["created"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        own = keep_copy(own, folder)
        write_text(folder / "recipe.yaml", dump_recipe(in_folder(own)))
        progress.save()
    clock = time.monotonic()
    split = split or unlabelled_split(own, table)
    split = Split(np.where(split.part == 2, -1, split.part).astype(np.int8), split.notes)
    task = Unlabelled(spec, names)
    cache = open_cache(own.training) if cache is None else cache
    prepared = prepare(own, table, folder=folder, voice=voice, cache=cache, split=split, task=task)
    if progress.data.get("table_digest", prepared.fingerprint()) != prepared.fingerprint():
        message = "the table is not the one that this pretraining started on"
        raise FuselineError("table_changed", message, "start a new one for a new table")
    present = _presence(prepared)
    _check_rows(prepared, present)
    kept = _whole_inputs(prepared, present["train"])
    model = build_model(own, prepared.plans, prepared.parser.modalities, prepared.task)
    loop.keep_frozen(prepared, model, voice)
    begun = open_init(own, prepared.plans)
    begin(model, own.training.seed, voice, but=() if begun is None else begun.taken)
    if begun is not None:
        load_init(begun, model)
        prepared.notes.append(begun.said)
    for note in prepared.notes:
        voice.say(f"· {note}")
    total, trainable = loop.parameters(model)
    rows = {part: len(prepared.rows(part)) for part in ("train", "val")}
    progress.save(table_digest=prepared.fingerprint(), notes=prepared.notes, rows=rows)
    voice.say(
        f"{rows['train']} rows to learn from, {rows['val']} held out · {trainable:,} of {total:,} parameters train"
    )
    width = describe_fusion(own, names)["width"]
    augmenter = make_augmenter(prepared.plans, prepared.parser.modalities, prepared.reader, own.training.seed)
    objective = Pretraining(model, spec, prepared.parser.modalities, width=width, augmenter=augmenter)
    precision = "float32" if own.training.precision == "auto" else own.training.precision
    trained = loop.fit(prepared, model, folder, voice, resume=resume, precision=precision, objective=objective)
    seconds = progress.data.get("prepare_seconds", 0.0) + time.monotonic() - clock - trained.seconds
    learned = _learned(prepared, trained, present, task)
    learned |= {"rows": rows, "parameters": {"total": total, "trainable": trainable}, "notes": prepared.notes}
    learned["seconds"] = {"prepare": round(max(0.0, seconds), 2), "train": round(trained.seconds, 2)}
    if begun is not None:
        learned["init"] = begun.to_dict()
    _write(own, prepared, kept, model, folder, finite(learned))
    write_curve(trained.history, learned, folder)
    progress.save(stage="done")
    return dict(finite(learned))


def _own_recipe(recipe: Recipe) -> Recipe:
    """The recipe with `pretrain`'s numbers in the place of `training`'s."""
    spec, training = recipe.pretrain, recipe.training
    changes = {
        "epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "learning_rate": spec.learning_rate or training.learning_rate,
        "patience": spec.patience,
        "metric": "auto",
        "mixup": 0.0,
        "adversarial": None,
    }
    return recipe.model_copy(update={"training": training.model_copy(update=changes)})


def _presence(prepared: Prepared) -> dict[str, np.ndarray]:
    """part -> (N, M): which inputs its rows have."""
    out = {}
    for part in ("train", "val"):
        rows = prepared.rows(part)
        read = (prepared.reader.read(rows[i : i + 256]) for i in range(0, len(rows), 256))
        found = [prepared.parser.present([r.values for r in some]) for some in read]
        out[part] = np.concatenate(found) if found else np.zeros((0, len(prepared.parser.names)), bool)
    return out


def _check_rows(prepared: Prepared, present: dict[str, np.ndarray]) -> None:
    train_NM = present["train"]
    if len(train_NM) < 2:
        raise FuselineError("empty_table", "one row has nobody to be told from", "pretraining needs two rows at least")
    if not train_NM.any():
        raise FuselineError("empty_table", "no training row has any input", "check the inputs' columns")
    spec = prepared.recipe.pretrain
    both = int((train_NM.sum(axis=1) > 1).sum())
    if train_NM.shape[1] > 1 and spec.contrast and both < 2:
        if not spec.masked:
            message = f"pretrain.contrast: {both} training rows have two inputs"
            raise FuselineError("bad_recipe", message, "set pretrain.masked, which learns from single inputs as well")
        prepared.notes.append(f"{both} training rows have two inputs: the contrast has nothing to learn from")


def _whole_inputs(prepared: Prepared, train_NM: np.ndarray) -> list[str]:
    """The inputs whose state is worth handing on. One that no training row has, or a group of columns of which one is
    empty, was fitted on nothing there: a later training that took this state would be blind to the cells that it has.

    Raises FuselineError ``empty_table`` where none is left.
    """
    rows, kept = prepared.rows("train"), []
    for m, (name, plan) in enumerate(prepared.plans.items()):
        empty = [] if train_NM[:, m].any() else [name]
        if plan.modality == "tabular" and not empty:
            frame = prepared.table.take(rows, list(prepared.parser.modalities[name].columns))
            empty = [column for column in frame.columns if frame[column].null_count() == frame.height]
        if empty:
            said = f"{name} is not handed on to `init`: no row to learn from has a value of {', '.join(empty)}"
            prepared.notes.append(said)
        else:
            kept.append(name)
    if not kept:
        hint = "give rows that have these values, or take the columns out of the recipe"
        raise FuselineError("empty_table", prepared.notes[-1], hint)
    return kept


def _learned(
    prepared: Prepared, trained: loop.Trained, present: dict[str, np.ndarray], task: Unlabelled
) -> dict[str, Any]:
    """The losses of the kept weights on held-out rows, in the words of task.py, and how recall would be by lot."""
    history = trained.history
    kept = history[trained.best["interval"]] if history else {}
    held = {k.removeprefix("val_"): v for k, v in kept.items() if k.startswith("val_")}
    first = {k.removeprefix("val_"): v for k, v in (history[0] if history else {}).items() if k.startswith("val_")}
    out = {"best": trained.best, "intervals": len(history), "held_out": held, "held_out_first": first}
    rows = prepared.rows("val")
    if task.pairs and len(rows):
        read = [row for i in range(0, len(rows), 256) for row in prepared.reader.read(rows[i : i + 256])]
        digests = np.stack([row.target for row in read if row.target is not None])
        out["chance"] = task.chance(digests, present["val"])
    return out


def _write(
    recipe: Recipe, prepared: Prepared, kept: list[str], model: FusionModel, folder: Path, learned: dict[str, Any]
) -> None:
    save_weights({k: t.detach().cpu().clone() for k, t in named_weights(model).items()}, folder / WEIGHTS)
    inputs = {
        name: {**describe_input(recipe, plan), "state": prepared.parser.modalities[name].state()}
        for name, plan in prepared.plans.items()
        if name in kept
    }
    facts = {
        "fuseline_version": fuseline.__version__,
        "inputs": inputs,
        "fusion": describe_fusion(recipe, tuple(prepared.plans)),
        "learned": learned,
    }
    write_facts(folder, json.loads(json.dumps(finite(facts))))
