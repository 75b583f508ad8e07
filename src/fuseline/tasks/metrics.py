"""Metrics in plain numpy, all over weighted rows. Dimensions: R resamples, N rows, C classes, K targets, G ties.

Every function takes `weights_RN`, how often each row counts in each of R resamples, and gives one value a resample, NaN
where the metric is undefined (AUROC with one class present, R² of a constant). `np.ones((1, N))` is the plain metric.
Checked against scikit-learn; where a class never occurs, `macro` leaves it out, as scikit-learn's defaults do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BINS = 15
ROWS_A_BIN = 10
CURVE_POINTS = 200
CLASSES_AT_ONCE = 64


def _ratio(top: np.ndarray, bottom: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    out: np.ndarray = np.divide(top, bottom, out=np.full(np.shape(bottom), otherwise), where=bottom > 0)
    return out


def mean(values_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Mean of a per-row value (R,): accuracy of hits, log loss of losses, Brier score of squared errors, MAE."""
    return _ratio(weights_RN @ values_N.astype(np.float64), weights_RN.sum(axis=1))


def mean_defined(values_RC: np.ndarray) -> np.ndarray:
    """Mean over the classes where a value is defined (R,); NaN where it is for none."""
    there_RC = ~np.isnan(values_RC)
    return _ratio(np.where(there_RC, values_RC, 0.0).sum(axis=1), there_RC.sum(axis=1))


class Counts(NamedTuple):
    """Weighted counts of each class (R, C)."""

    hits: np.ndarray
    """rows that are of the class and were answered so: true positives"""
    answers: np.ndarray
    truths: np.ndarray
    rows: np.ndarray
    """(R, 1)"""

    @property
    def occurs(self) -> np.ndarray:
        some_RC: np.ndarray = self.answers + self.truths > 0
        return some_RC

    def _of_known(self, values_RC: np.ndarray) -> np.ndarray:
        known_RC: np.ndarray = np.where(self.occurs, values_RC, np.nan)
        return known_RC

    @property
    def precision(self) -> np.ndarray:
        """Share of right ones among the answers (R, C); 0 for a class never answered, NaN where it never occurs."""
        return self._of_known(_ratio(self.hits, self.answers, 0.0))

    @property
    def recall(self) -> np.ndarray:
        return self._of_known(_ratio(self.hits, self.truths, 0.0))

    @property
    def f1(self) -> np.ndarray:
        return self._of_known(_ratio(2 * self.hits, self.answers + self.truths, 0.0))

    @property
    def specificity(self) -> np.ndarray:
        """Share of the other classes' rows not answered as this one (R, C)."""
        others = self.rows - self.truths
        return _ratio(others - (self.answers - self.hits), others)

    @property
    def balanced_accuracy(self) -> np.ndarray:
        """Mean recall of the classes that have rows (R,)."""
        return mean_defined(_ratio(self.hits, self.truths))

    def weighted(self, values_RC: np.ndarray) -> np.ndarray:
        """Mean over classes by their number of true rows (R,)."""
        total_R = self.truths.sum(axis=1)
        return _ratio((np.nan_to_num(values_RC) * self.truths).sum(axis=1), total_R)

    @property
    def micro_f1(self) -> np.ndarray:
        return _ratio(2 * self.hits.sum(axis=1), (self.answers + self.truths).sum(axis=1))


def counts(truth_NC: np.ndarray, answer_NC: np.ndarray, weights_RN: np.ndarray) -> Counts:
    """From boolean membership (N, C): one True a row for classes, any number for labels."""
    found: list[list[np.ndarray]] = [[], [], []]
    for start in range(0, truth_NC.shape[1], CLASSES_AT_ONCE):
        truth, answer = (x[:, start : start + CLASSES_AT_ONCE] for x in (truth_NC, answer_NC))
        for into, what in zip(found, (truth & answer, answer, truth), strict=True):
            into.append(weights_RN @ what.astype(np.float64))
    hits, answers, truths = (np.concatenate(x, axis=1) for x in found)
    return Counts(hits, answers, truths, weights_RN.sum(axis=1, keepdims=True))


