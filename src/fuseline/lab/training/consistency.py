"""What rows without a target teach: the student's answer on a changed row shall be the teacher's on the row as it is.

Dimensions: B rows without a target, M inputs, C classes, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseline.lab.augment import augment_class
from fuseline.lab.augment.base import Augment
from fuseline.lab.augment.batch import Augmenter
from fuseline.lab.augment.plan import plan_augment
from fuseline.lab.fusion.parts import modality_dropout
from fuseline.lab.heads.classification import ClassificationHead
from fuseline.lab.model import FusionModel
from fuseline.lab.training.average import Average
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Batch
from fuseline.recipe import UnlabelledSpec
from fuseline.tasks import Task
from fuseline.tasks.classification import Classification

MEMORY = 0.99
"""decay of what is remembered of the teacher's answers from step to step"""
PREFIX = "unlabelled_"
"""of the columns of history.csv"""


class Consistency:
    """The loss of a step's unlabelled rows. The same (seed, step, rows, state), the same loss.

    The teacher (the averaged weights, or the student's own where there are none) answers on the rows as they are,
    without dropout and without gradient. The student sees them strongly augmented and with inputs hidden at random, so
    that what it can say from an input alone comes to agree with what all inputs say together.

    Classes, as FixMatch (Sohn et al. 2020): cross entropy with the teacher's class, where its chance is at least a
    threshold, summed and divided by all B. Several labels a row: each label for itself. Numbers: the head's own loss
    with the teacher's answer as the target (Mean Teacher, Tarvainen & Valpola 2017); nothing says how sure it is.

    threshold: auto is FreeMatch's (Wang et al. 2023): with τ the remembered mean of the teacher's highest chance and
    p_c that of its chance of class c, class c needs τ·p_c / max p. Their fairness loss is left out.
    """

    def __init__(
        self, spec: UnlabelledSpec, task: Task, augmenter: Augmenter | None, total_steps: int, parts: int
    ) -> None:
        """`parts`: inputs of the model; of a single one nothing can be hidden."""
        self.spec, self.augmenter, self.total_steps, self.parts = spec, augmenter, total_steps, parts
        self.classes = len(task.classes) if isinstance(task, Classification) else 0
        self.multilabel = isinstance(task, Classification) and task.mode == "multilabel"
        self.prior_C, self.most = torch.ones(self.classes), 1.0
        if isinstance(task, Classification):
            counts_C = torch.tensor(task.counts, dtype=torch.float32) + 1
            self.prior_C = counts_C / counts_C.sum()
            smoothing = task.config.label_smoothing
            # A fixed threshold is a share of what label smoothing lets a class reach.
            self.most = 1 - smoothing / 2 if self.multilabel else 1 - smoothing + smoothing / self.classes
        self.sure = torch.tensor(1 / max(1, self.classes))
        self.mean_C = torch.full((self.classes,), 1 / max(1, self.classes))
        self.said_C = torch.zeros(self.classes)
        """confident pseudo-labels of the interval that is running, by class"""
        self.told_C = torch.zeros(self.classes)
        """of the last whole one"""
        self._figures: list[dict[str, float]] = []

    def __call__(self, model: FusionModel, average: Average | None, batch: Batch, step: int) -> Tensor:
        """Weighted as the step has it; a scalar."""
        teacher = _answers(model, average, batch)
        changed = batch if self.augmenter is None else self.augmenter(batch, step)
        present_BM = modality_dropout(batch.present_BM, self.spec.drop) if self.parts > 1 else batch.present_BM
        student = model(changed.arrays, present_BM)
        if isinstance(model.head, ClassificationHead):
            loss, figures = self._labels(teacher["logits"].float(), student["logits"].float())
        else:
            target = teacher["prediction"].float()
            loss = model.head.loss(student, target)
            figures = {}
        self._figures.append({"loss": float(loss.detach()), **figures})
        return self.weight(step) * loss

    def weight(self, step: int) -> float:
        """exp(-5·(1 - t)²) of the whole, t the share of the rise that is done (Laine & Aila 2017)."""
        rise = self.spec.ramp * self.total_steps
        done = 1.0 if rise < 1 else min(1.0, step / rise)
        return self.spec.weight * math.exp(-5 * (1 - done) ** 2)

    def _labels(self, teacher_BC: Tensor, student_BC: Tensor) -> tuple[Tensor, dict[str, float]]:
        self._to(teacher_BC.device)
        if self.multilabel:
            return self._many(teacher_BC, student_BC)
        chance_BC = teacher_BC.softmax(-1)
        self.mean_C = torch.lerp(chance_BC.mean(0), self.mean_C, MEMORY)
        self.sure = torch.lerp(chance_BC.max(-1).values.mean(), self.sure, MEMORY)
        if self.spec.align:  # ReMixMatch (Berthelot et al. 2020)
            chance_BC = chance_BC * self.prior_C / self.mean_C.clamp(min=1e-6)
            chance_BC = chance_BC / chance_BC.sum(-1, keepdim=True)
        sure_B, label_B = chance_BC.max(-1)
        needed_C = self._needed()
        confident_B = (sure_B >= needed_C[label_B]).float()
        row_B = F.cross_entropy(student_BC, label_B, reduction="none")
        said_C = torch.bincount(label_B, weights=confident_B, minlength=self.classes)
        self.said_C = self.said_C + said_C
        return (confident_B * row_B).mean(), {
            "confident": float(confident_B.mean()),
            "agreement": float((student_BC.argmax(-1) == label_B).float().mean()),
            "threshold": float(needed_C.mean()),
        }

    def _needed(self) -> Tensor:
        if self.spec.threshold == "auto":
            return self.sure * self.mean_C / self.mean_C.max()
        return torch.full_like(self.mean_C, float(self.spec.threshold) * self.most)

    def _many(self, teacher_BC: Tensor, student_BC: Tensor) -> tuple[Tensor, dict[str, float]]:
        chance_BC = teacher_BC.sigmoid()
        needed = float(self.spec.threshold) * self.most
        label_BC = (chance_BC >= 0.5).float()
        confident_BC = (torch.maximum(chance_BC, 1 - chance_BC) >= needed).float()
        loss_BC = F.binary_cross_entropy_with_logits(student_BC, label_BC, reduction="none")
        self.said_C = self.said_C + (confident_BC * label_BC).sum(0)
        return (confident_BC * loss_BC).mean(), {
            "confident": float(confident_BC.mean()),
            "agreement": float(((student_BC >= 0) == (label_BC > 0.5)).float().mean()),
            "threshold": needed,
        }

    def _to(self, device: torch.device) -> None:
        for name in ("prior_C", "sure", "mean_C", "said_C", "told_C"):
            setattr(self, name, getattr(self, name).to(device))

    def figures(self) -> dict[str, float]:
        """Means over the interval that ends here, for the history; then a new one begins."""
        found = {k: float(np.mean([f[k] for f in self._figures])) for k in self._figures[0]} if self._figures else {}
        if "confident" in found:
            total = float(self.said_C.sum())
            found["commonest"] = float(self.said_C.max()) / total if total else 0.0
        self.told_C, self.said_C = self.said_C, torch.zeros_like(self.said_C)
        self._figures.clear()
        return {f"{PREFIX}{k}": v for k, v in found.items()}

    def begin(self) -> None:
        """A new interval: what an interrupted one counted is counted again."""
        self.said_C = torch.zeros_like(self.said_C)
        self._figures.clear()

    def shares(self) -> list[float]:
        """Of the confident pseudo-labels in the last whole interval, by class; [] where there were none."""
        total = float(self.told_C.sum())
        return [float(v) / total for v in self.told_C] if total else []

    def state(self) -> dict[str, Any]:
        return {"sure": self.sure, "mean_C": self.mean_C, "told_C": self.told_C}

    def load(self, state: Mapping[str, Any]) -> None:
        self.sure, self.mean_C, self.told_C = (state[k].clone() for k in ("sure", "mean_C", "told_C"))


