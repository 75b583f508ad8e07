"""Forecasts, as quantiles of every step. Dimensions: N rows, B batch, K steps ahead, C channels, Q quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.compress.answers.base import Answers, Arrays, plain_mean, reordered, same_task
from fuseline.lab.heads.base import Head
from fuseline.tasks import Task
from fuseline.tasks.forecast import Forecast


class Quantiles(Answers):
    """{"forecast": (N, K, C, Q)} in the series' own units. The teacher answers every step, also those whose truth is a
    gap: there the student learns from it alone.

    Several teachers: the mean of each quantile (Vincent 1912; Ratcliff 1979), not of the distributions, which would be
    wider than any of them wherever they disagree.
    """

    task: Forecast

    def of(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"forecast": np.asarray(outputs["forecast"], np.float64)}

    def mean(self, parts: Sequence[Arrays], weights: Sequence[int]) -> Arrays:
        return {"forecast": plain_mean([p["forecast"] for p in parts], weights)}

    def ordered(self, given: Task, told: Arrays) -> Arrays:
        """Quantiles by their levels; NaN for one that the teacher does not say."""
        same_task(given, self.task)
        assert isinstance(given, Forecast)
        theirs, own = ((t.columns, t.steps, tuple(t.channels)) for t in (given, self.task))
        if theirs != own:
            message = f"the teacher forecasts {_said(given)}, the student {_said(self.task)}"
            raise FuselineError("bad_teacher", message, "give both one target and horizon")
        levels = [[f"quantile {q:g}" for q in t.quantiles_Q] for t in (given, self.task)]
        return {"forecast": reordered(levels[0], levels[1], told["forecast"], np.nan)}

    def distance(
        self,
        head: Head,
        outputs: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        known_B: Tensor,
        temperature: float,
    ) -> Tensor:
        """|s - t| in standard deviations of the training target, mean over steps, channels and quantiles: at evenly
        spread levels the 1-Wasserstein distance between both forecasts of a step. As the head's pinball loss, it is the
        absolute error of the median, so that both count in one unit."""
        answer_BKCQ, told_BKCQ = outputs["forecast"].float(), told["forecast"]
        known_BKCQ = ~told_BKCQ.isnan()
        error_BKCQ = answer_BKCQ - torch.where(known_BKCQ, told_BKCQ, answer_BKCQ)
        apart_BKCQ = (error_BKCQ / head.get_buffer("std_C")[:, None]).abs()
        return apart_BKCQ.flatten(1).sum(1) / known_BKCQ.flatten(1).sum(1).clamp(min=1)


def _said(task: Forecast) -> str:
    return f"{task.steps} steps of {', '.join(task.columns)} ({', '.join(task.channels[:5])})"
