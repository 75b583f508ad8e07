"""Embeddings reduced: principal components, and linear answers by models that did not see the row."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from fuseline.lab.stacked.reduce import reduce


def cloud(rows: int, width: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 4)) @ rng.normal(size=(4, width)) * 10 + rng.normal(size=(rows, width))).astype("f4")


def test_components_are_scikit_learns_whitened() -> None:
    x_ND = cloud(60)
    arrays, answers = reduce(x_ND, None, None, components=4, seed=0)
    ours = (x_ND - arrays["mean_D"]) @ arrays["components_DP"]
    theirs = PCA(4, whiten=True).fit_transform(x_ND.astype("f8"))
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-3)
    assert answers.shape == (60, 0)


def test_linear_answers_find_what_is_there_and_nothing_in_noise() -> None:
    x_ND = cloud(200)
    truth = x_ND[:, :1] / x_ND[:, :1].std()
    noise = np.random.default_rng(1).normal(size=(200, 1))
    arrays, answers = reduce(x_ND, np.concatenate([truth, noise], axis=1), None, components=2, seed=0)
    assert np.corrcoef(answers[:, 0], truth[:, 0])[0, 1] > 0.95
    assert np.corrcoef(answers[:, 1], noise[:, 0])[0, 1] < 0.2
    full = (x_ND - arrays["mean_D"]) @ arrays["probe_DO"] + arrays["bias_O"]
    assert np.corrcoef(full[:, 0], answers[:, 0])[0, 1] > 0.95


def test_rows_of_a_group_do_not_answer_for_each_other() -> None:
    """A hundred groups whose rows are alike and whose targets are by chance: only leaking would tell them."""
    rng = np.random.default_rng(0)
    groups_N = np.repeat(np.arange(100), 3)
    x_ND = rng.normal(size=(100, 150))[groups_N] + 0.01 * rng.normal(size=(300, 150))
    wanted_NO = rng.normal(size=(100, 1))[groups_N]
    leaking = reduce(x_ND, wanted_NO, None, components=2, seed=0)[1]
    apart = reduce(x_ND, wanted_NO, groups_N, components=2, seed=0)[1]
    assert np.corrcoef(leaking[:, 0], wanted_NO[:, 0])[0, 1] > 0.9
    assert np.corrcoef(apart[:, 0], wanted_NO[:, 0])[0, 1] < 0.3


@pytest.mark.parametrize("rows", [0, 1, 2, 11])
@pytest.mark.parametrize("alike", [False, True])
def test_few_rows_and_rows_that_are_all_alike(rows: int, alike: bool) -> None:
    x_ND = np.ones((rows, 12), "f4") if alike else cloud(rows)
    arrays, answers = reduce(x_ND, np.arange(rows, dtype=float)[:, None], None, components=32, seed=0)
    assert all(np.isfinite(v).all() for v in arrays.values())
    assert np.isfinite(answers).all()
    assert arrays["components_DP"].shape[1] <= max(0, rows - 1)


def test_the_same_seed_gives_the_same_numbers_and_another_other_folds() -> None:
    x_ND, y = cloud(50), np.random.default_rng(3).normal(size=(50, 2))
    a, b, c = (reduce(x_ND, y, None, components=3, seed=s)[1] for s in (5, 5, 6))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
