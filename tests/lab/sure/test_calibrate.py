"""Calibration maps fitted on rows whose true chances are known."""

from __future__ import annotations

import numpy as np
import pytest

from fuseline.lab.sure.calibrate import FEWEST, choose, fit
from fuseline.tasks.classification import Classification, ClassificationConfig


def made(classes: int, rows: int, sharp: float, seed: int = 0) -> tuple[Classification, np.ndarray, np.ndarray]:
    """Labels drawn from softmax(x), and logits sharp * x."""
    task = Classification.fit(ClassificationConfig(target="y"), {"y": [f"c{i}" for i in range(classes)] * 3})
    rng = np.random.default_rng(seed)
    x_NC = rng.normal(0, 1.5, (rows, classes))
    p_NC = np.exp(x_NC) / np.exp(x_NC).sum(axis=1, keepdims=True)
    truth_N = (rng.uniform(size=(rows, 1)) > p_NC.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return task, truth_N, sharp * x_NC


@pytest.mark.parametrize("classes", [2, 4])
def test_a_temperature_is_found_again(classes: int) -> None:
    task, truth_N, logits_NC = made(classes, 2000, 3.0)
    assert fit(task, "temperature", truth_N, logits_NC).temperature == pytest.approx(3.0, rel=0.12)


@pytest.mark.parametrize("method", ["temperature", "beta", "isotonic", "auto"])
@pytest.mark.parametrize("classes", [2, 3])
def test_chances_that_claim_too_much_are_brought_down(method: str, classes: int) -> None:
    task, truth_N, logits_NC = made(classes, 800, 4.0)
    task.calibration, _, told = choose(task, method, truth_N, logits_NC, groups=None, seed=0)
    _, new_N, new_NC = made(classes, 800, 4.0, seed=1)
    after = task.score(new_N, {"logits": new_NC}).metrics
    task.calibration = fit(task, "none", truth_N, logits_NC)
    before = task.score(new_N, {"logits": new_NC}).metrics
    assert after["ece"].value < 0.6 * before["ece"].value
    assert after["log_loss"].value < before["log_loss"].value
    assert told["method"] != "none"


def test_auto_leaves_alone_what_is_calibrated_or_too_few() -> None:
    task, truth_N, logits_NC = made(3, FEWEST - 1, 3.0)
    calibration, _, told = choose(task, "auto", truth_N, logits_NC, groups=None, seed=0)
    assert (calibration.method, "fewer" in told["why"]) == ("none", True)
    task, truth_N, logits_NC = made(3, 400, 1.0)
    calibration, _, told = choose(task, "auto", truth_N, logits_NC, groups=None, seed=0)
    assert told["log_loss"][calibration.method] == min(told["log_loss"].values())
    _, _, told = choose(task, "auto", truth_N, logits_NC * np.nan, groups=None, seed=0)
    assert told["why"] == "the model's outputs are not finite"
    _, _, told = choose(task, "auto", truth_N, logits_NC, groups=np.zeros(400, int), seed=0)
    assert told["why"] == "all rows are of one group"


@pytest.mark.parametrize("method", ["beta", "isotonic"])
def test_a_class_without_rows_keeps_its_own_chances(method: str) -> None:
    task, truth_N, logits_NC = made(4, 300, 2.0)
    truth_N[truth_N == 3] = 0
    task.calibration, apart, _ = choose(task, method, truth_N, logits_NC, groups=None, seed=0)
    log_NC = task.log_chances({"logits": logits_NC})[0]
    assert np.isfinite(log_NC).all()
    assert np.allclose(np.exp(apart.log_chances(task, logits_NC)).sum(axis=1), 1)


def test_labels_of_which_several_hold() -> None:
    task = Classification.fit(ClassificationConfig(target="y"), {"y": ["a;b", "b", "a", "c"] * 3})
    task = Classification.fit(ClassificationConfig(target="y", mode="multilabel"), {"y": ["a;b", "b", "a", "c"] * 3})
    rng = np.random.default_rng(0)
    x_NC = rng.normal(size=(600, 3))
    truth_NC = (rng.uniform(size=(600, 3)) < 1 / (1 + np.exp(-x_NC))).astype(np.float32)
    for method in ("temperature", "beta", "isotonic"):
        task.calibration, _, told = choose(task, method, truth_NC, 5 * x_NC, groups=None, seed=0)
        assert told["log_loss"][method] < told["log_loss"]["none"]
