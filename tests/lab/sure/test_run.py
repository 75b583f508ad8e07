"""A whole run that promises something, and the same around a compressed package."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import fuseline
from fuseline import Run
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.compress.subject import open_subject
from fuseline.lab.compress.sureness import rechecked, resettled
from fuseline.lab.training.cache import Cache
from fuseline.progress import voice

EVALUATION: dict[str, Any] = {
    "bootstrap": 20,
    "calibration": "auto",
    "calibration_share": 0.8,
    "conformal": {"coverage": 0.8, "by": ["sex"]},
    "abstain": {"error": 0.4},
    "odd": True,
    "slices": ["sex", "a"],
}
INPUTS = {
    name: {"modality": "tabular", "columns": {column: "number"}, "encoder": {"kind": "small", "width": 16}}
    for name, column in (("one", "a"), ("two", "b"))
}


def write(folder: Path, rows: int = 500) -> Path:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, rows)
    there = rng.random(rows) > 0.3
    b = [float(v) if t else None for v, t in zip(y + rng.normal(0, 0.7, rows), there, strict=True)]
    table = {
        "a": y + rng.normal(0, 0.7, rows),
        "b": b,
        "sex": rng.choice(["f", "m"], rows),
        "kind": [f"k{i}" for i in y],
    }
    pl.DataFrame(table).write_csv(folder / "table.csv")
    return folder / "table.csv"


def recipe(table: Path, **changes: Any) -> dict[str, Any]:
    return {
        "table": {"path": str(table)},
        "inputs": INPUTS,
        "task": {"kind": "classification", "target": "kind"},
        "split": {"kind": "random", "val": 0.4, "test": 0.4},
        "fusion": {"kind": "concat", "width": 16},
        "training": {"epochs": 6, "batch_size": 16, "learning_rate": 0.01, "precision": "float32", "loggers": []},
        "evaluation": EVALUATION,
    } | changes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sure")
    return fuseline.train(recipe(write(folder)), out=folder / "run", quiet=True)


def test_the_package_keeps_to_what_the_report_says(run: Run) -> None:
    told = run.metrics["sure"]["tasks"][""]
    every = next(g for g in told["conformal"] if g["kind"] == "all")
    folder = run.folder.parent
    test = pl.read_parquet(run.folder / "predictions.parquet").filter(pl.col("part") == "test")["row"].to_list()
    cells = pl.read_csv(folder / "table.csv")[test].to_dicts()
    answers = run.load().predict([{k: v for k, v in c.items() if k != "kind"} for c in cells])
    inside = [c["kind"] in (a.set or ()) for c, a in zip(cells, answers, strict=True)]
    assert np.mean(inside) == pytest.approx(
        every["coverage"], abs=0.011
    )  # a row at the very threshold may fall either way
    assert every["rows"] == len(cells) == 200
    given = [(a, c) for a, c in zip(answers, cells, strict=True) if not a.abstained]
    checked = told["selective"]["abstain"]["checked"][0]
    assert len(given) / len(cells) == pytest.approx(checked["answered"], abs=0.011)
    assert checked["answered"] > 0.3
    assert checked["error"] < 0.4
    assert all(a.odd is not None and set(a.odd) == set(a.used) for a in answers)


def test_every_set_of_inputs_is_fitted_and_checked(run: Run) -> None:
    told = run.metrics["sure"]
    assert told["about"] | {"calibration": None} == {
        "rows": 160,
        "of": "set apart",
        "ordered": False,
        "calibration": None,
    }
    groups = told["tasks"][""]["conformal"]
    assert [g["present"] for g in groups if g["kind"] == "shown"] == [["one", "two"], ["one"], ["two"], []]
    assert {tuple(g["by"]) for g in groups if g["kind"] == "by"} == {("sex: f",), ("sex: m",)}
    for g in groups:
        if g["kind"] == "shown" and g["present"]:
            assert abs(g["coverage"] - 0.8) < 0.12
            assert g["fitted_rows"] > 80


def test_the_page_the_card_and_the_data_sheet_say_it(run: Run) -> None:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "How sure" in page
    assert "Group by group" in page
    card = (run.package / "README.md").read_text(encoding="utf-8")
    assert "## How sure" in card
    assert "## Group by group" in card
    assert "sex: f" in card
    sheet = (run.package / "datasheet.md").read_text(encoding="utf-8")
    assert "| b | two | number |" in sheet
    assert sheet.count("k0") == 1
    slices = run.metrics["slices"]
    assert sum(g["rows"] for g in slices["columns"]["sex"]) == 200
    assert slices["worst"] is not None


def test_thresholds_are_fitted_anew_around_another_graph(run: Run) -> None:
    predictor = run.load()
    subject = open_subject(
        predictor.package, Table.open(run.folder.parent / "table.csv"), cache=Cache(16), voice=voice("quiet")
    )
    workshop: Any = SimpleNamespace(subject=subject, voice=voice("quiet"))
    sure = resettled(workshop, predictor)
    assert sure is not None
    assert predictor.sure is not None
    assert sure.about["rows"] == predictor.sure.about["rows"]
    ours = {(g.present, g.by): g.threshold_E[0] for g in sure.conformal[""].groups}
    theirs = {(g.present, g.by): g.threshold_E[0] for g in predictor.sure.conformal[""].groups}
    assert ours.keys() == theirs.keys()
    assert list(ours.values()) == pytest.approx([theirs[k] for k in ours], abs=1e-3)  # the same graph, the same promise
    found = rechecked(workshop, predictor, sure)["tasks"][""]["conformal"][0]
    assert found["coverage"] == pytest.approx(run.metrics["sure"]["tasks"][""]["conformal"][0]["coverage"], abs=0.011)
    json.dumps(sure.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation": {"conformal": {"by": ["nowhere"]}}}, "nowhere"),
        ({"evaluation": {"slices": ["nowhere"]}}, "nowhere"),
        ({"evaluation": {"odd": True}, "split": {"kind": "random", "val": 0.0}}, "validation rows"),
        ({"evaluation": {"abstain": {"error": 0.1}}, "task": {"kind": "regression", "target": "a"}}, "right or wrong"),
        ({"evaluation": {"calibration": "auto"}, "task": {"kind": "regression", "target": "a"}}, "no chances"),
    ],
)
def test_what_cannot_be_promised_is_refused_before_training(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    inputs = {"two": INPUTS["two"]}
    with pytest.raises(FuselineError, match=words):
        fuseline.train(recipe(write(tmp_path, 60), inputs=inputs, **changes), out=tmp_path / "run", quiet=True)
