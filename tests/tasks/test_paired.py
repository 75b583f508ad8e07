"""Two models on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from fuseline.tasks import task_class
from fuseline.tasks.paired import agreement, drop


def classes(labels: list[str]) -> Any:
    kind = task_class("classification")
    return kind.fit(kind.Config(target="y"), {"y": labels})


def numbers(values: list[float]) -> Any:
    kind = task_class("regression")
    return kind.fit(kind.Config(target="y"), {"y": values})


def logits(rng: np.random.Generator, truth_N: np.ndarray, noise: float) -> np.ndarray:
    score_N = truth_N * 2 - 1 + rng.normal(0, noise, len(truth_N))
    return np.stack([-score_N, score_N], axis=1)


def test_a_drop_is_the_difference_of_the_metric_in_points() -> None:
    rng = np.random.default_rng(0)
    truth_N = rng.integers(0, 2, 200)
    good, bad = ({"logits": logits(rng, truth_N, noise)} for noise in (1.0, 3.0))
    found = drop(classes(["a", "b"]), "auroc", truth_N, good, bad, bootstrap=200)
    margin = [o["logits"][:, 1] - o["logits"][:, 0] for o in (good, bad)]
    assert found.value == pytest.approx(100 * (roc_auc_score(truth_N, margin[0]) - roc_auc_score(truth_N, margin[1])))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_the_same_answers_drop_nothing_and_surely() -> None:
    rng = np.random.default_rng(1)
    truth_N = rng.integers(0, 2, 60)
    outputs = {"logits": logits(rng, truth_N, 2.0)}
    found = drop(classes(["a", "b"]), "auroc", truth_N, outputs, outputs, bootstrap=100)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert agreement(classes(["a", "b"]), outputs, outputs) == (1.0, 0.0)


def test_a_metric_where_less_is_better_drops_when_it_grows() -> None:
    rng = np.random.default_rng(2)
    truth_N = rng.integers(0, 2, 200)
    good, bad = ({"logits": logits(rng, truth_N, noise)} for noise in (1.0, 3.0))
    assert drop(classes(["a", "b"]), "log_loss", truth_N, good, bad).value > 0


def test_errors_in_units_drop_in_per_cent() -> None:
    rng = np.random.default_rng(3)
    truth_N1 = rng.normal(1000, 50, (100, 1))
    near, far = ({"prediction": truth_N1 + rng.normal(0, s, (100, 1))} for s in (10.0, 20.0))
    found = drop(numbers(truth_N1[:, 0].tolist()), "mae", truth_N1, near, far)
    before, after = (mean_absolute_error(truth_N1, o["prediction"]) for o in (near, far))
    assert found.value == pytest.approx(100 * (after - before) / before)
    same, change = agreement(numbers(truth_N1[:, 0].tolist()), near, far)
    assert same is None
    assert change == pytest.approx(float(np.abs(near["prediction"] - far["prediction"]).mean() / truth_N1.std()))


def test_groups_are_resampled_whole() -> None:
    rng = np.random.default_rng(4)
    truth_N = np.repeat(rng.integers(0, 2, 20), 10)
    good, bad = ({"logits": logits(rng, truth_N, noise)} for noise in (1.0, 3.0))
    task = classes(["a", "b"])
    rows = drop(task, "auroc", truth_N, good, bad, bootstrap=200)
    whole = drop(task, "auroc", truth_N, good, bad, bootstrap=200, groups=np.repeat(np.arange(20), 10))
    assert whole.value == rows.value
    assert (whole.low, whole.high) != (rows.low, rows.high)


def test_where_the_metric_is_not_defined_the_drop_is_not() -> None:
    truth_N = np.zeros(5, dtype=np.int64)
    outputs = {"logits": np.zeros((5, 2))}
    found = drop(classes(["a", "b"]), "auroc", truth_N, outputs, outputs, bootstrap=50)
    assert np.isnan(found.value)
    assert found.low is None


def test_a_model_that_diverged_drops_to_nothing_defined() -> None:
    truth_N = np.array([0, 1, 0, 1])
    fine = {"logits": np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])}
    broken = {"logits": np.full((4, 2), np.nan)}
    assert np.isnan(drop(classes(["a", "b"]), "accuracy", truth_N, fine, broken).value)
