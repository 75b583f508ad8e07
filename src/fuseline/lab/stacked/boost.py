"""Gradient boosting over the features. Dimensions: N rows, F features, C classes, K targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from fuseline.errors import FuselineError
from fuseline.lab.stacked.options import TreesConfig
from fuseline.lab.stacked.trees import Forest, Trees
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.regression import Regression

BINS = 255
"""of a number, and most values of a category: scikit-learn's own limit"""
MOST_TREES = 20_000
"""of many classes, fewer rounds"""
CHECKED = 256
CLOSE = 1e-4
"""how far our sum may be from scikit-learn's: the one is of 32-bit numbers"""


@dataclass(frozen=True)
class Rows:
    """Features with NaN, encoded targets (NaN: not known), and what each row counts."""

    features_NF: np.ndarray
    targets: np.ndarray
    weights_N: np.ndarray


@dataclass
class Boosted:
    """The trees' arrays, and how many rounds were kept of each ensemble."""

    arrays: dict[str, np.ndarray]
    rounds: list[int]


def boost(task: Task, train: Rows, val: Rows | None, config: TreesConfig, *, categories: int, seed: int) -> Boosted:
    """Boost until the loss on validation rows no longer falls, or for all rounds where there are none.

    Classes: one ensemble with a tree a class and round (two classes: one). Labels and numbers: an ensemble each, over
    the rows that have it. Rows are weighted by the task's class weights. `categories`: how many features, the first
    ones, are whole numbers below 255 that stand for values.
    """
    features = train.features_NF.shape[1]
    codes = train.features_NF[:, :categories]
    values = int(np.nanmax(codes, initial=-1)) + 1
    if isinstance(task, Regression):
        outputs, mean_K, std_K = len(task.columns), np.array(task.mean), np.array(task.std)
    else:
        assert isinstance(task, Classification)
        outputs = len(task.classes)
    forest = Forest(outputs, features=features, categories=categories, values=max(1, values))
    rounds: list[int] = []
    maker = _Maker(forest, config, categories, seed, rounds)
    if isinstance(task, Regression):
        for k in range(outputs):
            maker.numbers(k, *(_column(r, k, mean_K[k], std_K[k]) for r in (train, val)))
    elif task.mode == "multilabel":
        positive = task.class_weights()
        for k in range(outputs):
            more = 1.0 if positive is None else float(positive[k])
            maker.label(k, *(_labelled(_column(r, k), more) for r in (train, val)))
    else:
        maker.classes(*(_weighted(r, task.class_weights()) for r in (train, val)))
    return Boosted(forest.arrays(), rounds)


def _column(rows: Rows | None, k: int, mean: float = 0.0, std: float = 1.0) -> Rows | None:
    """The rows that have target k, in standard units."""
    if rows is None:
        return None
    known = ~np.isnan(rows.targets[:, k])
    return Rows(rows.features_NF[known], (rows.targets[known, k] - mean) / std, rows.weights_N[known])


def _labelled(rows: Rows | None, positive: float) -> Rows | None:
    if rows is None:
        return None
    return Rows(rows.features_NF, rows.targets, rows.weights_N * np.where(rows.targets > 0, positive, 1.0))


def _weighted(rows: Rows | None, weights_C: np.ndarray | None) -> Rows | None:
    if rows is None or weights_C is None:
        return rows
    return Rows(rows.features_NF, rows.targets, rows.weights_N * weights_C[rows.targets.astype(int)])


