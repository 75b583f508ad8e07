"""What a budget is, and what breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from fuseline.errors import FuselineError
from fuseline.lab.compress.budget import Budget, read_budget
from fuseline.lab.compress.candidate import Candidate, Cut, Numbers, key_of


@pytest.mark.parametrize(
    ("latency", "size", "wanted"),
    [
        ("30ms", "50MB", (30.0, 50e6)),
        (30, 50, (30.0, 50e6)),
        ("0.5 s", "1 GiB", (500.0, 2.0**30)),
        ("250us", "900kb", (0.25, 900e3)),
        (None, "7", (None, 7e6)),
    ],
)
def test_units(latency: Any, size: Any, wanted: tuple[float | None, float | None]) -> None:
    budget = read_budget(latency, size, None)
    assert (budget.max_latency, budget.max_size) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("latency", "size", "drop"),
    [
        ("fast", None, None),
        ("30 MB", None, None),
        ("-3ms", None, None),
        ("0ms", None, None),
        (None, "5 parsecs", None),
        (None, None, -0.1),
        (None, None, 101.0),
        (None, None, float("nan")),
    ],
)
def test_nonsense_is_an_error_with_an_example(latency: Any, size: Any, drop: float | None) -> None:
    with pytest.raises(FuselineError) as error:
        read_budget(latency, size, drop)
    assert error.value.code == "bad_budget"
    assert error.value.hint


def trial(**change: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "failed": None,
        "drop": {"value": 0.2, "low": -1.0, "high": 1.0},
        "latency": {"1": {"median": 10.0}},
        "size_bytes": 10e6,
        "change": 0.001,
        "subsets": [
            {"present": ["a", "b"], "rows": 100, "drop": {"value": 0.2, "low": -1.0, "high": 1.0}},
            {"present": ["a"], "rows": 100, "drop": {"value": 0.4, "low": -1.0, "high": 2.0}},
        ],
    }
    return {**base, **change}


def test_each_limit_is_judged_and_said() -> None:
    budget = Budget(max_latency=5.0, max_size=5e6, max_drop=0.1)
    assert budget.why_not(trial()) == ["drop 0.20 > 0.1", "10.0 ms > 5 ms", "10.0 MB > 5 MB"]
    assert Budget(max_latency=10.0, max_size=10e6, max_drop=0.2).why_not(trial()) == []
    assert Budget(max_latency=10.0).why_not(trial(failed="no memory")) == ["no memory"]
    assert Budget(max_drop=1.0).why_not(trial(drop={"value": None, "low": None, "high": None}))


def test_a_subset_breaks_the_budget_only_where_it_is_sure() -> None:
    whole, alone = trial()["subsets"]
    surely = {**alone, "drop": {"value": 4.0, "low": 1.5, "high": 7.0}}
    budget = Budget(max_drop=0.5)
    assert "with a only" in budget.why_not(trial(subsets=[whole, surely]))[0]
    assert budget.why_not(trial(subsets=[whole, {**surely, "rows": 5}])) == []
    assert budget.why_not(trial(subsets=[whole, {**alone, "drop": {"value": 4.0, "low": 0.3, "high": 7.0}}])) == []


def test_few_rows_limit_the_change_of_the_answers_too() -> None:
    budget = Budget(max_drop=0.5)
    assert budget.why_not(trial(change=0.02)) == []
    assert "mean change" in budget.why_not(trial(change=0.03))[0]
    many = [{**entry, "rows": 500} for entry in trial()["subsets"]]
    assert budget.why_not(trial(change=0.03, subsets=many)) == []


def test_distance_grows_with_what_is_too_much() -> None:
    budget = Budget(max_latency=5.0, max_size=5e6, max_drop=0.1)
    near = budget.distance(trial(latency={"1": {"median": 6.0}}))
    assert 0 < near < budget.distance(trial())
    assert Budget(max_latency=20.0).distance(trial()) == 0


def test_candidates_have_names_that_depend_on_what_they_are() -> None:
    one = Candidate(cut=Cut(layers={"notes": 0.5}), numbers=Numbers(precision={"notes": "int8", "image": "int8"}))
    same = Candidate.model_validate(one.model_dump(mode="json"))
    assert key_of(one) == key_of(same)
    assert key_of(one) != key_of(one.model_copy(update={"student": "small"}))
    assert one.words() == "notes: 50% of layers, int8 · image: int8 · ONNX Runtime"
    assert not Cut()
    assert Cut(vocabulary=("notes",))
