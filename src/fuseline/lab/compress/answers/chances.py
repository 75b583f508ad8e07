"""Chances of classes, or of each label. Dimensions: N rows, B batch, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseline.lab.compress.answers.base import Answers, Arrays, reordered, same_task, weights_of
from fuseline.lab.heads.base import Head
from fuseline.tasks import Task
from fuseline.tasks.classification import Classification


class Chances(Answers):
    """{"logits": (N, C)}: log chances of classes, logits of labels.

    Several teachers: the mean of their chances. A class that the teacher never met has no chance; a label that it does
    not know is NaN.
    """

    task: Classification

    @property
    def multilabel(self) -> bool:
        return self.task.mode == "multilabel"

    def of(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        if self.multilabel:
            return {"logits": np.asarray(outputs["logits"], np.float64)}
        return {"logits": self.task.raw_log_chances(outputs)[0]}

    def mean(self, parts: Sequence[Arrays], weights: Sequence[int]) -> Arrays:
        parts_KNC, weight_KNC = weights_of([p["logits"] for p in parts], weights)
        total_NC = weight_KNC.sum(axis=0)
        with np.errstate(divide="ignore"):
            log_weight_KNC = np.log(weight_KNC)
        if self.multilabel:  # the logit of the mean chance
            yes_KNC, no_KNC = -np.logaddexp(0, -parts_KNC), -np.logaddexp(0, parts_KNC)
            log_yes_NC, log_no_NC = (np.logaddexp.reduce(p + log_weight_KNC, axis=0) for p in (yes_KNC, no_KNC))
            mean_NC = np.where(total_NC > 0, log_yes_NC, 0.0) - np.where(total_NC > 0, log_no_NC, 0.0)
        else:
            mean_NC = np.logaddexp.reduce(parts_KNC + log_weight_KNC, axis=0) - np.log(np.maximum(total_NC, 1))
        return {"logits": np.where(total_NC > 0, mean_NC, np.nan)}

    def ordered(self, given: Task, told: Arrays) -> Arrays:
        """Chances of one class among many sum to 1 again."""
        same_task(given, self.task)
        assert isinstance(given, Classification)
        have, want = given.labels, self.task.labels
        log_NC = reordered(have, want, told["logits"], np.nan if self.multilabel else -np.inf)
        if not self.multilabel and have != want:
            log_NC = log_NC - np.logaddexp.reduce(log_NC, axis=1, keepdims=True)
        return {"logits": log_NC}

    def distance(
        self,
        head: Head,
        outputs: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        known_B: Tensor,
        temperature: float,
    ) -> Tensor:
        """T² · KL(softmax(t / T) ‖ softmax(s / T)); T² keeps the gradient's size (Hinton et al. 2015, 2). Of labels the
        same of each one's two outcomes, mean over them. Class weights and smoothing belong to the labels."""
        known_BC = ~told["logits"].isnan()
        s_BC = outputs["logits"].float() / temperature
        t_BC = torch.where(known_BC, told["logits"], 0.0) / temperature
        if not self.multilabel:
            return temperature**2 * F.kl_div(s_BC.log_softmax(1), t_BC.softmax(1), reduction="none").sum(1)
        kl_BC = torch.where(known_BC, two_outcomes(s_BC, t_BC), 0.0)
        return temperature**2 * kl_BC.sum(1) / known_BC.sum(1).clamp(min=1)


def two_outcomes(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(σ(t) ‖ σ(s)) of a yes and a no, of each logit."""
    pairs_s = torch.stack([F.logsigmoid(student), F.logsigmoid(-student)])
    pairs_t = torch.stack([F.logsigmoid(teacher), F.logsigmoid(-teacher)])
    return F.kl_div(pairs_s, pairs_t, reduction="none", log_target=True).sum(0)
