"""Scores and choices against hand-made ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuseline.labelling import choose
from fuseline.labelling.choose import badge, highest, k_center, residual
from fuseline.labelling.measures import disagreement, unsure

CHANCES = np.array([[0.98, 0.01, 0.01], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("measure", ["entropy", "margin", "least_confidence"])
def test_unsure_is_nothing_of_a_sure_row_and_all_of_an_even_one(measure: str) -> None:
    scores_N = unsure(CHANCES, measure, several=False)
    assert scores_N[4] == 0
    assert scores_N[3] == pytest.approx(1)
    assert ((scores_N >= 0) & (scores_N <= 1 + 1e-12)).all()
    # Of two likely classes and three: what tells the measures apart.
    assert (scores_N[1] > scores_N[2]) == (measure == "margin")


@pytest.mark.parametrize("measure", ["entropy", "margin", "least_confidence"])
def test_of_several_labels_the_unsure_row_comes_first(measure: str) -> None:
    scores_N = unsure(np.array([[0.99, 0.01], [0.5, 0.5], [0.9, 0.4]]), measure, several=True)
    assert scores_N[1] == pytest.approx(1)
    assert scores_N.argsort().tolist() == [0, 2, 1]


def test_entropy_by_hand() -> None:
    assert unsure(np.array([[0.25, 0.75]]), "entropy", several=False)[0] == pytest.approx(0.811278)


def test_a_committee_that_agrees_does_not_disagree() -> None:
    same = np.repeat(CHANCES[None], 3, axis=0)
    valid = np.ones((3, 5), bool)
    np.testing.assert_allclose(disagreement(same, valid, classes=True), 0, atol=1e-12)
    apart = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert disagreement(apart, np.ones((2, 1), bool), classes=True)[0] == pytest.approx(np.log(2))
    assert disagreement(apart[:, :, :1] * 4, np.ones((2, 1), bool), classes=False)[0] == pytest.approx(2.0)
    assert np.isnan(disagreement(apart, np.array([[True], [False]]), classes=True)[0])
    third = np.concatenate([apart, [[[7.0, 7.0]]]])  # a member that did not answer is not asked
    assert disagreement(third, np.array([[True], [True], [False]]), classes=False)[0] == pytest.approx(0.5)


def test_the_highest_with_ties_and_undefined_ones() -> None:
    assert highest(np.array([0.1, np.nan, 0.9, 0.9]), 3).tolist() == [2, 3, 0]
    assert highest(np.array([np.nan]), 3).tolist() == []


def test_k_center_covers_the_clusters_and_keeps_off_labelled_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "BLOCK", 7)  # several blocks
    rng = np.random.default_rng(0)
    centre_KE = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    x_NE = (centre_KE[np.arange(40) % 4] + rng.normal(size=(40, 2))).astype(np.float32)
    places, gaps = k_center(x_NE, 4)
    assert set(places % 4) == {0, 1, 2, 3}
    assert np.isinf(gaps[0])
    assert (np.diff(gaps[1:]) <= 0).all()
    places, gaps = k_center(x_NE, 2, labelled_LE=centre_KE[:2])
    assert set(places % 4) == {2, 3}
    assert gaps.min() > 40
    places, gaps = k_center(np.ones((3, 2)), 5)  # all alike: still rows, each once
    assert sorted(places.tolist()) == [0, 1, 2]
    assert gaps[1:].tolist() == [0, 0]


def naive_badge(p_NC: np.ndarray, x_NE: np.ndarray, n: int, rng: Any) -> list[int]:
    """As the paper says it, with every gradient written out."""
    g_NG = np.einsum("nc,ne->nce", residual(p_NC, several=False), x_NE).reshape(len(x_NE), -1)
    places = [int((g_NG**2).sum(axis=1).argmax())]
    while len(places) < n:
        gap_N = np.min([((g_NG - g_NG[p]) ** 2).sum(axis=1) for p in places], axis=0)
        gap_N[places] = 0
        places.append(int(rng.choice(len(x_NE), p=gap_N / gap_N.sum())))
    return places


def test_badge_is_kmeans_plus_plus_on_gradients_that_are_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "BLOCK", 9)
    rng = np.random.default_rng(1)
    x_NE = rng.normal(size=(50, 6))
    p_NC = rng.dirichlet(np.ones(4), size=50)
    places, lengths = badge(p_NC, x_NE, 12, np.random.default_rng(5))
    assert places.tolist() == naive_badge(p_NC, x_NE, 12, np.random.default_rng(5))
    assert len(set(places.tolist())) == 12
    wanted = np.linalg.norm(residual(p_NC, several=False), axis=1) * np.linalg.norm(x_NE, axis=1)
    np.testing.assert_allclose(lengths, wanted[places])


def test_badge_with_nothing_to_tell_rows_apart_takes_each_once() -> None:
    places, _ = badge(np.full((5, 2), 0.5), np.ones((5, 3)), 9, np.random.default_rng(0))
    assert sorted(places.tolist()) == [0, 1, 2, 3, 4]
    sure = np.array([[1.0, 0.0]] * 4)
    assert len(badge(sure, np.ones((4, 3)), 2, np.random.default_rng(0))[0]) == 2
