"""From a measure to scores: the point, and the interval around it. Dimensions: N rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fuseline.tasks.base import Metric, Scores
from fuseline.tasks.bootstrap import Measure, intervals


def scored(
    measure: Measure,
    rows: int,
    *,
    resamples: int,
    seed: int,
    groups: np.ndarray | None,
    higher: Callable[[str], bool] = lambda name: True,
    defined: bool = True,
) -> Scores:
    """Every metric of `measure` on the rows as they are, with its bootstrap interval.

    Args:
        measure: see :data:`Measure`.
        rows: N.
        resamples: of the intervals; 0: none.
        seed: of the bootstrap.
        groups: (N,) drawn whole.
        higher: whether more of a metric is better.
        defined: False where the outputs cannot be measured (a model that diverged): every metric is then undefined.
    """
    point = measure(np.ones((1, rows)) if defined else np.zeros((1, rows)))
    bounds = intervals(measure, rows, resamples=resamples if defined else 0, seed=seed, groups=groups)
    scores = Scores(rows)
    for name, value in point.items():
        low, high = bounds.get(name, (None, None))
        scores.metrics[name] = Metric(name, float(value[0]), low, high, higher_is_better=higher(name))
    return scores