class _Ranked(NamedTuple):
    """Weight of positives and of all rows at each distinct score (R, G), best score first, and the scores (G,)."""

    positives: np.ndarray
    all: np.ndarray
    scores: np.ndarray


def _ranked(truth_N: np.ndarray, score_N: np.ndarray, weights_RN: np.ndarray) -> _Ranked:
    order = np.argsort(-score_N, kind="stable")
    score_N = score_N[order]
    starts = np.flatnonzero(np.r_[True, score_N[1:] != score_N[:-1]])
    all_RN = weights_RN[:, order]
    positive_RN = all_RN * truth_N[order]
    if len(starts) < len(score_N):
        positive_RN = np.add.reduceat(positive_RN, starts, axis=1)
        all_RN = np.add.reduceat(all_RN, starts, axis=1)
    return _Ranked(positive_RN, all_RN, score_N[starts])


class Areas(NamedTuple):
    """Areas under the two curves of one class (R,)."""

    auroc: np.ndarray
    """chance that a positive row scores above a negative one, ties counting half (Hanley & McNeil 1982)"""
    auprc: np.ndarray
    """average precision Σ_g (recall_g - recall_{g-1})·precision_g over distinct scores, no interpolation"""


def areas(truth_N: np.ndarray, score_N: np.ndarray, weights_RN: np.ndarray) -> Areas:
    """Both areas from one ranking, which is what costs the time. `truth_N` is boolean."""
    if not len(truth_N):
        undefined_R = np.full(len(weights_RN), np.nan)
        return Areas(undefined_R, undefined_R)
    ranked = _ranked(truth_N, score_N, weights_RN)
    tp_RG, all_RG = np.cumsum(ranked.positives, axis=1), np.cumsum(ranked.all, axis=1)
    positive_R = tp_RG[:, -1]
    negative_R = all_RG[:, -1] - positive_R
    # Negatives below a distinct score, and half of those that share it.
    below_RG = negative_R[:, None] - (all_RG - tp_RG) + (ranked.all - ranked.positives) / 2
    precision_RG = tp_RG / np.maximum(all_RG, 1e-300)
    return Areas(
        auroc=_ratio(np.einsum("rg,rg->r", ranked.positives, below_RG), positive_R * negative_R),
        auprc=_ratio(np.einsum("rg,rg->r", ranked.positives, precision_RG), positive_R),
    )


