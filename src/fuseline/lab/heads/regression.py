"""Numbers in their own units and their loss. Dimensions: B batch, K targets, D model width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, View
from fuseline.modalities import Modality
from fuseline.tasks.base import Task
from fuseline.tasks.regression import Regression


class RegressionHead(Head):
    """{"prediction": (B, K)} = z·std + mean, z the linear layer's answer on the standardised scale.

    `mean` and `std` are the training rows' and part of the graph. Numbers are 32-bit: a target whose spread is below
    a millionth of its size loses digits.
    """

    mixes = True

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        assert isinstance(task, Regression)
        self.kind, self.delta = task.config.loss, task.config.huber_delta
        self.drop = nn.Dropout(dropout)
        self.project = nn.Linear(width, len(task.columns))
        nn.init.normal_(self.project.weight, std=0.02)
        nn.init.zeros_(self.project.bias)
        self.register_buffer("mean_K", torch.tensor(task.mean, dtype=torch.float32))
        self.register_buffer("std_K", torch.tensor(task.std, dtype=torch.float32))

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        z_BK = self.project(self.drop(fused.pooled_BD)).float()
        return {"prediction": z_BK * self.get_buffer("std_K") + self.get_buffer("mean_K")}

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Huber or squared error of (prediction - target) / std, mean over the targets (B, K) that are not NaN."""
        answer_BK = outputs["prediction"].float()
        known_BK = ~targets.isnan()
        # The prediction stands in for an unknown target: its error, and the gradient of it, is exactly 0.
        error_BK = (answer_BK - torch.where(known_BK, targets.float(), answer_BK)) / self.get_buffer("std_K")
        zero_BK = torch.zeros_like(error_BK)
        if self.kind == "huber":
            loss_BK = F.huber_loss(error_BK, zero_BK, delta=self.delta, reduction="none")
        else:
            loss_BK = F.mse_loss(error_BK, zero_BK, reduction="none")
        return loss_BK.sum() / known_BK.sum().clamp(min=1)
