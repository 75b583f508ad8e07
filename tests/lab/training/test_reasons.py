"""The report's worst errors say what each input did to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import pytest

from fuseline import api
from fuseline.explain.shapley import subsets
from fuseline.lab.report import write_report
from fuseline.lab.training.evaluate import Outputs
from fuseline.lab.training.reasons import explained
from fuseline.tasks.classification import Classification

TRAINING = {"epochs": 1, "batch_size": 16, "precision": "float32", "loggers": []}


def run_of(folder: Path, inputs: tuple[str, ...], **evaluation: Any) -> api.Run:
    table = made.make_table(folder, 64)
    chosen = {name: made.INPUTS[name] for name in inputs}
    asked = {"bootstrap": 0, "export": False, **evaluation}
    return api.train(
        made.recipe(table, inputs=chosen, training=TRAINING, evaluation=asked), out=folder / "run", quiet=True
    )


def test_the_worst_errors_are_explained_by_the_trained_model(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("note", "vitals"))
    told = json.loads((run.folder / "reasons.json").read_text(encoding="utf-8"))["rows"]
    said = pl.read_parquet(run.folder / "predictions.parquet").filter(pl.col("part") == "test")
    wrong = said.filter(~pl.col("correct")).sort("confidence", "row", descending=[True, False])
    assert [row["row"] for row in told] == wrong["row"].head(12).to_list()
    assert told, "a model of one epoch is wrong somewhere"
    for row, answer in zip(told, wrong.to_dicts(), strict=False):
        shares = row["inputs"]["values"]
        assert (row["of"]["label"], set(shares)) == (answer["value"], set(json.loads(answer["used"])))
        assert row["quantity"] == pytest.approx(answer["confidence"], abs=1e-5)
        assert row["inputs"]["base"] + sum(shares.values()) == pytest.approx(row["quantity"], abs=1e-5)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert page.count('class="reasons"') == sum(bool(row["inputs"]["values"]) for row in told)
    assert "What made the probability of" in page

    (run.folder / "reasons.json").write_text('{"rows": [{"row": "x"}, 3, null]}', encoding="utf-8")
    page = write_report(run.folder).read_text(encoding="utf-8")
    assert "Worst errors" in page
    assert "What made" not in page, "what another hand wrote there is left out"


def test_one_input_needs_no_reasons(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("note",))
    assert not (run.folder / "reasons.json").exists()


def test_shares_are_shapley_values_of_the_answers() -> None:
    """Logits that are a sum over inputs, of rows that have all, one and none of them."""
    names, gain = ("a", "b", "c"), {"a": 2.0, "b": -1.0, "c": 0.5}
    present_NM = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]], bool)
    config = Classification.Config.model_validate({"target": "t"})
    task = Classification.fit(config, {"t": ["no", "yes"] * 8})

    def outputs(subset: frozenset[str]) -> dict[str, np.ndarray]:
        allowed = np.array([gain[n] * (n in subset) for n in names])
        logit_N = (present_NM * allowed).sum(axis=1)
        return {"logits": np.stack([np.zeros(3), logit_N], axis=1)}

    every = {tuple(n for n in names if n in s): outputs(s) for s in reversed(subsets(names))}
    whole, one, none = explained(task, names, Outputs(np.array([7, 8, 9]), np.zeros(3), present_NM, every))
    assert [r.row for r in (whole, one, none)] == [7, 8, 9]
    chance = 1 / (1 + np.exp(-1.5))
    assert whole.of is not None
    assert whole.of.label == "yes"
    assert whole.inputs is not None
    assert whole.quantity == pytest.approx(chance)
    assert sum(whole.inputs.values.values()) == pytest.approx(chance - 0.5)
    assert whole.inputs.values["a"] > whole.inputs.values["c"] > 0 > whole.inputs.values["b"]
    assert one.inputs is not None
    assert one.of is not None
    assert one.of.label == "no"
    assert one.inputs.values == pytest.approx({"b": 1 / (1 + np.exp(-1.0)) - 0.5})
    assert none.inputs is not None
    assert none.inputs.values == {}