def _thin(size: int) -> np.ndarray:
    """At most CURVE_POINTS indices of `size`, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, CURVE_POINTS)).round().astype(np.int64))


def roc_points(truth_N: np.ndarray, score_N: np.ndarray) -> dict[str, list[float]] | None:
    """{"fpr", "tpr"} from (0, 0) to (1, 1), at most 200 points; None where only one class is present."""
    if not len(truth_N) or truth_N.all() or not truth_N.any():
        return None
    ranked = _ranked(truth_N, score_N, np.ones((1, len(truth_N))))
    tp, all_ = np.cumsum(ranked.positives[0]), np.cumsum(ranked.all[0])
    fp = all_ - tp
    tpr, fpr = np.r_[0.0, tp / tp[-1]], np.r_[0.0, fp / fp[-1]]
    keep = _thin(len(tpr))
    return {"fpr": fpr[keep].tolist(), "tpr": tpr[keep].tolist()}


def pr_points(truth_N: np.ndarray, score_N: np.ndarray) -> dict[str, list[float]] | None:
    """{"recall", "precision"} by rising recall, at most 200 points; None where no row is positive."""
    if not len(truth_N) or not truth_N.any():
        return None
    ranked = _ranked(truth_N, score_N, np.ones((1, len(truth_N))))
    tp, all_ = np.cumsum(ranked.positives[0]), np.cumsum(ranked.all[0])
    keep = _thin(len(tp))
    return {"recall": (tp / tp[-1])[keep].tolist(), "precision": (tp / all_)[keep].tolist()}


class Calibration(NamedTuple):
    """Stated chances against what came true, in bins of equal mass.

    `stated` and `came` (N, bins) are sums over what a row puts into each bin (one entry a row, or one a label) and
    `entries` how many entries that is. The bins are of the whole set of rows and stay fixed over resamples.
    """

    stated: np.ndarray
    came: np.ndarray
    entries: np.ndarray

    def ece(self, weights_RN: np.ndarray) -> np.ndarray:
        """Expected calibration error Σ_b share_b·|came_b - stated_b| (Naeini et al. 2015; equal-mass bins). (R,)"""
        gap_RB = np.abs(weights_RN @ (self.came - self.stated))
        return _ratio(gap_RB.sum(axis=1), (weights_RN @ self.entries).sum(axis=1))

    def bins(self) -> list[dict[str, Any]]:
        """Of each bin that holds something: mean stated chance, share that came true, number of entries."""
        sums = zip(self.stated.sum(axis=0), self.came.sum(axis=0), self.entries.sum(axis=0), strict=True)
        return [{"confidence": float(s / n), "accuracy": float(c / n), "count": int(n)} for s, c, n in sums if n]


def calibration(stated: np.ndarray, came: np.ndarray) -> Calibration:
    """From chances and outcomes, (N,) or (N, C). 15 bins of equal mass, fewer so that a bin holds at least 10 rows."""
    stated, came = ((x[:, None] if x.ndim == 1 else x).astype(np.float64) for x in (stated, came))
    number = max(1, min(BINS, len(stated) // ROWS_A_BIN))
    edges = np.unique(np.quantile(stated, np.linspace(0, 1, number + 1)[1:-1])) if stated.size else np.empty(0)
    place = np.searchsorted(edges, stated, side="left")
    number = len(edges) + 1
    sums = np.zeros((3, len(stated), number))
    for b in range(number):
        inside = place == b
        for into, values in zip(sums, (stated, came, np.ones_like(stated)), strict=True):
            into[:, b] = (values * inside).sum(axis=1)
    return Calibration(*sums)


def confusion(truth_N: np.ndarray, answer_N: np.ndarray, classes: int) -> np.ndarray:
    """Rows by true class (first axis) and answered class (second), int64 (C, C)."""
    return np.bincount(truth_N * classes + answer_N, minlength=classes * classes).reshape(classes, classes)


class Errors(NamedTuple):
    """Errors of many targets, each over the rows that have it; (R, K)."""

    mae: np.ndarray
    rmse: np.ndarray
    r2: np.ndarray


def errors(truth_NK: np.ndarray, answer_NK: np.ndarray, weights_RN: np.ndarray) -> Errors:
    """MAE, RMSE and R² of each target. NaN in `truth_NK` is an absent target: its row does not count for it."""
    there_NK = ~np.isnan(truth_NK)
    total_RK = weights_RN @ there_NK.astype(np.float64)
    error_NK = np.where(there_NK, answer_NK - np.where(there_NK, truth_NK, 0.0), 0.0)
    # Centred on the mean of all rows, so that the variance of a large number far from zero keeps its digits.
    centre_K = _ratio(np.where(there_NK, truth_NK, 0.0).sum(axis=0), there_NK.sum(axis=0), 0.0)
    moved_NK = np.where(there_NK, truth_NK - centre_K, 0.0)
    square_RK = weights_RN @ error_NK**2
    spread_RK = weights_RN @ moved_NK**2 - _ratio((weights_RN @ moved_NK) ** 2, total_RK, 0.0)
    # What is left of a constant after rounding is not a spread.
    spread_RK = np.where(spread_RK > 1e-12 * (weights_RN @ moved_NK**2), spread_RK, 0.0)
    return Errors(
        mae=_ratio(weights_RN @ np.abs(error_NK), total_RK),
        rmse=np.sqrt(_ratio(square_RK, total_RK)),
        r2=1 - _ratio(square_RK, spread_RK),
    )


def plain(value: Any) -> float | None:
    """A JSON number: None for what is not finite."""
    return float(value) if np.isfinite(value) else None