def make_consistency(prepared: Prepared, total_steps: int) -> Consistency | None:
    """None where the recipe says nothing of unlabelled rows."""
    spec = prepared.recipe.training.unlabelled
    if spec is None or not len(prepared.unlabelled):
        return None
    return Consistency(
        spec, prepared.task, _strong(prepared) if spec.augment else None, total_steps, len(prepared.plans)
    )


def _strong(prepared: Prepared) -> Augmenter | None:
    """Strong changes of every input that the recipe does not want unchanged; what it sets itself wins. Frozen inputs
    that see every cell as it is stay so: whether their tokens were kept must not decide what is learned."""
    parts: dict[str, Augment] = {}
    for name, plan in prepared.plans.items():
        given = prepared.recipe.inputs[name].augment
        options = {"preset": given} if isinstance(given, str) else given
        cls = augment_class(plan.modality)
        if cls is None or plan.stays or options.get("preset") == "none":
            continue
        config, _ = plan_augment(plan.modality, {**options, "preset": "strong"}, (), f"inputs.{name}.augment")
        parts[name] = cls(config, prepared.parser.modalities[name])
    return Augmenter(parts, prepared.reader, prepared.recipe.training.seed) if parts else None


@torch.no_grad()
def _answers(model: FusionModel, average: Average | None, batch: Batch) -> dict[str, Tensor]:
    """The teacher's, on the rows as they are. The model's mode is training again afterwards."""
    model.eval()
    try:
        if average is not None:
            return average.answer(model, batch.arrays, batch.present_BM)
        outputs: dict[str, Tensor] = model(batch.arrays, batch.present_BM)
        return outputs
    finally:
        model.train()


