"""Risk against coverage, exact bounds, and thresholds that keep to an error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from fuseline.tasks.selective import aurc, clopper_pearson, promise, risk_at, risk_coverage


def test_risk_rises_from_the_surest_rows_on() -> None:
    curve = risk_coverage(np.array([0.9, 0.5, 0.8, 0.6]), np.array([False, True, False, True]))
    assert curve.coverage_N.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk_N == pytest.approx([0, 0, 1 / 3, 0.5])
    assert risk_at(curve, 0.8) == 0.5  # four rows: 80 % of them is all four
    assert risk_at(curve, 0.5) == 0
    assert aurc(curve) == pytest.approx((0 + 0 + 1 / 3 + 0.5) / 4)


def test_rows_of_equal_certainty_are_answered_together_in_whatever_order() -> None:
    wrong = np.array([True, False, False, True])
    one = risk_coverage(np.full(4, 0.7), wrong)
    other = risk_coverage(np.full(4, 0.7), wrong[::-1])
    assert one.risk_N == pytest.approx(other.risk_N)
    assert one.risk_N == pytest.approx([0.5] * 4)


def test_nothing_to_answer() -> None:
    curve = risk_coverage(np.zeros(0), np.zeros(0, bool))
    assert np.isnan(aurc(curve))
    assert np.isnan(risk_at(curve, 0.8))
    assert promise(np.zeros(0), np.zeros(0, bool), error=0.1, confidence=0.95)["threshold"] is None


@pytest.mark.parametrize(("wrong", "rows"), [(0, 10), (3, 60), (59, 60), (60, 60), (20, 5000)])
def test_the_bound_is_the_exact_one(wrong: int, rows: int) -> None:
    want = 1.0 if wrong == rows else beta.ppf(0.95, wrong + 1, rows - wrong)
    assert clopper_pearson(wrong, rows, 0.95) == pytest.approx(want, abs=1e-9)


def test_too_few_rows_promise_nothing_and_many_do() -> None:
    sure, wrong = np.linspace(0.5, 1, 40), np.zeros(40, bool)
    assert promise(sure, wrong, error=0.05, confidence=0.95)["threshold"] is None
    sure, wrong = np.linspace(0.5, 1, 4000), np.zeros(4000, bool)
    found = promise(sure, wrong, error=0.05, confidence=0.95)
    assert (found["answered"], found["threshold"]) == (1.0, 0.5)


def test_the_stated_error_is_broken_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(0)
    broken = answered = 0
    for _ in range(100):
        sure = rng.uniform(0, 1, 400)
        found = promise(sure, rng.uniform(size=400) > sure, error=0.2, confidence=0.9)
        if found["threshold"] is not None:
            answered += 1
            # A row of certainty s is wrong with chance 1 - s: the true error above t is (1 - t) / 2.
            broken += (1 - found["threshold"]) / 2 > 0.2
    assert answered > 60
    assert broken / 100 <= 0.1
