"""Against plain loops over all orders of ties, and against scikit-learn's nDCG."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from fuseline.tasks import ranking
from fuseline.tasks.ranking import AT, CUT, place


def _vectors(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Query and candidate vectors whose products are these scores."""
    return scores, np.eye(scores.shape[1])


def _by_hand(scores_N: list[float], right_N: list[bool]) -> dict[str, float]:
    """One query: the mean over every order of the candidates that sorts their scores."""
    found: list[dict[str, float]] = []
    for order in permutations(range(len(scores_N))):
        if any(scores_N[a] < scores_N[b] for a, b in pairwise(order)):
            continue
        hits = [right_N[i] for i in order]
        first = hits.index(True)
        gain = sum(h / np.log2(i + 2) for i, h in enumerate(hits[:CUT]))
        ideal = sum(1 / np.log2(i + 2) for i in range(min(CUT, sum(hits))))
        one = {f"recall_at_{k}": float(first < k) for k in AT}
        found.append(one | {"mrr": 1 / (first + 1), f"ndcg_at_{CUT}": gain / ideal, "rank": first + 1})
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_figure_is_its_mean_over_the_orders_that_ties_allow(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    scores = np.array([[data.draw(st.integers(0, 2)) / 2 for _ in range(n)] for _ in range(n)])
    left = np.array([data.draw(st.integers(0, 2)) for _ in range(n)])
    right = np.arange(n)
    found = place(*_vectors(scores), left, right)
    for q in range(n):
        wanted = _by_hand(scores[q].tolist(), (left == left[q]).tolist())
        assert {k: v[q] for k, v in found.items()} == pytest.approx(wanted)


def test_as_scikit_learn_has_it() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(40, 40)), 1)  # many ties
    codes = rng.integers(0, 25, 40)
    found = place(*_vectors(scores), codes, np.arange(40))
    truth = (codes[:, None] == codes[None]).astype(int)
    assert (truth.sum(axis=1) > 1).any()
    assert found[f"ndcg_at_{CUT}"].mean() == pytest.approx(ndcg_score(truth, scores, k=CUT))
    clear = rng.normal(size=(40, 40))
    found = place(*_vectors(clear), np.arange(40), np.arange(40))
    for k in AT:
        assert found[f"recall_at_{k}"].mean() == pytest.approx(top_k_accuracy_score(np.arange(40), clear, k=k))
    assert found["mrr"].mean() == pytest.approx(label_ranking_average_precision_score(np.eye(40), clear))


def test_one_vector_for_everything_is_chance() -> None:
    n = 50
    found = place(np.ones((n, 3)), np.ones((n, 3)), np.arange(n), np.arange(n))
    for k in AT:
        assert found[f"recall_at_{k}"] == pytest.approx(k / n)
    assert found["mrr"] == pytest.approx(np.mean(1 / np.arange(1, n + 1)))
    assert found["rank"] == pytest.approx((n + 1) / 2)


def test_rows_at_once_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    a, b, codes = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)), rng.integers(0, 20, 30)
    whole = place(a, b, codes, np.arange(30))
    monkeypatch.setattr(ranking, "CELLS", 70)
    for name, values in place(a, b, codes, np.arange(30)).items():
        np.testing.assert_allclose(values, whole[name])


def test_nothing_is_scored_of_no_rows() -> None:
    assert all(v.shape == (0,) for v in place(np.empty((0, 3)), np.empty((0, 3)), np.empty(0), np.empty(0)).values())