def told_of(
    prepared: Prepared, consistency: Consistency, history: Sequence[Mapping[str, float]], kept: int
) -> dict[str, Any]:
    """For run.json: figures of the kept and of the last interval, pseudo-labels by class; doubts become notes."""
    figures = [{k: v for k, v in row.items() if k.startswith(PREFIX)} for row in history]
    told: dict[str, Any] = {"rows": len(prepared.unlabelled)}
    if figures:
        told |= {"kept": _plain(figures[kept]), "last": _plain(figures[-1])}
    task = prepared.task
    if isinstance(task, Classification) and figures:
        shares = consistency.shares()
        given = consistency.prior_C.tolist()
        told |= {"pseudo_labels": dict(zip(task.labels, shares, strict=False))}
        told |= {"labelled": dict(zip(task.labels, given, strict=True))}
        found = doubts(task.labels, given, shares, figures[-1].get(f"{PREFIX}confident", 0.0))
        told["doubts"] = found
        prepared.notes += found
    return told


def _plain(figures: Mapping[str, float]) -> dict[str, float]:
    return {k.removeprefix(PREFIX): v for k, v in figures.items()}


def doubts(labels: Sequence[str], given: Sequence[float], said: Sequence[float], confident: float) -> list[str]:
    """What is suspicious about the pseudo-labels at the end of training.

    Args:
        labels: C names of classes.
        given: share of each among the labelled rows.
        said: share of each among the confident pseudo-labels; [] where there were none.
        confident: share of the unlabelled rows whose pseudo-label was confident.
    """
    if not said:
        return ["suspicious: the teacher was sure of no unlabelled row: they taught nothing; lower the threshold"]
    found = []
    if confident < RARE:
        found.append(f"the teacher was sure of {confident:.1%} of the unlabelled rows only: they taught little")
    top = int(np.argmax(said))
    if said[top] >= COLLAPSED and given[top] < said[top] - FAR:
        found.append(
            f"suspicious: {said[top]:.0%} of the pseudo-labels are {labels[top]!r}, of the labelled rows "
            f"{given[top]:.0%}: the teacher may have collapsed into one class"
        )
    lost = [labels[i] for i, share in enumerate(given) if share >= COMMON and said[i] < share * LOST]
    if lost and len(found) == 0:
        names = ", ".join(repr(n) for n in lost[:5]) + (", ..." if len(lost) > 5 else "")
        found.append(f"suspicious: hardly any pseudo-label says {names}: unlabelled rows teach against them")
    return found


RARE, COLLAPSED, FAR, COMMON, LOST = 0.02, 0.8, 0.2, 0.02, 0.1
"""shares: of confident rows below which a note says so; of one class from which on, and how far above its share of the
labelled rows, it may be a collapse; of the labelled rows from which on a class is missed, below this share of that"""
