"""Healing: a cut model learns for a short time to answer as it did when it was whole."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuseline.lab.build import Plan
from fuseline.lab.compress.distil import DistilConfig, Distillation, Keep
from fuseline.lab.compress.lesson import Lesson, key_of_training
from fuseline.lab.compress.teacher import Teacher, own_reader
from fuseline.lab.encoders.tuning import apply_tuning
from fuseline.lab.model import FusionModel
from fuseline.lab.training import loop
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.stream import steps_per_epoch
from fuseline.progress import Silent, Voice

STEPS = 200
"""steps that a heal takes where nothing is said, and at least EPOCHS epochs"""
EPOCHS = 3
PRETRAINED_RATE = 1e-4
"""learning rate of a pretrained encoder that has none of its own in the recipe"""
TRAIN_ROWS = 512
"""training rows at most that stand in for validation rows where there are none"""


@dataclass(frozen=True)
class Standing:
    """Where a model stands on held out rows, every input given: the head's loss, the metric, and the distance from the
    teacher's answers (None without a teacher)."""

    loss: float
    metric: float
    distance: float | None


@dataclass(frozen=True)
class HealReport:
    """What healing did. `rows`: the part that `before` and `after` are of."""

    parts: tuple[str, ...]
    epochs: int
    steps: int
    seconds: float
    precision: str
    trainable: int
    metric: str
    rows: str
    before: Standing
    after: Standing
    best_interval: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HealReport:
        found = {k: _standing(data[k]) for k in ("before", "after")}
        return cls(**{**data, **found, "parts": tuple(data["parts"]), "notes": tuple(data["notes"])})


def _standing(data: dict[str, Any]) -> Standing:
    """JSON holds null for what is no number; a distance may be none."""
    plain = {k: math.nan if data[k] is None else data[k] for k in ("loss", "metric")}
    return Standing(**plain, distance=data["distance"])


def heal(
    student: FusionModel,
    teacher: Teacher | None,
    prepared: Prepared,
    folder: Path,
    *,
    parts: Collection[str] | None = None,
    config: DistilConfig | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    keep: Keep = "last",
    voice: Voice | None = None,
) -> HealReport:
    """Train a cut model in place.

    Adapters, fusion and head always train; of the encoders those of `parts`. The others stay as they are, whatever the
    recipe's `tune`, and are given as their cached tokens. The model's own settings of what trains come back afterwards.

    Args:
        student: in the place of the model that was cut.
        teacher: the whole model's answers; None: labels alone.
        prepared: rows as they are read for the student; its reader is not touched.
        folder: holds checkpoints. The same call on it goes on where it was killed, and ends with the same weights;
            where it had ended, they are loaded. Another call on it begins anew.
        parts: inputs whose encoders were cut; None: those that the recipe trains.
        config: the losses.
        epochs: None: as many as make STEPS steps, at least EPOCHS.
        learning_rate: at most; None: half the recipe's. Pretrained encoders: the recipe's own rate for them, or
            PRETRAINED_RATE, never above.
        seed: of order and dropout; None: the recipe's.
        keep: the last weights, or the best by the validation metric: see :data:`distil.Keep`.
        voice: progress.

    Raises:
        FuselineError: ``bad_teacher``, ``diverged``. KeyboardInterrupt after Ctrl-C.
    """
    config, voice = config or DistilConfig(), voice or Silent()
    chosen = _chosen(student, prepared, parts)
    own = _for_healing(prepared, chosen, epochs, learning_rate, seed, keep)
    spec = own.recipe.training
    part, rows = _watched(prepared)
    with training_only(student, chosen):
        lesson = Lesson.open(folder, key_of_training("heal", own, student, config, teacher, chosen))
        if lesson.data.get("report") is not None:
            lesson.load(student)
            student.eval()
            return HealReport.from_dict(lesson.data["report"])
        loop.keep_frozen(own, student, voice)
        objective = None if teacher is None else Distillation(config, teacher, student, own)
        before = standing(student, own, rows, objective)
        trained = lesson.fit(own, student, objective, voice)
        report = HealReport(
            parts=chosen,
            epochs=spec.epochs,
            steps=int(trained.history[-1]["step"]),
            seconds=round(trained.seconds, 2),
            precision=trained.precision,
            trainable=loop.parameters(student)[1],
            metric=trained.best["metric"],
            rows=part,
            before=before,
            after=standing(student, own, rows, objective),
            best_interval=trained.best["interval"],
            notes=(*own.notes, *lesson.data["notes"]),
        )
        lesson.save(report=report.to_dict())
    return report


