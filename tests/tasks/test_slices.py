"""Groups of rows by any column, and the metrics in each."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from fuseline.tasks.bins import ABSENT, OTHER, Bins
from fuseline.tasks.classification import Classification, ClassificationConfig
from fuseline.tasks.slices import sliced


def test_amounts_are_cut_at_quartiles_and_other_cells_are_values() -> None:
    ages = Bins.fit("age", [*range(100), None])
    assert [ages.of(v) for v in (-5, 30, 99.0, "60", None, float("nan"), "old", True)] == [
        "below 24.75",
        "from 24.75 below 49.5",
        "from 74.25",
        "from 49.5 below 74.25",
        ABSENT,
        ABSENT,
        OTHER,
        OTHER,
    ]
    stages = Bins.fit("stage", [1, 2, 2.0, "3"])
    assert (stages.of(2), stages.of("2.0"), stages.of(7)) == ("2", "2", OTHER)
    assert Bins.fit("sex", ["f", "m", " "]).of("x") == OTHER
    assert Bins.from_dict(json.loads(json.dumps(ages.to_dict()))) == ages


@pytest.mark.parametrize("cells", [[], [None, None], [b"\x00", [1], {"a": 1}], [math.inf, -math.inf, 1]])
def test_whatever_a_column_holds_it_has_groups(cells: list[Any]) -> None:
    bins = Bins.fit("x", cells)
    assert all(isinstance(bins.of(c), str) for c in [*cells, None, "", 3])


def test_many_values_become_other() -> None:
    bins = Bins.fit("id", [f"p{i}" for i in range(100)])
    assert {bins.of(f"p{i}") for i in range(100)} == {OTHER}, "names of people make no groups"
    bins = Bins.fit("site", [f"s{i}" for i in range(30)] * 20 + ["big"])
    assert sum(bins.of(f"s{i}") != OTHER for i in range(30)) == 20
    assert bins.of("big") == OTHER


def test_long_numbers_are_told_apart() -> None:
    sites = Bins.fit("site", [1234567, 1234568, "1234568.0"])
    assert [sites.of(1234567), sites.of("1234568")] == ["1234567", "1234568"]
    amounts = Bins.fit("amount", [1e7 + i for i in range(100)])
    assert len({amounts.of(1e7 + i) for i in range(100)}) == 4


def test_the_worst_group_is_found_and_small_ones_are_not_judged() -> None:
    task = Classification.fit(ClassificationConfig(target="y"), {"y": ["a", "b", "c"] * 5})
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 305)
    site = np.array(["north"] * 150 + ["south"] * 150 + ["tiny"] * 5)
    logits = 4.0 * (truth[:, None] == np.arange(3)) + rng.normal(size=(305, 3))
    logits[site == "south"] = rng.normal(size=(150, 3))  # knows nothing there
    found = sliced(task, truth, {"logits": logits}, {"site": site.tolist()}, bootstrap=100)
    north, south, tiny = found["columns"]["site"]
    assert north["metrics"]["macro_f1"]["value"] > 0.9 > south["metrics"]["macro_f1"]["high"]
    assert tiny == {"group": "tiny", "rows": 5, "few": True, "metrics": {}}
    assert (found["worst"]["group"], found["worst"]["clear"]) == ("south", True)
    assert found["worst"]["others"] == pytest.approx(north["metrics"]["macro_f1"]["value"], abs=0.05)
    json.dumps(found)


def test_one_group_alone_is_no_worst_one() -> None:
    task = Classification.fit(ClassificationConfig(target="y"), {"y": ["a", "b"] * 5})
    truth = np.array([0, 1] * 20)
    found = sliced(task, truth, {"logits": np.zeros((40, 2))}, {"site": ["x"] * 40})
    assert found["worst"] is None
