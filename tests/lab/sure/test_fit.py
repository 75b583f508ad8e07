"""Fitting and checking on made outputs: several tasks at once, forecasts, few rows, inputs of which one is better."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fuseline.lab.sure.check import check_sure
from fuseline.lab.sure.fit import fit_sure, sets_of
from fuseline.lab.training.evaluate import Outputs
from fuseline.package.files import finite
from fuseline.recipe import EvaluationSpec
from fuseline.tasks.forecast import Forecast, ForecastConfig
from fuseline.tasks.multi import Multi, MultiConfig
from fuseline.tasks.sure import Sure

NAMES = ("good", "poor")


def several() -> Multi:
    tasks = {"kind": {"kind": "classification"}, "size": {"kind": "regression"}}
    cells = {"kind": ["a", "b", "c"] * 3, "size": [1.0, 2.0, 3.0] * 3}
    return Multi.fit(MultiConfig(tasks=tasks), cells)  # type: ignore[arg-type]


def outputs_of(task: Multi, rows: int, seed: int) -> Outputs:
    """`good` tells a lot, `poor` little, nothing nothing; a third lacks `good`, a fifth of the kinds is not known."""
    rng = np.random.default_rng(seed)
    kind, size = rng.integers(0, 3, rows), rng.normal(10, 3, rows)
    targets = [
        task.encode({"kind": None if i % 5 == 0 else "abc"[kind[i]], "size": float(size[i])}) for i in range(rows)
    ]
    present_NM = np.stack([rng.random(rows) > 0.33, np.ones(rows, bool)], axis=1)
    by_subset: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    for key in sets_of(NAMES, present_NM):
        seen = np.where(("good" in key) & present_NM[:, 0], 4.0, 1.0 if "poor" in key else 0.0)
        logits = seen[:, None] * (kind[:, None] == np.arange(3)) + rng.normal(size=(rows, 3))
        answer = size + rng.normal(size=rows) * (5 - seen)
        by_subset[key] = {"kind.logits": 2 * logits, "size.prediction": answer[:, None]}
    return Outputs(np.arange(rows), np.stack([t for t in targets if t is not None]), present_NM, by_subset)


def fitted(task: Any, outputs: Outputs, **evaluation: Any) -> tuple[Sure, list[str]]:
    cells = [{"sex": "fm"[i % 2]} for i in range(len(outputs.rows))]
    spec = EvaluationSpec.model_validate(evaluation)
    return fit_sure(task, spec, NAMES, outputs, cells=cells, groups=None, seed=0, odd={}, about={})


def test_several_tasks_each_keep_their_promise_for_every_set_of_inputs() -> None:
    task = several()
    sure, notes = fitted(
        task,
        outputs_of(task, 900, 0),
        calibration="auto",
        conformal={"coverage": 0.9, "by": ["sex"]},
        abstain={"error": 0.2},
    )
    assert not notes
    assert task.tasks["kind"].calibration.method != "none"  # type: ignore[attr-defined]
    new = outputs_of(task, 900, 1)
    cells = [{"sex": "fm"[i % 2]} for i in range(900)]
    told = check_sure(task, Sure.from_dict(json.loads(json.dumps(finite(sure.to_dict())))), NAMES, new, cells)
    sizes = {}
    for name in ("kind", "size"):
        for group in told["tasks"][name]["conformal"]:
            # The answer is always in its set: for the kinds that are nearly always right that is more than was stated.
            assert 0.85 < group["coverage"] <= (1.0 if name == "kind" else 0.95), (name, group)
            if group["kind"] == "shown":
                sizes[name, tuple(group["present"])] = group["size"]
    for name in ("kind", "size"):
        assert sizes[name, ("good", "poor")] < sizes[name, ("poor",)] < sizes[name, ()]
    checked = told["tasks"]["kind"]["selective"]["abstain"]["checked"]
    assert all(c["error"] is None or c["error"] <= 0.23 for c in checked)
    assert checked[1]["answered"] > 0.9 > checked[3]["answered"]  # everything shown; `poor` alone
    calibration = told["tasks"]["kind"]["calibration"]
    assert calibration["after"]["ece"] < calibration["before"]["ece"]
    assert {g["rows"] for g in told["tasks"]["kind"]["conformal"] if g["kind"] == "all"} == {720}
    json.dumps(finite(told), allow_nan=False)


def test_so_few_rows_promise_nothing_and_say_so() -> None:
    task = several()
    sure, notes = fitted(
        task, outputs_of(task, 20, 0), calibration="auto", conformal={"coverage": 0.9}, abstain={"error": 0.1}
    )
    assert [n.split(":")[0] for n in notes] == ["kind", "kind", "kind", "size"]
    assert "no guarantee" in notes[-1]
    row = {k: v[:1] for k, v in outputs_of(task, 20, 1).full.items()}
    [answer] = sure.of(task, row, [("poor",)], [{}])
    assert answer["kind"].abstained
    assert answer["size"].notes[0].startswith("no guarantee")


def test_a_forecast_whose_quantiles_are_too_narrow_is_widened_to_what_is_stated() -> None:
    task = Forecast.fit(ForecastConfig(target="y@next"), {"y@next": [[1.0, 2.0], [2.0, 4.0]]})

    def made(seed: int) -> Outputs:
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=(600, 2, 1)) * np.array([1.0, 3.0])[:, None]
        truth[::7, 1] = np.nan
        quantiles = np.tile(np.array([-0.3, 0.0, 0.3]), (600, 2, 1, 1))
        arrays = {"forecast": quantiles, "naive": truth * 0, "seasonal": truth * 0}
        present = np.ones((600, 2), bool)
        return Outputs(np.arange(600), truth, present, dict.fromkeys(sets_of(NAMES, present), arrays))

    sure, _ = fitted(task, made(0), conformal={"coverage": 0.8})
    told = check_sure(task, sure, NAMES, made(1), [{} for _ in range(600)])["tasks"][""]
    for group in told["conformal"]:
        assert group["coverage"] == pytest.approx(0.8, abs=0.04)
    [row] = sure.of(task, {k: v[:1] for k, v in made(1).full.items()}, [NAMES], [{}])
    low, high = (row[""].details["interval"][end] for end in ("low", "high"))
    assert [h - lo for lo, h in zip(low, high, strict=True)] == pytest.approx([2 * 1.28, 6 * 1.28], rel=0.2)


def test_of_many_inputs_those_sets_are_fitted_that_rows_have() -> None:
    names = tuple("abcdefg")
    present = np.zeros((3, 7), bool)
    present[0, :3] = present[1, :] = True
    found = sets_of(names, present)
    assert found[0] == names
    assert found[-1] == ()
    assert ("a", "b", "c") in found
    assert len(found) == len(set(found)) == 1 + 7 + 7 + 1 + 1
