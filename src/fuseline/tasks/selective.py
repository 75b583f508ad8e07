"""Answering only where it is sure: risk against coverage, and a threshold that keeps to a stated error. numpy only.
Dimensions: N rows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

STEPS = 10
"""shares of the rows that may be answered, at which an error is tested: tenths"""


class Curve(NamedTuple):
    """Share of rows answered, most certain first, and the share of wrong ones among them."""

    coverage_N: np.ndarray
    risk_N: np.ndarray


def risk_coverage(sure_N: np.ndarray, wrong_N: np.ndarray) -> Curve:
    """El-Yaniv & Wiener 2010. Rows of equal certainty are answered together: each counts as their mean."""
    order_N = np.argsort(-sure_N, kind="stable")
    ordered_N = np.asarray(wrong_N, np.float64)[order_N]
    _, place_N = np.unique(-sure_N[order_N], return_inverse=True)
    mean_G = np.bincount(place_N, ordered_N) / np.maximum(np.bincount(place_N), 1)
    count_N = np.arange(1, len(sure_N) + 1)
    return Curve(count_N / max(len(sure_N), 1), np.cumsum(mean_G[place_N]) / count_N)


def aurc(curve: Curve) -> float:
    """Area under risk-coverage: the mean risk over all coverages (Geifman et al. 2019). NaN without rows."""
    return float(curve.risk_N.mean()) if len(curve.risk_N) else math.nan


def risk_at(curve: Curve, coverage: float) -> float:
    """Share of wrong ones where so many are answered."""
    if not len(curve.risk_N):
        return math.nan
    return float(curve.risk_N[max(math.ceil(coverage * len(curve.risk_N) - 1e-9), 1) - 1])


def clopper_pearson(wrong: int, rows: int, confidence: float) -> float:
    """Upper bound of a share of which `wrong` of `rows` were seen (Clopper & Pearson 1934), exact, one-sided: the p at
    which so few or fewer are seen with chance 1 - confidence."""
    if rows == 0 or wrong >= rows:
        return 1.0
    if not 0 < confidence < 1:
        raise ValueError("a confidence is between 0 and 1")
    ks = np.arange(wrong + 1)
    log_choose = math.lgamma(rows + 1) - np.array([math.lgamma(k + 1) + math.lgamma(rows - k + 1) for k in ks])
    low, high = wrong / rows, 1.0
    for _ in range(60):
        p = (low + high) / 2
        if p >= 1.0:
            break
        chance = float(np.exp(log_choose + ks * math.log(p) + (rows - ks) * math.log1p(-p)).sum())
        low, high = (p, high) if chance > 1 - confidence else (low, p)
    return high


def promise(sure_N: np.ndarray, wrong_N: np.ndarray, *, error: float, confidence: float) -> dict[str, Any]:
    """The smallest threshold of certainty above which at most `error` of the answers are wrong, with `confidence`.

    Tenths of the rows, most certain first, are each tested by Clopper-Pearson; the confidence is shared out over the
    tests that so many rows could pass at all (Bonferroni; Angelopoulos et al. 2021, "Learn then Test"). Which those are
    does not depend on what is right or wrong, so all tests hold together.

    Returns `threshold` (None: no share of the rows can be promised), `rows`, `answered` (share), `error` (seen among
    the answered), `bound` (upper).
    """
    rows = len(sure_N)
    sorted_N = np.sort(sure_N)[::-1]
    places = [math.ceil(rows * step / STEPS) for step in range(1, STEPS + 1)] if rows else []
    tests = len(places)
    while tests and (1 - error) ** places[len(places) - tests] > (1 - confidence) / tests:
        tests -= 1
    best: dict[str, Any] = {"threshold": None, "rows": rows, "answered": 0.0, "error": None, "bound": None}
    for place in places[len(places) - tests :]:
        threshold = float(sorted_N[place - 1])
        answered = sure_N >= threshold
        count, wrong = int(answered.sum()), int(np.asarray(wrong_N)[answered].sum())
        if wrong > error * count:  # no bound lies below what was seen
            continue
        bound = clopper_pearson(wrong, count, 1 - (1 - confidence) / tests)
        if bound <= error:
            best |= {"threshold": threshold, "answered": count / rows, "error": wrong / count, "bound": bound}
    return best
