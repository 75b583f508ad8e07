"""From training rows' embeddings to a few features of each.

Dimensions: N rows, D an encoder's width, R rank, P principal components, O linear answers.
"""

from __future__ import annotations

import numpy as np

FOLDS = 5
PENALTIES = 10.0 ** np.arange(-4, 4)
"""of the linear answers, in units of the embeddings' mean variance times rows"""
MOST_ANSWERS = 64
"""more classes get no linear answers: each would be a feature of every input"""
RANK = 512
SHOWN = 20_000
"""rows that principal components are computed from, at most"""


def reduce(
    pooled_ND: np.ndarray, wanted_NO: np.ndarray | None, groups_N: np.ndarray | None, *, components: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays of `Reduced`, and the rows' linear answers (N, O), each by a model that did not see it.

    Args:
        pooled_ND: mean tokens of training rows that have the input.
        wanted_NO: what linear answers shall meet, NaN where not known; None: there shall be none.
        groups_N: rows of a group never answer for each other.
        components: P at most.
        seed: of the folds and of the rows that are shown.
    """
    rows, width = pooled_ND.shape
    pooled_ND = pooled_ND.astype(np.float64)
    mean_D = pooled_ND.mean(axis=0) if rows else np.zeros(width)
    rng = np.random.default_rng(seed)
    shown = rng.choice(rows, SHOWN, replace=False) if rows > SHOWN else np.arange(rows)
    _, scale_R, axes_RD = np.linalg.svd(pooled_ND[np.sort(shown)] - mean_D, full_matrices=False)
    real = int((scale_R > scale_R.max(initial=0.0) * 1e-5).sum()) if rows > 1 else 0
    axes_RD = _signed(axes_RD[: min(real, RANK)])
    kept = min(components, len(axes_RD))
    spread_P = scale_R[:kept] / np.sqrt(max(1, len(shown) - 1))
    out = {"mean_D": mean_D, "components_DP": axes_RD[:kept].T / spread_P}
    outputs = 0 if wanted_NO is None else wanted_NO.shape[1]
    if wanted_NO is None or outputs > MOST_ANSWERS or rows < 2 * FOLDS or not len(axes_RD):
        out |= {"probe_DO": np.zeros((width, 0)), "bias_O": np.zeros(0)}
        return _float32(out), np.zeros((rows, 0), np.float32)
    folds_N = _folds(rows, groups_N, rng)
    weights_RO, bias_O, held_out_NO = probe((pooled_ND - mean_D) @ axes_RD.T, wanted_NO, folds_N)
    out |= {"probe_DO": axes_RD.T @ weights_RO, "bias_O": bias_O}
    return _float32(out), held_out_NO.astype(np.float32)


def probe(x_NR: np.ndarray, wanted_NO: np.ndarray, folds_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ridge regression of all rows (weights, bias), and each row's answer by the other folds' (N, O). The penalty is
    the one whose answers out of fold have the least squared error. What is not known counts as the mean."""
    bias_O = np.nanmean(wanted_NO, axis=0)
    known_NO = np.where(np.isnan(wanted_NO), bias_O, wanted_NO) - bias_O
    unit = max(float((x_NR**2).sum()) / x_NR.shape[1], 1e-12)
    answers = np.zeros((len(PENALTIES), *known_NO.shape))
    for fold in np.unique(folds_N):
        out = folds_N == fold
        for place, weights_RO in enumerate(_ridge(x_NR[~out], known_NO[~out], unit)):
            answers[place, out] = x_NR[out] @ weights_RO
    best = int(((answers - known_NO) ** 2).sum(axis=(1, 2)).argmin())
    return _ridge(x_NR, known_NO, unit)[best], bias_O, answers[best] + bias_O


def _ridge(x_NR: np.ndarray, y_NO: np.ndarray, unit: float) -> list[np.ndarray]:
    """Weights (R, O) for each penalty, from one eigendecomposition."""
    values_R, vectors_RR = np.linalg.eigh(x_NR.T @ x_NR)
    turned_RO = vectors_RR.T @ (x_NR.T @ y_NO)
    return [vectors_RR @ (turned_RO / (values_R.clip(min=0.0) + p * unit)[:, None]) for p in PENALTIES]


def _folds(rows: int, groups_N: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    groups_N = np.arange(rows) if groups_N is None else np.unique(groups_N, return_inverse=True)[1]
    count = int(groups_N.max()) + 1
    fold_G = np.arange(count) % min(FOLDS, max(2, count))
    return np.asarray(rng.permutation(fold_G)[groups_N])


def _signed(axes_RD: np.ndarray) -> np.ndarray:
    """An axis and its opposite are the same: the one whose largest entry is positive is taken on every machine."""
    largest_R = np.take_along_axis(axes_RD, np.abs(axes_RD).argmax(axis=1)[:, None], axis=1) if len(axes_RD) else 1.0
    return np.asarray(axes_RD * np.where(largest_R < 0, -1.0, 1.0))


def _float32(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float32) for k, v in arrays.items()}
