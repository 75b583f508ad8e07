"""Thresholds with a finite-sample correction, groups and fallbacks, and coverage where it can be counted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fuseline.tasks.classification import Classification, ClassificationConfig
from fuseline.tasks.conformal import FEWEST, Conformal, Group, class_scores, fit_conformal, quantile, scores_of
from fuseline.tasks.forecast import Forecast, ForecastConfig
from fuseline.tasks.regression import Regression, RegressionConfig
from fuseline.tasks.sure import intervals_of, sets_of


def test_the_threshold_is_the_smallest_that_the_finite_sample_asks_for() -> None:
    scores = np.arange(1.0, 10.0)[:, None]  # nine rows: (9 + 1) 0.9 = 9, the largest
    assert quantile(scores, 0.9)[0][0] == 9.0
    assert quantile(scores, 0.5)[0][0] == 5.0
    assert quantile(scores[:8], 0.9)[0][0] == math.inf  # ceil(8.1) is more than there are


def test_ties_and_unknown_truths() -> None:
    threshold, count = quantile(np.array([[1.0], [1.0], [1.0], [np.nan], [2.0]]), 0.6)
    assert (threshold[0], count[0]) == (1.0, 4)
    assert quantile(np.full((5, 1), np.nan), 0.5)[0][0] == math.inf
    assert quantile(np.zeros((0, 1)), 0.5)[0][0] == math.inf


def test_scores_of_classes() -> None:
    log_BC = np.log(np.array([[0.5, 0.3, 0.2]]))
    assert np.allclose(class_scores(log_BC, "lac"), [[0.5, 0.7, 0.8]])
    assert np.allclose(class_scores(log_BC, "aps"), [[0.5, 0.8, 1.0]])
    assert np.allclose(class_scores(log_BC, "raps"), [[0.5, 0.9, 1.2]])


def drawn(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of four classes and logits that know a little of them."""
    truth_N = rng.integers(0, 4, rows)
    return truth_N, rng.normal(size=(rows, 4)) + 1.5 * (truth_N[:, None] == np.arange(4))


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_sets_hold_the_truth_as_often_as_stated(method: str) -> None:
    task = Classification.fit(ClassificationConfig(target="y"), {"y": ["a", "b", "c", "d"] * 3})
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        truth_N, logits_NC = drawn(rng, 100)
        conformal = fit_conformal(
            [(("x",), scores_of(task, method, truth_N, {"logits": logits_NC}), None)], coverage=0.9, method=method
        )
        truth_N, logits_NC = drawn(rng, 100)
        found = [conformal.find(("x",), None)] * 100
        inside_NC = sets_of(task, {"logits": logits_NC}, method, found)
        covered.append(inside_NC[np.arange(100), truth_N].mean())
    # 20,000 rows: within 2 points of what is stated, from above the finite-sample bound 0.9 + 1/101.
    assert 0.89 < np.mean(covered) < 0.92


def test_intervals_of_a_number_are_as_wide_as_held_out_errors() -> None:
    task = Regression.fit(RegressionConfig(target="y"), {"y": [0.0, 1.0]})
    rng = np.random.default_rng(1)
    truth_N = rng.normal(size=(400, 1))
    outputs = {"prediction": truth_N + rng.normal(0, 0.5, (400, 1))}
    conformal = fit_conformal([(None, scores_of(task, "lac", truth_N, outputs), None)], coverage=0.8, method="lac")
    found = conformal.find(("x",), None)
    assert found is not None
    assert found.threshold_E[0] == pytest.approx(
        0.5 * 1.2816, rel=0.15
    )  # the 90 % quantile of a normal: two-sided 80 %
    low, high = intervals_of(task, {"prediction": np.array([[3.0]])}, [found])
    assert (high - low)[0, 0] == pytest.approx(2 * found.threshold_E[0])


def test_quantiles_of_a_forecast_are_widened_or_drawn_together_step_by_step() -> None:
    task = Forecast.fit(ForecastConfig(target="y@next"), {"y@next": [[1.0, 2.0], [2.0, 4.0], [0.0, 3.0]]})
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(500, 2, 1))
    truth[:50, 1] = np.nan
    quantiles = np.zeros((500, 2, 1, 3))
    quantiles[:, 0, :, 0], quantiles[:, 0, :, 2] = -0.1, 0.1  # far too narrow
    quantiles[:, 1, :, 0], quantiles[:, 1, :, 2] = -9.0, 9.0  # far too wide
    outputs = {"forecast": quantiles}
    conformal = fit_conformal([(None, scores_of(task, "lac", truth, outputs), None)], coverage=0.9, method="lac")
    found = conformal.find((), None)
    assert found is not None
    assert found.rows == 450
    low, high = intervals_of(task, {"forecast": quantiles[:1]}, [found])
    assert np.allclose(high - low, 2 * 1.645, rtol=0.15)


def test_quantiles_never_cross() -> None:
    task = Forecast.fit(ForecastConfig(target="y@next"), {"y@next": [[1.0], [2.0]]})
    conformal = Conformal(0.9, "lac", [Group(None, None, 99, np.array([-50.0]))])
    low, high = intervals_of(task, {"forecast": np.array([[[[0.0, 1.0, 4.0]]]])}, [conformal.find((), None)])
    assert low[0, 0] == high[0, 0] == 2.0


def test_a_group_with_too_few_rows_takes_a_coarser_one_and_says_so() -> None:
    rng = np.random.default_rng(3)

    def scores(rows: int, most: float) -> np.ndarray:
        return rng.uniform(0, most, (rows, 1))

    by = [("sex: f",)] * 90 + [("sex: m",)] * 10
    conformal = fit_conformal(
        [
            (None, scores(100, 1.0), by),
            (("a", "b"), scores(100, 1.0), by),
            (("a",), scores(100, 3.0), by),
            (("b",), scores(FEWEST - 1, 9.0), None),
        ],
        coverage=0.9,
        method="lac",
    )
    conformal = Conformal.from_dict(json.loads(json.dumps(conformal.to_dict())))
    own = conformal.find(("a", "b"), ("sex: f",))
    coarser = conformal.find(("a", "b"), ("sex: m",))
    stranger = conformal.find(("b", "c"), ("sex: f",))
    assert own is not None
    assert coarser is not None
    assert stranger is not None
    assert (own.rows, own.note) == (90, "")
    assert coarser.rows == 100
    assert "sex: m" in coarser.note
    assert stranger.note.startswith("no guarantee")
    alone = conformal.find(("a", "c"), None)
    assert alone is not None
    assert alone.threshold_E[0] > 2  # the widest of related groups: that of `a` alone
    assert fit_conformal([(None, scores(5, 1.0), None)], coverage=0.9, method="lac").find(("a",), None) is None


def test_a_coverage_that_no_row_count_allows_has_no_threshold() -> None:
    conformal = fit_conformal([(None, np.zeros((40, 1)), None)], coverage=0.99, method="lac")
    again = Conformal.from_dict(json.loads(json.dumps(conformal.to_dict())))
    found = again.find((), None)
    assert found is not None
    assert found.threshold_E[0] == math.inf
