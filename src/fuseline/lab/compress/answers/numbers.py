"""Numbers in the target's own units. Dimensions: N rows, B batch, K targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseline.lab.compress.answers.base import Answers, Arrays, plain_mean, reordered, same_task
from fuseline.lab.heads.base import Head
from fuseline.lab.heads.regression import RegressionHead
from fuseline.tasks import Task


class Numbers(Answers):
    """{"prediction": (N, K)}. Several teachers: their mean."""

    def of(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"prediction": np.asarray(outputs["prediction"], np.float64).reshape(-1, len(self.task.columns))}

    def mean(self, parts: Sequence[Arrays], weights: Sequence[int]) -> Arrays:
        return {"prediction": plain_mean([p["prediction"] for p in parts], weights)}

    def ordered(self, given: Task, told: Arrays) -> Arrays:
        same_task(given, self.task)
        return {"prediction": reordered(given.columns, self.task.columns, told["prediction"], np.nan)}

    def distance(
        self,
        head: Head,
        outputs: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        known_B: Tensor,
        temperature: float,
    ) -> Tensor:
        """The head's own error (Huber or square) of (s - t) / std, mean over the targets that the teacher knows."""
        assert isinstance(head, RegressionHead)
        answer_BK, told_BK = outputs["prediction"].float(), told["prediction"]
        known_BK = ~told_BK.isnan()
        error_BK = (answer_BK - torch.where(known_BK, told_BK, answer_BK)) / head.get_buffer("std_K")
        zero_BK = torch.zeros_like(error_BK)
        if head.kind == "huber":
            loss_BK = F.huber_loss(error_BK, zero_BK, delta=head.delta, reduction="none")
        else:
            loss_BK = F.mse_loss(error_BK, zero_BK, reduction="none")
        return loss_BK.sum(1) / known_BK.sum(1).clamp(min=1)
