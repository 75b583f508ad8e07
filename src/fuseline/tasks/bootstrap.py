"""Percentile bootstrap intervals. Dimensions: R resamples, N rows, G groups.

A resample is a row of weights: how often each row was drawn. Every metric is a function of these weights, so one
vectorised call scores many resamples (see :mod:`fuseline.tasks.metrics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

Measure = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""weights (R, N) -> name -> one value a resample (R,), NaN where undefined"""

CELLS = 2_000_000
"""weights held at once: 16 MB"""


def group_codes(rows: int, groups: np.ndarray | None) -> np.ndarray:
    """Group number of each row (N,); a row without a group (None, NaN) is a group of its own."""
    if groups is None:
        return np.arange(rows)
    assert len(groups) == rows
    numbers: dict[object, int] = {}
    keys = [
        ("alone", i) if g is None or (isinstance(g, float) and math.isnan(g)) else ("group", g)
        for i, g in enumerate(np.asarray(groups).tolist())
    ]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resample(codes: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Weights (≤ R, N) in chunks: G groups drawn with replacement out of G, all rows of a group together."""
    generator = np.random.default_rng(seed)
    groups = int(codes.max()) + 1
    step = max(1, CELLS // len(codes))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn_RG = generator.multinomial(groups, np.full(groups, 1 / groups), size=size)
        yield drawn_RG[:, codes].astype(np.float64)


def intervals(
    measure: Measure, rows: int, *, resamples: int, seed: int = 0, groups: np.ndarray | None = None, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals (Efron & Tibshirani 1993, ch. 13), by default of 95 %.

    Seeded. Resamples in which a metric is undefined (a class was not drawn) are left out of its percentiles; where
    that is more than half of them, or there are fewer than two groups, the metric has no interval.
    """
    if rows == 0 or resamples == 0:
        return {}
    codes = group_codes(rows, groups)
    if codes.max() == 0:
        return {}
    parts = [dict(measure(weights_RN)) for weights_RN in resample(codes, resamples, seed)]
    tail = 100 * (1 - level) / 2
    found = {}
    for name in parts[0]:
        values_R = np.concatenate([p[name] for p in parts])
        values_R = values_R[np.isfinite(values_R)]
        if 2 * len(values_R) > resamples:
            low, high = np.percentile(values_R, [tail, 100 - tail])
            found[name] = (float(low), float(high))
    return found
