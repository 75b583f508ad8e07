"""Logits of classes and their loss. Dimensions: B batch, C classes, D model width."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, View
from fuseline.modalities import Modality
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification


class ClassificationHead(Head):
    """{"logits": (B, C)}: softmax over classes (two of them where binary), a sigmoid each where multilabel.

    The bias starts at the logarithm of the class's frequency (Lin et al. 2017, 3.3), so that the first steps are not
    spent on learning it; with class weights it starts at 0, since they undo the frequencies.
    """

    mixes = True

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        assert isinstance(task, Classification)
        self.multilabel = task.mode == "multilabel"
        self.gamma, self.smoothing = task.config.focal_gamma, task.config.label_smoothing
        self.drop = nn.Dropout(dropout)
        self.project = nn.Linear(width, len(task.classes))
        nn.init.normal_(self.project.weight, std=0.02)
        weights = task.class_weights()
        with torch.no_grad():
            self.project.bias.copy_(torch.tensor(_prior(task) if weights is None else [0.0] * len(task.classes)))
        # Not persistent: the weights of the loss are the task's, no part of the model.
        weights_C = torch.ones(len(task.classes)) if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights_C", weights_C, persistent=False)

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        return {"logits": self.project(self.drop(fused.pooled_BD)).float()}

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """`targets`: class numbers (B,), or 0 and 1 for every label (B, C), NaN where not known. Mean over the batch.

        With p the chance of a class, q the smoothed target and w the true class's weight, a row's loss is
        -w·Σ_c q_c·(1 - p_c)^γ·log p_c; the weights are not divided out again, so that a batch of one rare row
        weighs more than a batch of one common row. Multilabel: the same with two outcomes a label, w on the positive
        one, mean over labels.
        """
        logits_BC = outputs["logits"].float()
        if self.multilabel:
            return self._labels(logits_BC, targets.to(logits_BC.dtype))
        log_BC = logits_BC.log_softmax(dim=-1)
        classes = logits_BC.shape[1]
        true_BC = F.one_hot(targets.long(), classes).to(log_BC.dtype)
        wanted_BC = true_BC * (1 - self.smoothing) + self.smoothing / classes
        row_B = -(wanted_BC * self._focus(log_BC) * log_BC).sum(dim=-1)
        return (row_B * self.get_buffer("weights_C")[targets.long()]).mean()

    def _labels(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        known_BC = ~targets_BC.isnan()
        wanted_BC = torch.where(known_BC, targets_BC, 0.0) * (1 - self.smoothing) + self.smoothing / 2
        yes_BC, no_BC = F.logsigmoid(logits_BC), F.logsigmoid(-logits_BC)
        positive_BC = self.get_buffer("weights_C") * wanted_BC * self._focus(yes_BC) * yes_BC
        loss_BC = -(positive_BC + (1 - wanted_BC) * self._focus(no_BC) * no_BC)
        return torch.where(known_BC, loss_BC, 0.0).sum() / known_BC.sum().clamp(min=1)

    def _focus(self, log_BC: Tensor) -> Tensor:
        """(1 - p)^γ; kept off 0, where the gradient of a power below 1 is infinite."""
        if self.gamma == 0:
            return torch.ones_like(log_BC)
        return (-torch.expm1(log_BC)).clamp(min=1e-6) ** self.gamma


def _prior(task: Classification) -> list[float]:
    """Log frequency of each class; log odds of each label. One row is added to each side, so that it is finite."""
    if task.mode == "multilabel":
        return [math.log((n + 1) / (task.rows - n + 1)) for n in task.counts]
    return [math.log((n + 1) / (task.rows + len(task.counts))) for n in task.counts]
