"""Two models on the same rows: how much worse the second is, with its interval. Dimensions: N rows, C classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuseline.tasks.base import Task
from fuseline.tasks.bootstrap import intervals

IN_UNITS = ("mae", "rmse", "nrmse", "pinball")
"""errors in the target's own unit: their drop is a percentage of the first model's"""


def in_units(metric: str) -> bool:
    """Whether a metric, or that of one of several tasks (`age.rmse`), is an error in the target's own unit."""
    return metric.rpartition(".")[2] in IN_UNITS


@dataclass(frozen=True)
class Drop:
    """How much worse, in points (hundredths; of errors in the target's unit: percent). Below 0: better."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


def drop(
    task: Task,
    metric: str,
    targets: np.ndarray,
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Drop:
    """`after` against `before` on the same rows. The interval is of the difference: both are measured on the same
    resamples, so that what makes both better or worse cancels (Efron & Tibshirani 1993, ch. 13).

    NaN where the metric is not defined (one class present).
    """
    first, second = task.measure(targets, before), task.measure(targets, after)
    higher = task.score(targets, before, details=False).metrics[metric].higher_is_better

    def measure(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        a_R, b_R = first(weights_RN)[metric], second(weights_RN)[metric]
        worse_R = a_R - b_R if higher else b_R - a_R
        if in_units(metric):
            worse_R = worse_R / np.maximum(np.abs(a_R), 1e-12)
        return {"drop": 100 * worse_R}

    rows = len(targets)
    value = float(measure(np.ones((1, rows)))["drop"][0])
    bounds = intervals(measure, rows, resamples=bootstrap, seed=seed, groups=groups)
    low, high = bounds.get("drop", (None, None))
    return Drop(value, low, high)


def agreement(
    task: Task, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> tuple[float | None, float]:
    """Share of rows with the same label (None for numbers), and the mean difference of the answers as numbers: of
    chances between 0 and 1, of predictions in standard deviations of the target."""
    a_NC, b_NC = task.scale(before), task.scale(after)
    same: float | None = None
    if task.name == "classification":
        labels: list[list[Any]] = [[d.value for d in task.decode(outputs)] for outputs in (before, after)]
        same = float(np.mean([x == y for x, y in zip(*labels, strict=True)])) if len(a_NC) else None
    return same, float(np.abs(a_NC - b_NC).mean()) if len(a_NC) else 0.0
