"""Fits calibration maps, and chooses one by cross-validated log loss. Dimensions: N rows, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression

from fuseline.tasks.bootstrap import group_codes
from fuseline.tasks.calibration import FLOOR, METHODS, Calibration
from fuseline.tasks.classification import Classification

FOLDS = 5
FEWEST = 50
"""rows below which nothing is fitted: a map of so few would be made of their luck"""
FEWEST_OF_CLASS = 5
"""rows of a class, and of the rest, below which that class's own curve stays as it is"""


def fit(task: Classification, method: str, targets: np.ndarray, logits_NC: np.ndarray) -> Calibration:
    """One method on all of these rows."""
    log_NC, log_not_NC = task.raw_log_chances({"logits": logits_NC})
    truth_NC = _truth(task, targets)
    if method == "none":
        return Calibration()
    if method == "temperature":
        return Calibration("temperature", temperature=_temperature(task, truth_NC, log_NC, log_not_NC))
    two = task.mode != "multilabel" and log_NC.shape[1] == 2
    columns = [1] if two else range(log_NC.shape[1])
    if method == "beta":
        return Calibration("beta", beta=tuple(_beta(truth_NC[:, c], log_NC[:, c], log_not_NC[:, c]) for c in columns))
    return Calibration("isotonic", curves=tuple(_isotonic(truth_NC[:, c], log_NC[:, c]) for c in columns))


def _truth(task: Classification, targets: np.ndarray) -> np.ndarray:
    classes = len(task.classes)
    if task.mode == "multilabel":
        return np.asarray(targets).reshape(-1, classes) > 0.5
    return np.asarray(np.asarray(targets).reshape(-1, 1).astype(int) == np.arange(classes))


def _losses(task: Classification, calibration: Calibration, truth_NC: np.ndarray, logits_NC: np.ndarray) -> np.ndarray:
    """Log loss of each row (N,)."""
    raw = task.raw_log_chances({"logits": logits_NC})
    log_NC, log_not_NC = calibration.apply(*raw, multilabel=task.mode == "multilabel")
    if task.mode == "multilabel":
        return np.asarray(-np.where(truth_NC, log_NC, log_not_NC).mean(axis=1))
    return np.asarray(-(log_NC[truth_NC]))


def _temperature(task: Classification, truth_NC: np.ndarray, log_NC: np.ndarray, log_not_NC: np.ndarray) -> float:
    def loss(log_t: float) -> float:
        one = Calibration("temperature", temperature=float(np.exp(log_t)))
        own, other = one.apply(log_NC, log_not_NC, multilabel=task.mode == "multilabel")
        return float(-np.where(truth_NC, own, 0 if task.mode != "multilabel" else other).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def _beta(truth_N: np.ndarray, log_N: np.ndarray, log_not_N: np.ndarray) -> tuple[float, float, float]:
    positive = int(truth_N.sum())
    if min(positive, len(truth_N) - positive) < FEWEST_OF_CLASS:
        return 1.0, 1.0, 0.0
    # Platt's targets: no class that the model never gets wrong here is told to be certain.
    want_N = np.where(truth_N, (positive + 1) / (positive + 2), 1 / (len(truth_N) - positive + 2))
    x_N3 = np.stack(
        [np.maximum(log_N, np.log(FLOOR)), -np.maximum(log_not_N, np.log(FLOOR)), np.ones(len(log_N))], axis=1
    )

    def loss(abc: np.ndarray) -> tuple[float, np.ndarray]:
        odds_N = x_N3 @ abc
        value = float((np.logaddexp(0, odds_N) - want_N * odds_N).sum())
        return value, x_N3.T @ (1 / (1 + np.exp(-odds_N)) - want_N)

    found = minimize(loss, np.array([1.0, 1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, 50), (0, 50), (-50, 50)])
    a, b, c = found.x
    return float(a), float(b), float(c)


def _isotonic(truth_N: np.ndarray, log_N: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    positive = int(truth_N.sum())
    if min(positive, len(truth_N) - positive) < FEWEST_OF_CLASS:
        return (0.0, 1.0), (0.0, 1.0)
    low = 1 / (len(truth_N) + 2)  # no number of rows makes a chance certain
    model = IsotonicRegression(y_min=low, y_max=1 - low, out_of_bounds="clip").fit(np.exp(log_N), truth_N.astype(float))
    return tuple(map(float, model.X_thresholds_)), tuple(map(float, model.y_thresholds_))


@dataclass(frozen=True)
class Apart:
    """Maps that never saw the rows which they are applied to: one a fold. What is promised of calibrated chances is
    fitted on these, or it would be of chances that look better than those of new rows."""

    fold_N: np.ndarray
    maps: tuple[Calibration, ...]

    def log_chances(self, task: Classification, logits_NC: np.ndarray) -> np.ndarray:
        """Of the same rows, whichever inputs were shown (N, C)."""
        own, other = task.raw_log_chances({"logits": logits_NC})
        out_NC = np.array(own)
        for fold, one in enumerate(self.maps):
            rows = self.fold_N == fold
            out_NC[rows] = one.apply(own[rows], other[rows], multilabel=task.mode == "multilabel")[0]
        return out_NC


def choose(
    task: Classification,
    method: str,
    targets: np.ndarray,
    logits_NC: np.ndarray,
    *,
    groups: np.ndarray | None,
    seed: int,
) -> tuple[Calibration, Apart, dict[str, Any]]:
    """The map, the same method's maps of each fold's other rows, and what is to be told of the choice.

    `groups` (N,): never divided over folds.
    """
    targets, logits_NC = np.asarray(targets), np.asarray(logits_NC, np.float64)
    rows = len(logits_NC)
    nothing = Apart(np.zeros(rows, int), (Calibration(),))
    told: dict[str, Any] = {"asked": method, "rows": rows, "method": "none", "log_loss": {}}
    if method == "none":
        return Calibration(), nothing, told
    fold_N = _folds(rows, groups, seed)
    if rows < FEWEST:
        told["why"] = f"{rows} rows are fewer than {FEWEST}"
    elif not np.isfinite(logits_NC).all():
        told["why"] = "the model's outputs are not finite"
    elif fold_N is None:
        told["why"] = "all rows are of one group"
    if "why" in told or fold_N is None:
        return Calibration(), nothing, told
    truth_NC = _truth(task, targets)
    names: Sequence[str] = METHODS if method == "auto" else ("none", method)
    losses: dict[str, float] = {}
    apart: dict[str, Apart] = {}
    for name in names:
        loss_N, maps = np.zeros(rows), []
        for fold in range(int(fold_N.max()) + 1):
            out = fold_N == fold
            maps.append(fit(task, name, targets[~out], logits_NC[~out]))
            loss_N[out] = _losses(task, maps[-1], truth_NC[out], logits_NC[out])
        losses[name], apart[name] = float(loss_N.mean()), Apart(fold_N, tuple(maps))
    best = min(losses, key=losses.__getitem__) if method == "auto" else method
    told |= {"method": best, "log_loss": losses, "folds": int(fold_N.max()) + 1}
    return fit(task, best, targets, logits_NC), apart[best], told


def _folds(rows: int, groups: np.ndarray | None, seed: int) -> np.ndarray | None:
    codes_N = group_codes(rows, groups)
    count = int(codes_N.max()) + 1
    if count < 2:
        return None
    fold_G = np.random.default_rng(seed).permutation(count) % min(FOLDS, count)
    return np.asarray(fold_G[codes_N])
