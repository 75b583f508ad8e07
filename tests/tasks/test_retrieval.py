"""Retrieval: digests, answers, metrics and what is left out of them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from fuseline.errors import FuselineError
from fuseline.recipe import read_options
from fuseline.tasks.paired import drop
from fuseline.tasks.retrieval import Retrieval, RetrievalConfig, digest

N, E = 60, 8


def task(**options: Any) -> Retrieval:
    made = Retrieval.fit(RetrievalConfig(left=("title", "note"), right=("photo",), **options), {})
    inputs = {"title": ("title",), "note": ("note",), "photo": ("file",)}
    made.check({name: SimpleNamespace(columns=columns) for name, columns in inputs.items()})  # type: ignore[misc]
    return made


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def outputs(noise: float = 0.5, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(N, E))
    right = left + noise * rng.normal(size=(N, E))
    return {"left": unit(left).astype(np.float32), "right": unit(right).astype(np.float32)}


def alone() -> np.ndarray:
    """Every row's sides are like no other's."""
    return np.arange(1, 2 * N + 1).reshape(N, 2)


def test_reads_the_columns_of_its_sides_and_survives_json() -> None:
    made = task()
    assert (made.columns, made.also) == ((), ("title", "note", "file"))
    again = Retrieval.from_state(json.loads(json.dumps(made.state())))
    assert again.state() == made.state()
    cells = {"title": "A frog.", "note": None, "file": "frog.png"}
    np.testing.assert_array_equal(again.encode(cells), made.encode(cells))


@pytest.mark.parametrize(
    ("left", "right", "words"), [(["title"], ["gone"], "no input"), (["title"], ["photo"], "on neither side")]
)
def test_every_input_is_on_a_side(left: list[str], right: list[str], words: str) -> None:
    made = Retrieval.fit(RetrievalConfig(left=tuple(left), right=tuple(right)), {})
    inputs = {name: SimpleNamespace(columns=(name,)) for name in ("title", "note", "photo")}
    with pytest.raises(FuselineError, match=words):
        made.check(inputs)  # type: ignore[arg-type]


def test_an_input_may_not_be_on_both_sides() -> None:
    with pytest.raises(FuselineError, match="name an input twice"):
        read_options(RetrievalConfig, {"left": ["a"], "right": ["a", "b"]}, "task")


def test_digests_tell_contents_apart() -> None:
    assert digest([None, float("nan")]) == 0
    same = [["A frog. "], ["A frog."]], [[b"x"], [{"bytes": b"x", "path": None}]], [[1.5], [np.float32(1.5)]]
    other = [["A frog."], ["a frog."]], [["ab", "c"], ["a", "bc"]], [["a", None], [None, "a"]], [[b"x"], [b"y"]]
    assert all(digest(a) == digest(b) for a, b in same)
    assert all(digest(a) != digest(b) for a, b in other)
    found = [digest([f"text {i}"]) for i in range(1000)]
    assert len(set(found)) == 1000
    assert max(found) < 2**53, "a float64 must hold it, for several tasks are packed as such"


def test_metrics_are_those_of_scikit_learn() -> None:
    out = outputs()
    scores = task().score(alone(), out)
    similar = out["left"] @ out["right"].T
    for k in (1, 5, 10):
        there = top_k_accuracy_score(np.arange(N), similar, k=k)
        back = top_k_accuracy_score(np.arange(N), similar.T, k=k)
        assert scores.metrics[f"recall_at_{k}_left_to_right"].value == pytest.approx(there)
        assert scores.metrics[f"recall_at_{k}_right_to_left"].value == pytest.approx(back)
        assert scores.metrics[f"recall_at_{k}"].value == pytest.approx((there + back) / 2)
    assert 0.1 < scores.metrics["mrr"].value < 0.99
    assert scores.details["chance"]["recall_at_5"] == pytest.approx(5 / N)
    json.dumps(scores.to_dict(), allow_nan=False)


def test_rows_that_lack_a_side_are_left_out_and_counted() -> None:
    out, kept = outputs(), np.arange(N) >= 7
    out["left"][:4] = 0
    out["right"][4:7] = 0
    scores = task().score(alone(), out, bootstrap=20)
    assert (scores.details["candidates"], scores.details["left_out"], scores.rows) == (N - 7, 7, N)
    without = task().score(alone()[kept], {k: v[kept] for k, v in out.items()})
    for name, metric in scores.metrics.items():
        assert metric.value == pytest.approx(without.metrics[name].value)
    errors = task().judge(alone(), out, [])["error"]
    assert [e is None for e in errors] == [not k for k in kept]


def test_rows_with_the_same_content_are_right_answers_of_each_other() -> None:
    out, targets = outputs(0.0), alone()
    out["left"][1], out["right"][[0, 1]] = out["left"][0], out["right"][[1, 0]]  # crossed over, but the same text
    name = "recall_at_1_left_to_right"
    assert task().score(targets, out).metrics[name].value < 1
    targets[1, 0] = targets[0, 0]
    scores = task().score(targets, out)
    assert scores.metrics[name].value == 1
    assert scores.details["shared"] == 2


def test_nothing_is_scored_where_no_row_has_both_sides_or_the_model_diverged() -> None:
    out = outputs()
    for broken in ({**out, "left": np.zeros_like(out["left"])}, {**out, "left": np.full_like(out["left"], np.nan)}):
        scores = task().score(alone(), broken, bootstrap=10)
        assert all(np.isnan(m.value) and m.low is None for m in scores.metrics.values())
        assert scores.details == {"candidates": 0, "left_out": N}


def test_intervals_hold_the_value_and_shrink_with_noise_gone() -> None:
    scores = task().score(alone(), outputs(0.8), bootstrap=200)
    for metric in scores.metrics.values():
        assert metric.low is not None
        assert metric.low <= metric.value <= metric.high
    assert scores.metrics["mrr"].high - scores.metrics["mrr"].low > 0.02


def test_two_models_compared_on_the_same_rows() -> None:
    worse = drop(task(), "mrr", alone(), outputs(0.3), outputs(1.5), bootstrap=100)
    assert worse.low is not None
    assert worse.low > 0


def test_an_answer_is_the_likeness_of_its_sides_and_carries_the_vectors() -> None:
    out = outputs()
    out["right"][1] = 0
    first, second, *_ = task().decode(out)
    assert first.value == pytest.approx(float(out["left"][0] @ out["right"][0]), abs=1e-6)
    assert second.value is None
    assert first.details is not None
    assert second.details is not None
    np.testing.assert_allclose(first.details["left"], out["left"][0], atol=1e-6)
    assert second.details["right"] is None
    json.dumps([first.details, second.details], allow_nan=False)
    assert task().scale(out).shape == (N, 2 * E)
