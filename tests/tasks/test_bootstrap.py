from __future__ import annotations

import time

import numpy as np
import pytest

from fuseline.tasks import metrics
from fuseline.tasks.bootstrap import group_codes, intervals, resample
from fuseline.tasks.classification import Classification, ClassificationConfig


def test_weights_are_whole_groups_drawn_with_replacement():
    codes = group_codes(7, np.array(["p", "p", "q", "r", "r", "r", "q"]))
    assert codes.tolist() == [0, 0, 1, 2, 2, 2, 1]
    weights = np.concatenate(list(resample(codes, 500, seed=0)))
    assert weights.shape == (500, 7)
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all(), "three groups are drawn"
    assert (weights == weights[:, [0, 0, 2, 3, 3, 3, 2]]).all(), "a group's rows come together"
    assert len(np.unique(weights, axis=0)) == 10, "all multisets of 3 out of 3"


def test_a_row_without_a_group_is_its_own():
    codes = group_codes(5, np.array(["a", None, "a", None, float("nan")], dtype=object))
    assert codes.tolist() == [0, 1, 0, 2, 3]


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    found = intervals(lambda w: {"mean": metrics.mean(values, w)}, 400, resamples=4000, seed=1)["mean"]
    half = 1.96 * values.std() / 20
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_seeded_and_the_same_however_it_is_cut_into_chunks(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)

    def run(seed):
        return intervals(lambda w: {"m": metrics.mean(values, w)}, 50, resamples=200, seed=seed)

    whole = run(3)
    assert run(3) == whole
    assert run(4) != whole
    monkeypatch.setattr("fuseline.tasks.bootstrap.CELLS", 50 * 7)
    assert run(3)["m"] == pytest.approx(whole["m"])


def test_groups_widen_the_interval_where_rows_of_a_group_agree():
    values = np.repeat(np.random.default_rng(0).normal(size=30), 20)
    groups = np.repeat(np.arange(30), 20)

    def width(g):
        low, high = intervals(lambda w: {"m": metrics.mean(values, w)}, 600, resamples=500, groups=g)["m"]
        return high - low

    assert width(groups) > 3 * width(None)


@pytest.mark.parametrize(("rows", "groups"), [(0, None), (1, None), (5, np.zeros(5))])
def test_no_interval_without_two_things_to_draw(rows, groups):
    assert intervals(lambda w: {"m": w.sum(axis=1)}, rows, resamples=100, groups=groups) == {}


def test_no_interval_where_most_resamples_are_undefined():
    truth = np.zeros(40, dtype=bool)
    truth[0] = True  # in e^-1 of the resamples there is no positive row: defined in 63 %
    score = np.linspace(0, 1, 40)
    assert "auroc" in intervals(lambda w: {"auroc": metrics.areas(truth, score, w).auroc}, 40, resamples=400)
    one_group = np.r_[0, 1, 1 + np.arange(38) // 10]
    truth[:] = True
    assert (
        intervals(lambda w: {"auroc": metrics.areas(truth, score, w).auroc}, 40, resamples=400, groups=one_group) == {}
    )


def test_a_thousand_resamples_of_three_hundred_rows_take_less_than_two_seconds():
    generator = np.random.default_rng(0)
    task = Classification.fit(ClassificationConfig(target="y"), {"y": [f"c{i % 8}" for i in range(80)]})
    targets, logits = generator.integers(0, 8, 300), generator.normal(size=(300, 8))
    start = time.process_time()
    scores = task.score(targets, {"logits": logits}, bootstrap=1000, groups=generator.integers(0, 60, 300))
    assert time.process_time() - start < 2
    assert all(m.low <= m.value <= m.high for k, m in scores.metrics.items() if k != "ece")