@dataclass
class _Maker:
    forest: Forest
    config: TreesConfig
    categories: int
    seed: int
    rounds: list[int]

    def numbers(self, k: int, train: Rows | None, val: Rows | None) -> None:
        assert train is not None
        if not len(train.targets):
            return  # its mean is the answer
        self._fit(HistGradientBoostingRegressor, train, val, [k], trees=1)

    def label(self, k: int, train: Rows | None, val: Rows | None) -> None:
        assert train is not None
        share = [(train.weights_N * own_N).sum() + 0.5 for own_N in (train.targets > 0, train.targets <= 0)]
        if min(share) < 1:
            self.forest.base_K[k] = np.log(share[0] / share[1])
            return
        self._fit(HistGradientBoostingClassifier, train, val, [k], trees=1)

    def classes(self, train: Rows | None, val: Rows | None) -> None:
        """Classes that no training row has are given the chance of half a row."""
        assert train is not None
        classes = len(self.forest.base_K)
        share_C = np.bincount(train.targets.astype(int), train.weights_N, classes)
        seen = np.flatnonzero(share_C > 0)
        log_C = np.log(np.maximum(share_C, 0.5) / share_C.sum())
        # As scikit-learn starts: at the classes' shares, centred where there are several.
        self.forest.base_K[:] = log_C - log_C[seen].mean()
        if len(seen) < 2:
            return
        if val is not None:
            known = np.isin(val.targets.astype(int), seen)
            val = Rows(val.features_NF[known], val.targets[known], val.weights_N[known])
        # Of two classes one tree adds up the log odds of the second; the first one's stay 0.
        outputs = [int(c) for c in (seen if len(seen) > 2 else seen[1:])]
        self.forest.base_K[outputs if len(seen) > 2 else seen] = 0.0
        if len(seen) == 2:
            rare = np.setdiff1d(np.arange(classes), seen)
            self.forest.base_K[rare] = log_C[rare] - log_C[seen[0]]
        self._fit(HistGradientBoostingClassifier, train, val, outputs, trees=len(outputs))

    def _fit(self, kind: Any, train: Rows, val: Rows | None, outputs: list[int], *, trees: int) -> None:
        config, rows = self.config, len(train.targets)
        stops = val is not None and len(val.targets) > 0
        model = kind(
            learning_rate=config.learning_rate,
            max_iter=max(1, min(config.iterations, MOST_TREES // trees)),
            max_leaf_nodes=config.leaves,
            min_samples_leaf=config.min_rows or min(20, max(2, rows // 50)),
            l2_regularization=config.l2,
            max_bins=BINS,
            categorical_features=np.arange(self.forest.features) < self.categories if self.categories else None,
            early_stopping=stops,
            scoring="loss",
            n_iter_no_change=config.patience,
            tol=0.0,
            random_state=self.seed,
        )
        more: dict[str, Any] = {}
        if stops:
            assert val is not None
            more = {"X_val": val.features_NF, "y_val": val.targets, "sample_weight_val": val.weights_N}
        # scikit-learn cannot cut a column into bins that no row has; as a constant, it is never split by.
        empty_F = np.isnan(train.features_NF).all(axis=0)
        given_NF = np.where(empty_F, np.float32(0.0), train.features_NF)
        model.fit(given_NF, train.targets, sample_weight=train.weights_N, **more)
        kept = len(model._predictors)
        if stops:  # scores: before the first round, then after each
            kept = int(np.argmax(model.validation_score_))
        model._predictors = model._predictors[:kept]
        self.rounds.append(kept)
        own = Forest(len(outputs), features=self.forest.features, categories=self.categories, values=self.forest.values)
        base = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
        for forest, places in ((own, range(len(outputs))), (self.forest, outputs)):
            for place, output in enumerate(places):
                forest.base_K[output] += base[place]
            for turn in model._predictors:
                for place, output in enumerate(places):
                    forest.add(turn[place], output)
        _agree(model, own, train.features_NF[:: max(1, rows // CHECKED)])


def _agree(model: Any, forest: Forest, features_NF: np.ndarray) -> None:
    """The trees as we read them answer as scikit-learn does, or nothing is trusted: their layout is its private own."""
    with torch.no_grad():
        ours = Trees(forest.arrays())(torch.from_numpy(np.ascontiguousarray(features_NF, dtype=np.float32))).numpy()
    theirs = np.asarray(model._raw_predict(features_NF)).reshape(ours.shape)
    gap = float(np.abs(ours - theirs).max(initial=0.0) / max(1.0, float(np.abs(theirs).max(initial=0.0))))
    if not gap <= CLOSE:
        raise FuselineError(
            "trees_unreadable",
            f"the trees as read from scikit-learn answer {gap:.2g} away from it",
            "install the version of scikit-learn that constraints.txt names",
        )
