"""Heads for classes of a handful of rows: class means, and logistic regression. Both end as one linear layer.

Dimensions: N rows, M inputs, F features, K classes, P penalties.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fuseline.lab.stacked.boost import Rows
from fuseline.tasks.classification import Classification

FOLDS = 5
PENALTIES = 10.0 ** np.arange(-2.0, 5.0)
"""inverse strengths of L2 (scikit-learn's C) that are tried"""
SHARPNESS = np.geomspace(0.1, 300.0, 60)
"""inverse temperatures that are tried"""
HOLD = 1.0
"""rows' worth of belief that every input counts alike"""


@dataclass
class Linear:
    """Arrays of :class:`~fuseline.lab.stacked.linear.LinearHead`, and what is told of them."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def linear_probe(
    task: Classification, shown: Rows, source_N: np.ndarray, groups_N: np.ndarray | None, *, seed: int
) -> Linear:
    """Logistic regression, its L2 chosen by the log loss out of fold (Alain & Bengio 2016 on why linear).

    Args:
        task: classes, class weights.
        shown: training rows, and copies of some with inputs hidden.
        source_N: which training row each of `shown` is, or is a copy of: they stay in one fold.
        groups_N: of the training rows; a group stays in one fold.
        seed: of the folds.
    """
    weights_N = _weights(task, shown)
    if task.mode != "multilabel":
        fold_N = folds(shown.targets.astype(int)[_firsts(source_N)], groups_N, seed)[source_N]
        return _probe(task, shown.features_NF, shown.targets.astype(int), weights_N, fold_N)
    features = shown.features_NF.shape[1]
    weight_KF, bias_K, chosen = np.zeros((len(task.classes), features)), np.zeros(len(task.classes)), []
    for k in range(len(task.classes)):
        known = ~np.isnan(shown.targets[:, k])
        own = (shown.targets[known, k] > 0).astype(int)
        share = [float((own == v).sum()) + 0.5 for v in (0, 1)]
        bias_K[k] = np.log(share[1] / share[0])
        if min(share) < 1:
            continue
        first = shown.targets[_firsts(source_N), k] > 0
        fold_N = folds(first.astype(int), groups_N, seed)[source_N][known]
        made = _fit_best(shown.features_NF[known], own, weights_N[known] * _positive(task, own, k), fold_N)
        weight_KF[k], bias_K[k] = made.coef_[0], made.intercept_[0]
        chosen.append(made.C)
    arrays = {"weight_KF": weight_KF, "bias_K": bias_K, "seen_K": np.ones(len(bias_K)), "means_1": np.zeros(1)}
    return Linear(_float32(arrays), {"inverse_l2": chosen})


def _probe(
    task: Classification, x_NF: np.ndarray, y_N: np.ndarray, weights_N: np.ndarray, fold_N: np.ndarray
) -> Linear:
    made = _fit_best(x_NF, y_N, weights_N, fold_N)
    weight_KF, bias_K = np.zeros((len(task.classes), x_NF.shape[1])), _rare(len(task.classes), len(y_N))
    seen = np.unique(y_N)
    if len(seen) == 2:  # scikit-learn gives the log odds of the second
        weight_KF[seen[1]], bias_K[seen] = made.coef_[0], (0.0, made.intercept_[0])
    else:
        weight_KF[seen], bias_K[seen] = made.coef_, made.intercept_
    has_K = np.isin(np.arange(len(bias_K)), seen)
    arrays = {"weight_KF": weight_KF, "bias_K": bias_K, "seen_K": has_K, "means_1": np.zeros(1)}
    return Linear(_float32(arrays), {"inverse_l2": made.C})


def _fit_best(x_NF: np.ndarray, y_N: np.ndarray, weights_N: np.ndarray, fold_N: np.ndarray) -> Any:
    """Of the penalties the one with the least log loss out of fold; where no fold can say, scikit-learn's own 1.

    Fewer rows than features: L2 does not see a rotation, so that the fit in the rows' own space is the same, and less
    work.
    """
    x_NF = x_NF.astype(np.float64)
    basis_RF = None
    if x_NF.shape[0] < x_NF.shape[1]:
        basis_RF = np.linalg.svd(x_NF, full_matrices=False)[2]
        x_NF = x_NF @ basis_RF.T
    losses_P = np.zeros(len(PENALTIES))
    judged = 0.0
    for fold in np.unique(fold_N):
        out, rest = fold_N == fold, fold_N != fold
        known = np.unique(y_N[rest])
        out &= np.isin(y_N, known)  # a class of which the others have no row says nothing of the penalty
        if len(known) < 2 or not out.any():
            continue
        judged += weights_N[out].sum()
        place_N = np.searchsorted(known, y_N[out])
        for p, c in enumerate(PENALTIES):
            chance_NK = _fit(x_NF[rest], y_N[rest], weights_N[rest], c).predict_proba(x_NF[out])
            log_N = np.log(np.maximum(chance_NK[np.arange(len(place_N)), place_N], 1e-20))
            losses_P[p] -= (weights_N[out] * log_N).sum()
    made = _fit(x_NF, y_N, weights_N, PENALTIES[int(losses_P.argmin())] if judged else 1.0)
    if basis_RF is not None:
        made.coef_ = made.coef_ @ basis_RF
    return made


def _fit(x_NF: np.ndarray, y_N: np.ndarray, weights_N: np.ndarray, c: float) -> Any:
    model = LogisticRegression(C=float(c), max_iter=500)
    with warnings.catch_warnings():  # the last steps of a weak penalty are not worth their time
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x_NF, y_N, sample_weight=weights_N)


def prototypes(
    task: Classification,
    train: Rows,
    present_NM: np.ndarray,
    owner_F: np.ndarray,
    val: Rows | None,
    *,
    euclidean: bool,
) -> Linear:
    """Class means as classifiers (Snell et al. 2017): the nearer to a class's mean, the likelier.

    Each input has means of its own, over the rows that have it; a row is judged by the inputs that it has, and by their
    sum: log p(k) ∝ Σ_m s_m·sim(x_m, c_mk), sim the cosine, or -‖x - c‖² = 2x·c - ‖c‖² - ‖x‖², of which the last is the
    same for all classes. The inverse temperatures s_m ≥ 0 are those of the least log loss on validation rows; without
    any, on the training rows, each held against means without itself. A class of which no row has an input is held
    against the mean of all rows there (0).
    """
    y_N, classes = train.targets.astype(int), len(task.classes)
    count = np.bincount(y_N, minlength=classes)
    seen = np.flatnonzero(count)
    inputs = present_NM.shape[1]
    sims: list[np.ndarray] = []
    weight_KF = np.zeros((classes, len(owner_F)))
    places = [np.flatnonzero(owner_F[: len(owner_F) - inputs] == m) for m in range(inputs)]
    judged, truth_N = (val.features_NF, val.targets.astype(int)) if val is not None else (train.features_NF, y_N)
    known = np.isin(truth_N, seen) if val is not None else count[truth_N] > 1
    for m, own in enumerate(places):
        x_NF = train.features_NF[np.ix_(present_NM[:, m], own)].astype(np.float64)
        sum_KF, rows_K = np.zeros((classes, len(own))), np.zeros(classes)
        np.add.at(sum_KF, y_N[present_NM[:, m]], x_NF)
        np.add.at(rows_K, y_N[present_NM[:, m]], 1)
        mean_KF = _means(sum_KF, rows_K, euclidean)
        weight_KF[:, own] = 2 * mean_KF if euclidean else mean_KF
        presence = len(owner_F) - inputs + m
        weight_KF[:, presence] = -(mean_KF**2).sum(axis=1) if euclidean else 0.0
        if val is not None:
            sims.append(judged[:, [*own, presence]] @ weight_KF[:, [*own, presence]].T)
        else:
            sims.append(_without_itself(train.features_NF[:, own], y_N, present_NM[:, m], sum_KF, rows_K, euclidean))
    sharp_M = _sharpness(np.stack(sims)[:, known][:, :, seen], np.searchsorted(seen, truth_N[known]))
    weight_KF *= sharp_M[owner_F]
    bias_K = np.where(count > 0, 0.0, _rare(classes, len(y_N)))
    weight_KF = np.where(count[:, None] > 0, weight_KF, 0.0)
    arrays = {"weight_KF": weight_KF, "bias_K": bias_K, "seen_K": count > 0, "means_1": np.ones(1)}
    return Linear(_float32(arrays), {"sharpness": [round(float(s), 4) for s in sharp_M]})


def _means(sum_KF: np.ndarray, rows_K: np.ndarray, euclidean: bool) -> np.ndarray:
    mean_KF = sum_KF / np.maximum(rows_K, 1)[:, None]
    if euclidean:
        return np.asarray(mean_KF)
    return np.asarray(mean_KF / np.maximum(np.linalg.norm(mean_KF, axis=1, keepdims=True), 1e-12))


def _without_itself(
    x_NF: np.ndarray, y_N: np.ndarray, here_N: np.ndarray, sum_KF: np.ndarray, rows_K: np.ndarray, euclidean: bool
) -> np.ndarray:
    """Similarities (N, K) of training rows; zeros where a row lacks the input."""
    x_NF = x_NF.astype(np.float64)

    def sim(mean_KF: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.asarray(2 * x @ mean_KF.T - (mean_KF**2).sum(axis=1) if euclidean else x @ mean_KF.T)

    out_NK = sim(_means(sum_KF, rows_K, euclidean), x_NF)
    less_NF = sum_KF[y_N] - x_NF
    own_NF = _means(less_NF, rows_K[y_N] - 1, euclidean)
    own_N = 2 * (x_NF * own_NF).sum(axis=1) - (own_NF**2).sum(axis=1) if euclidean else (x_NF * own_NF).sum(axis=1)
    out_NK[np.arange(len(y_N)), y_N] = own_N
    return np.asarray(np.where(here_N[:, None], out_NK, 0.0))


def _sharpness(sims_MNK: np.ndarray, truth_N: np.ndarray) -> np.ndarray:
    """The inputs' inverse temperatures (M,): first one for all, then each its own, held near it where rows are few.
    Convex in them. Nothing to judge by: 10, which makes a cosine's whole range e^20 to 1."""
    inputs = len(sims_MNK)
    if not len(truth_N):
        return np.full(inputs, 10.0)
    rows = np.arange(len(truth_N))

    def loss(s_M: np.ndarray) -> tuple[float, np.ndarray]:
        log_NK = log_softmax(np.tensordot(s_M, sims_MNK, 1), axis=1)
        off_NK = np.exp(log_NK)
        off_NK[rows, truth_N] -= 1
        return -float(log_NK[rows, truth_N].mean()), np.einsum("nk,mnk->m", off_NK, sims_MNK) / len(rows)

    # Penalised as if HOLD row spoke for it: a handful of rows must not make a mean infinitely sure.
    first = min(SHARPNESS, key=lambda s: loss(np.full(inputs, s))[0] + HOLD / len(rows) * np.log(s / 10) ** 2)
    if inputs == 1:
        return np.full(1, first)

    def held(s_M: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope_M = loss(s_M)
        off_M = s_M / first - 1
        return value + HOLD / len(rows) * float((off_M**2).sum()), slope_M + 2 * HOLD / len(rows) * off_M / first

    found = minimize(held, np.full(inputs, first), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * inputs)
    return np.asarray(found.x)


def folds(y_N: np.ndarray, groups_N: np.ndarray | None, seed: int) -> np.ndarray:
    """A fold for each row, classes spread evenly over them; of groups, whole groups."""
    rng = np.random.default_rng(seed)
    if groups_N is not None:
        group_N = np.unique(groups_N, return_inverse=True)[1]
        return np.asarray((rng.permutation(int(group_N.max()) + 1) % FOLDS)[group_N])
    out_N = np.zeros(len(y_N), dtype=int)
    for k in np.unique(y_N):
        own = rng.permutation(np.flatnonzero(y_N == k))
        out_N[own] = (np.arange(len(own)) + rng.integers(FOLDS)) % FOLDS
    return out_N


def _firsts(source_N: np.ndarray) -> np.ndarray:
    """Where in the shown rows each training row stands: they come first, in order."""
    return np.arange(int(source_N.max()) + 1)


def _weights(task: Classification, shown: Rows) -> np.ndarray:
    weights_K = None if task.mode == "multilabel" else task.class_weights()
    return shown.weights_N if weights_K is None else shown.weights_N * weights_K[shown.targets.astype(int)]


def _positive(task: Classification, own_N: np.ndarray, k: int) -> np.ndarray:
    weights_K = task.class_weights()
    return np.ones(len(own_N)) if weights_K is None else np.where(own_N > 0, weights_K[k], 1.0)


def _rare(classes: int, rows: int) -> np.ndarray:
    """The logarithm of half a row's chance, for classes that no training row has."""
    return np.full(classes, np.log(0.5 / rows))


def _float32(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float32) for k, v in arrays.items()}
