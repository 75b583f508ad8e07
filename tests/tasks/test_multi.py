"""Several tasks in one: packing, scoring and answering as each task does alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.recipe import read_options
from fuseline.tasks import task_class
from fuseline.tasks.multi import Multi, MultiConfig

N = 80
TASKS: dict[str, Any] = {
    "finding": {"kind": "classification"},
    "age": {"kind": "regression", "target": "years"},
    "tags": {"kind": "classification", "mode": "multilabel"},
    "pair": {"kind": "retrieval", "left": ["a"], "right": ["b"]},
}
CELLS: dict[str, list[Any]] = {
    "finding": ["no", "yes", "maybe", None] * (N // 4),
    "years": [None if i % 5 == 0 else 20.0 + i for i in range(N)],
    "tags": ["x;y" if i % 3 else "y;z" for i in range(N)],
}


@pytest.fixture(scope="module")
def task() -> Multi:
    return Multi.fit(MultiConfig(tasks=TASKS), CELLS)


@pytest.fixture(scope="module")
def outputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "finding.logits": rng.normal(size=(N, 3)),
        "age.prediction": rng.normal(60, 20, (N, 1)),
        "tags.logits": rng.normal(size=(N, 3)),
        "pair.left": rng.normal(size=(N, 4)),
        "pair.right": rng.normal(size=(N, 4)),
    }


def rows() -> list[dict[str, Any]]:
    return [{column: cells[i] for column, cells in CELLS.items()} for i in range(N)]


def stacked(task: Multi) -> np.ndarray:
    found = [task.encode(row) for row in rows()]
    assert all(f is not None for f in found)
    return np.stack([f for f in found if f is not None])


def test_a_target_is_the_name_unless_it_is_given(task: Multi) -> None:
    assert task.columns == ("finding", "years", "tags")


def test_each_task_gets_its_own_targets_back(task: Multi) -> None:
    packed = stacked(task)
    for name, own in task.tasks.items():
        known = task.known(name, packed)
        wanted = [own.encode(row) for row in rows()]
        assert known.tolist() == [w is not None for w in wanted]
        found = task.unpack(name, packed[known])
        np.testing.assert_array_equal(found, np.stack([w for w in wanted if w is not None]))
        assert found.dtype == next(w for w in wanted if w is not None).dtype


def test_a_row_without_any_target_has_none() -> None:
    some = {name: TASKS[name] for name in ("finding", "age")}
    made = Multi.fit(MultiConfig(tasks=some), CELLS)
    assert made.encode({"finding": None, "years": None}) is None
    assert made.encode({"finding": None, "years": 3.0}) is not None


def test_metrics_are_each_tasks_own_over_the_rows_that_have_its_target(task: Multi, outputs: Any) -> None:
    packed = stacked(task)
    scores = task.score(packed, outputs, bootstrap=30)
    for name, own in task.tasks.items():
        known = task.known(name, packed)
        alone = {k.removeprefix(f"{name}."): v[known] for k, v in outputs.items() if k.startswith(f"{name}.")}
        wanted = own.score(task.unpack(name, packed[known]), alone)
        assert scores.details["tasks"][name]["rows"] == int(known.sum()) == wanted.rows
        for key, metric in wanted.metrics.items():
            found = scores.metrics[f"{name}.{key}"]
            assert found.value == pytest.approx(metric.value, nan_ok=True)
            assert found.higher_is_better == metric.higher_is_better
            assert found.low is None or found.low <= found.value <= found.high
    values = [scores.metrics[f"{n}"].value for n in ("finding.macro_f1", "age.r2", "tags.macro_f1", "pair.mrr")]
    assert scores.metrics["score"].value == pytest.approx(np.mean(values))
    assert scores.metrics["score"].low is not None


def test_a_task_without_known_rows_is_left_out_of_the_score(task: Multi, outputs: Any) -> None:
    packed = stacked(task)[::4]  # finding is known, age of most
    packed[:, task.width + 1] = 0
    scores = task.score(packed, {k: v[::4] for k, v in outputs.items()}, bootstrap=5)
    assert np.isnan(scores.metrics["age.rmse"].value)
    assert np.isfinite(scores.metrics["score"].value)


def test_answers_hold_every_tasks_value(task: Multi, outputs: Any) -> None:
    decoded = task.decode(outputs)
    assert len(decoded) == N
    for name, own in task.tasks.items():
        alone = own.decode({k.removeprefix(f"{name}."): v for k, v in outputs.items() if k.startswith(f"{name}.")})
        for one, whole in zip(alone, decoded, strict=True):
            assert whole.value[name] == one.value
            told = (whole.details or {}).get(name, {})
            assert told.get("probabilities") == one.probabilities
    assert decoded[0].probabilities is None
    assert len(decoded[0].details["pair"]["left"]) == 4  # type: ignore[index]


def test_errors_rank_rows_from_right_to_wrong(outputs: Any) -> None:
    some = {name: TASKS[name] for name in ("finding", "age")}
    made = Multi.fit(MultiConfig(tasks=some), CELLS)
    packed = np.stack([made.encode(r) for r in rows() if made.encode(r) is not None])  # type: ignore[arg-type]
    perfect = {
        "finding.logits": 20 * np.eye(3)[made.unpack("finding", np.nan_to_num(packed)).astype(int)],
        "age.prediction": np.nan_to_num(made.unpack("age", packed)),
    }
    decoded = made.decode(perfect)
    right = made.judge(packed, perfect, decoded)["error"]
    assert all(e < 0.51 for e in right)
    wrong = {**perfect, "finding.logits": -perfect["finding.logits"]}
    assert np.mean(made.judge(packed, wrong, made.decode(wrong))["error"]) > np.mean(right)


def test_rows_of_which_none_has_a_tasks_target_are_judged_by_the_others(task: Multi, outputs: Any) -> None:
    some = [i for i in range(N) if CELLS["years"][i] is None and CELLS["finding"][i] is not None]
    own = {key: value[some] for key, value in outputs.items()}
    judged = task.judge(stacked(task)[some], own, task.decode(own))["error"]
    assert len(judged) == len(some)
    assert all(0 <= error <= 1 for error in judged)


def test_state_goes_through_json(task: Multi, outputs: Any) -> None:
    again = task_class("multi").from_state(json.loads(json.dumps(task.state())))
    assert again.state() == task.state()
    assert again.decode(outputs) == task.decode(outputs)
    np.testing.assert_array_equal(again.encode(rows()[1]), task.encode(rows()[1]))


def test_summary_is_each_tasks_of_the_rows_that_have_its_target() -> None:
    some = {name: TASKS[name] for name in ("finding", "age")}
    made = Multi.fit(MultiConfig(tasks=some), CELLS)
    found = made.summary({"train": {c: CELLS[c] for c in made.columns}})["tasks"]
    assert found["finding"]["counts"]["train"] == {"maybe": N // 4, "no": N // 4, "yes": N // 4}
    assert len(found["age"]["quantiles"]) == 11


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": {"finding": TASKS["finding"]}}, "at least 2"),
        ({"tasks": {"a.b": TASKS["finding"], "age": TASKS["age"]}}, "hold a dot"),
        ({"tasks": {"a": {"kind": "multi"}, "age": TASKS["age"]}}, "'multi' cannot be one of several"),
        ({"tasks": {"a": {"kind": "forecast"}, "age": TASKS["age"]}}, "'forecast' cannot be one of several"),
        ({"tasks": {"a": {"kind": "regression", "los": "mse"}, "age": TASKS["age"]}}, "task.tasks.a.los: unknown key"),
        ({"tasks": TASKS, "weights": {"age": 1.0}}, "one number to each"),
        ({"tasks": {k: TASKS[k] for k in ("finding", "age")}, "weights": {"finding": 0, "age": 0}}, "above 0"),
    ],
)
def test_what_does_not_hold_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(FuselineError, match=words):
        read_options(MultiConfig, options, "task")


def test_a_task_that_cannot_learn_says_its_column() -> None:
    with pytest.raises(FuselineError) as caught:
        Multi.fit(MultiConfig(tasks={k: TASKS[k] for k in ("finding", "age")}), {**CELLS, "years": [None] * N})
    assert caught.value.column == "years"
