"""Explanations of many rows, told as means with intervals. Dimensions: R resamples, N rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fuseline.explain.schema import Explanation, Mean, Summary
from fuseline.tasks.bootstrap import intervals

RESAMPLES = 1000


def summarise(rows: Sequence[Explanation], seed: int = 0) -> Summary:
    """Mean |share| of each input over the rows that have it, and its mean share among the rows of one answered class.
    Intervals are percentiles of a bootstrap over rows; rows of one person are not held together."""
    good = [r for r in rows if r.inputs is not None]
    names = list(dict.fromkeys(n for r in good for n in r.inputs.values))  # type: ignore[union-attr]
    classes = list(dict.fromkeys(_class(r) for r in good))
    by_class = {
        label: {n: mean for n in names if (mean := _mean(_shares([r for r in good if _class(r) == label], n), seed))}
        for label in classes
    }
    importance = {n: mean for n in names if (mean := _mean(np.abs(_shares(good, n)), seed))}
    return Summary(rows=len(good), errors=len(rows) - len(good), importance=importance, by_class=by_class)


def _class(row: Explanation) -> str:
    assert row.of is not None
    return row.of.label or ""


def _shares(rows: Sequence[Explanation], name: str) -> np.ndarray:
    return np.array([r.inputs.values[name] for r in rows if r.inputs is not None and name in r.inputs.values])


def _mean(shares_N: np.ndarray, seed: int) -> Mean | None:
    if not len(shares_N):
        return None

    def measure(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": weights_RN @ shares_N / weights_RN.sum(axis=1)}

    low, high = intervals(measure, len(shares_N), resamples=RESAMPLES, seed=seed).get("mean", (None, None))
    return Mean(value=float(shares_N.mean()), low=low, high=high, rows=len(shares_N))