def _chosen(student: FusionModel, prepared: Prepared, parts: Collection[str] | None) -> tuple[str, ...]:
    if parts is None:
        return tuple(n for n in student.names if prepared.plans[n].tune != "frozen")
    return tuple(n for n in student.names if n in parts)


def _for_healing(
    prepared: Prepared,
    parts: Collection[str],
    epochs: int | None,
    learning_rate: float | None,
    seed: int | None,
    keep: Keep,
) -> Prepared:
    """The same rows under a recipe of its own: short, silent, and other encoders frozen."""
    spec = prepared.recipe.training
    rate = learning_rate or spec.learning_rate / 2
    changes = {
        "epochs": epochs or _epochs(prepared),
        "learning_rate": rate,
        "seed": spec.seed if seed is None else seed,
        "patience": 10**6,  # the schedule ends it
        "loggers": (),
    }
    training = type(spec).model_validate({**spec.model_dump(), **changes})
    return replace(
        prepared,
        recipe=prepared.recipe.model_copy(update={"training": training}),
        plans={n: _plan(plan, n in parts, rate) for n, plan in prepared.plans.items()},
        reader=own_reader(prepared),
        notes=[],
        # Test rows are not looked at: frozen encoders need not encode them.
        part=np.where(prepared.part <= (keep == "best"), prepared.part, -1).astype(prepared.part.dtype),
    )


def _per_epoch(prepared: Prepared) -> int:
    return steps_per_epoch(len(prepared.rows("train")), prepared.recipe.training.batch_size)


def _epochs(prepared: Prepared) -> int:
    return max(EPOCHS, math.ceil(STEPS / _per_epoch(prepared)))


def healing_steps(prepared: Prepared, epochs: int | None) -> int:
    """Steps of a heal of so many epochs."""
    return (epochs or _epochs(prepared)) * _per_epoch(prepared)


def _plan(plan: Plan, trains: bool, rate: float) -> Plan:
    if not trains:
        return replace(plan, tune="frozen", learning_rate=None)
    if bool(getattr(plan.encoder_config, "pretrained", plan.encoder_class.pretrained)):
        return replace(plan, tune="full", learning_rate=min(rate, plan.learning_rate or PRETRAINED_RATE))
    return replace(plan, tune="full", learning_rate=None)


def _watched(prepared: Prepared) -> tuple[str, np.ndarray]:
    rows = prepared.rows("val")
    if len(rows):
        return "val", rows
    rows = prepared.rows("train")
    return "train", rows[np.linspace(0, len(rows) - 1, min(TRAIN_ROWS, len(rows))).astype(int)]


@contextmanager
def training_only(model: FusionModel, inputs: Collection[str]) -> Iterator[None]:
    """The encoders of `inputs` train, all others are frozen; afterwards each is as it was, but for its weights."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    # A frozen encoder's `train` is its own, and keeps it in eval mode.
    modes = [encoder.__dict__.pop("train", None) for encoder in model.encoders]
    model.requires_grad_(True)
    for name, encoder in zip(model.names, model.encoders, strict=True):
        apply_tuning(encoder, "full" if name in inputs else "frozen")
    try:
        yield
    finally:
        for encoder, mode in zip(model.encoders, modes, strict=True):
            encoder.__dict__.pop("train", None)
            if mode is not None:
                encoder.__dict__["train"] = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        model.eval()


@torch.no_grad()
def standing(model: FusionModel, prepared: Prepared, rows: np.ndarray, objective: Distillation | None) -> Standing:
    """Loss, metric and distance of a model on rows. Leaves it in eval mode."""
    model.eval()
    task, spec = prepared.task, prepared.recipe.training
    metric = task.metric if spec.metric == "auto" else spec.metric
    outputs: list[dict[str, np.ndarray]] = []
    targets, losses, gaps = [], 0.0, [np.zeros(0)]
    device = next(model.parameters()).device
    for batch in prepared.reader.batches(rows, max(64, spec.batch_size)):
        assert batch.targets is not None
        out = model({k: v.to(device) for k, v in batch.arrays.items()}, batch.present_BM.to(device))
        losses += float(model.head.loss(out, batch.targets.to(device))) * len(batch.rows)
        if objective is not None:
            gaps.append(objective.measured(model, batch, out))
        outputs.append({k: v.float().cpu().numpy() for k, v in out.items()})
        targets.append(batch.targets.numpy())
    joined = {k: np.concatenate([o[k] for o in outputs]) for k in outputs[0]}
    found = task.score(np.concatenate(targets), joined, details=False).metrics[metric].value
    gap = np.concatenate(gaps)
    return Standing(losses / len(rows), float(found), float(gap.mean()) if len(gap) else None)
