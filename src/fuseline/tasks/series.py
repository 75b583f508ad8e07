"""Errors of forecasts. Dimensions: N rows, R resamples, K steps, C channels, Q quantiles.

All are means over known numbers, weighted by how often a row counts; what no row knows is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TINY = 1e-9


def pinball(truth_NKC: np.ndarray, answer_NKCQ: np.ndarray, quantiles_Q: np.ndarray) -> np.ndarray:
    """Quantile loss (Koenker & Bassett 1978), mean over the quantiles (N, K, C), NaN where the truth is."""
    error_NKCQ = truth_NKC[..., None] - answer_NKCQ
    return np.asarray(np.maximum(quantiles_Q * error_NKCQ, (quantiles_Q - 1) * error_NKCQ).mean(axis=-1))


def covered(truth_NKC: np.ndarray, low_NKC: np.ndarray, high_NKC: np.ndarray) -> np.ndarray:
    """1 where the truth lies between, 0 where not, NaN where it is not known."""
    inside = (truth_NKC >= low_NKC) & (truth_NKC <= high_NKC)
    return np.where(np.isnan(truth_NKC), np.nan, inside)


def percentage(truth_NKC: np.ndarray, answer_NKC: np.ndarray) -> np.ndarray:
    """|error| / |truth| in percent; not defined (NaN) where the truth is 0."""
    size_NKC = np.where(np.abs(truth_NKC) > TINY, np.abs(truth_NKC), np.nan)
    return np.asarray(100 * np.abs(truth_NKC - answer_NKC) / size_NKC)


def symmetric_percentage(truth_NKC: np.ndarray, answer_NKC: np.ndarray) -> np.ndarray:
    """200 |error| / (|truth| + |answer|), 0 where both are 0 (M4 competition's sMAPE)."""
    size_NKC = np.abs(truth_NKC) + np.abs(answer_NKC)
    return np.asarray(200 * np.abs(truth_NKC - answer_NKC) / np.maximum(size_NKC, TINY))


def weighted(values_NKC: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weights (R, N) -> means (R,) of what is known."""
    known_NKC = ~np.isnan(values_NKC)
    total_N = np.where(known_NKC, values_NKC, 0.0).reshape(len(values_NKC), -1).sum(axis=1)
    count_N = known_NKC.reshape(len(values_NKC), -1).sum(axis=1)

    def mean(weights_RN: np.ndarray) -> np.ndarray:
        count_R = weights_RN @ count_N
        return np.asarray(np.where(count_R > 0, weights_RN @ total_N / np.maximum(count_R, TINY), np.nan))

    return mean


def naive_scale(truth_NKC: np.ndarray) -> np.ndarray:
    """(C,) mean absolute change from one step to the next of the training targets: what MASE divides by (Hyndman &
    Koehler 2006). 1 where nothing changes or is known."""
    change_NKC = np.abs(np.diff(truth_NKC, axis=1))
    known_NKC = ~np.isnan(change_NKC)
    count_C = known_NKC.sum(axis=(0, 1))
    total_C = np.where(known_NKC, change_NKC, 0.0).sum(axis=(0, 1))
    return np.asarray(np.where((count_C > 0) & (total_C > 0), total_C / np.maximum(count_C, 1), 1.0))
