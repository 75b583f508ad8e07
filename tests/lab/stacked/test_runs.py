"""Runs whose answers are boosted trees, or might be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Literal

import made
import numpy as np
import polars as pl
import pytest

import fuseline
from fuseline import api
from fuseline.errors import FuselineError
from fuseline.estimators import FusionClassifier
from fuseline.lab.compress.subject import rebuild
from fuseline.lab.export.openvino import write_openvino
from fuseline.lab.fusion import FUSIONS
from fuseline.lab.stacked import fit as fitting
from fuseline.lab.stacked.options import StackedConfig
from fuseline.package import read_package
from fuseline.recipe import parse_recipe

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}
TRAINING = {"epochs": 2, "batch_size": 16, "precision": "float32", "loggers": []}
TREES = {"iterations": 8, "learning_rate": 0.3, "min_rows": 2}
NOTE = {**made.INPUTS["note"], "encoder": {"kind": "small", "width": 16, "layers": 1, "heads": 2}}
CELLS = {"vitals": made.INPUTS["vitals"]}


def recipe(table: Path, kind: str = "auto", **more: Any) -> dict[str, Any]:
    base = {
        "inputs": {"note": NOTE, **CELLS},
        "split": {"kind": "stratified", "val": 0.25, "test": 0.25},
        "fusion": {"kind": kind, "base": "concat", "width": 16, "trees": TREES},
        "training": TRAINING,
        "evaluation": LEAN,
    }
    return made.recipe(table, **{**base, **more})


@pytest.mark.parametrize("chosen", ["stacked", "end_to_end"])
def test_auto_keeps_what_does_better_and_says_both_figures(chosen: str, tmp_path: Path) -> None:
    trees, rate = (TREES, 1e-6) if chosen == "stacked" else ({**TREES, "min_rows": 1000}, 3e-3)  # one of them is idle
    given = recipe(made.make_table(tmp_path), training={**TRAINING, "epochs": 4, "learning_rate": rate})
    given["fusion"]["trees"] = trees
    run = api.train(given, out=tmp_path / "run", quiet=True)
    choice = run.record["choice"]
    assert choice["chosen"] == chosen
    assert (choice["stacked"] > choice["end_to_end"]) == (chosen == "stacked")
    measured = run.metrics["parts"]["val"]["metrics"][choice["metric"]]["value"]
    assert measured == pytest.approx(choice[chosen], abs=1e-9)
    assert run.record["best"]["value"] == choice[chosen]
    note = next(n for n in run.record["notes"] if n.startswith("fusion auto"))
    assert f"{choice['stacked']:.4g}" in note
    assert f"{choice['end_to_end']:.4g}" in note


def test_an_interrupt_while_boosting_loses_neither_training_nor_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(made.make_table(tmp_path), "stacked")
    whole = api.train(given, out=tmp_path / "whole", quiet=True)

    def stopped(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "boost", stopped)
        with pytest.raises(KeyboardInterrupt):
            api.train(given, out=tmp_path / "run", quiet=True)
    chunks = sorted((tmp_path / "run/checkpoints/embeddings").iterdir())
    assert len(chunks) == 2  # of training and of validation rows
    steps = (tmp_path / "run/history.csv").read_text()
    with monkeypatch.context() as patch:  # no row is embedded again
        patch.setattr("fuseline.lab.stacked.embed._chunk", stopped)
        run = fuseline.resume(tmp_path / "run", quiet=True)
    assert run.metrics == whole.metrics
    assert (tmp_path / "run/history.csv").read_text() == steps
    assert not (tmp_path / "run/checkpoints/embeddings").exists()


def test_a_package_of_trees_is_served_and_what_cannot_take_trees_refuses(tmp_path: Path) -> None:
    """Two tables of cells and nothing to train: their graph is the trees'."""
    columns = {"who": "category", "pulse_max": "number"}
    inputs = {**CELLS, "more": {"modality": "tabular", "columns": columns, "encoder": {"kind": "small"}}}
    path = made.make_table(tmp_path, rows=80)
    frame = pl.read_csv(path).with_columns(pulse_max=pl.col("score") + pl.col("age").fill_null(0))
    frame.write_csv(path)
    evaluation = {**LEAN, "export": True, "degradation": True, "report": True}
    run = api.train(recipe(path, "stacked", inputs=inputs, evaluation=evaluation), out=tmp_path / "run", quiet=True)
    assert "train" not in run.record["seconds"]
    assert run.score("auroc") > 0.7
    assert {tuple(d["present"]) for d in run.metrics["degradation"]} >= {("vitals", "more"), ("vitals",), ("more",)}
    assert "boosted trees" in run.report.read_text(encoding="utf-8")

    package = read_package(run.folder / "model.fuse")
    assert package.recipe.fusion.kind == "stacked"
    parity = json.loads((package.folder / "parity.json").read_text(encoding="utf-8"))
    assert parity["max_abs_difference"] < 1e-4
    model = fuseline.load(package.folder)
    test = pl.read_parquet(run.folder / "predictions.parquet").filter(pl.col("part") == "test")
    rows = [frame.row(i, named=True) for i in test["row"]]
    answers = model.predict([*rows, {}, {"who": "nobody", "sex": "x"}])
    assert [a.value for a in answers[: len(rows)]] == test["value"].to_list()
    assert [max(a.probabilities.values()) for a in answers[: len(rows)]] == pytest.approx(
        test["confidence"].to_list(), abs=1e-5
    )
    assert all(np.isfinite(list(a.probabilities.values())).all() for a in answers)
    assert answers[-2].used == ()

    with pytest.raises(FuselineError, match="boosted trees") as caught:
        rebuild(package, {}, model.rows, model.task)
    assert caught.value.code == "cannot_rebuild"
    with pytest.raises(FuselineError, match="boosted trees") as caught:
        write_openvino(package, tmp_path)
    assert caught.value.code == "cannot_export"


def test_numbers_of_which_some_are_absent_over_folds(tmp_path: Path) -> None:
    path = made.make_table(tmp_path, rows=60)
    frame = pl.read_csv(path)
    rest = [None if i % 4 == 0 else 2.0 * v for i, v in enumerate(frame["score"])]
    frame.with_columns(twice=pl.Series(rest)).write_csv(path)
    task = {"kind": "regression", "targets": ["score", "twice"]}
    given = recipe(path, "stacked", inputs=CELLS, task=task, split={"kind": "random", "folds": 2, "val": 0.2})
    given["table"] = {"path": str(path)}
    runs = [api.train(given, out=tmp_path / name, quiet=True) for name in ("a", "b")]
    scores = [json.loads((run.folder / "folds.json").read_text(encoding="utf-8")) for run in runs]
    assert scores[0]["mean"] == scores[1]["mean"]  # a seed fixes everything
    assert scores[0]["mean"]["nrmse"] < 1.0


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"task": {"kind": "retrieval", "left": ["note"], "right": ["vitals"]}}, "bad_recipe", "not task.kind: retr"),
        ({"split": {"kind": "random", "val": 0.0}}, "no_validation", "chooses by validation rows"),
        ({"fusion": {"kind": "auto", "trees": {"leafs": 3}}}, "bad_recipe", "did you mean 'leaves'"),
        ({"fusion": {"kind": "auto", "base": "stacked"}}, "bad_recipe", "fusion.base"),
        ({"fusion": {"kind": "auto", "layers": 2, "base": "gated"}}, "bad_recipe", "fusion.layers"),
        ({"fusion": "atuo"}, "unknown_kind", "auto"),
    ],
)
def test_what_cannot_be_boosted_is_refused(more: dict[str, Any], code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match=words) as caught:
        api.train(recipe(made.make_table(tmp_path), **more), out=tmp_path / "run", quiet=True)
    assert caught.value.code == code


def test_one_word_is_a_fusion() -> None:
    given = {"inputs": {"a": {"modality": "text"}}, "task": {"kind": "classification", "target": "y"}}
    short, long = (parse_recipe({**given, "fusion": f}) for f in ("auto", {"kind": "auto"}))
    assert short == long
    assert StackedConfig.model_fields["base"].annotation == Literal[FUSIONS]


def test_an_estimator_of_trees_is_pickled_and_answers_alike() -> None:
    rng = np.random.default_rng(0)
    x = pl.DataFrame({"a": rng.normal(size=80), "b": rng.choice(["u", "v"], 80).tolist()})
    y = ((x["a"] > 0).to_numpy() ^ (x["b"] == "u").to_numpy()).astype(int)
    model = FusionClassifier(fusion={"kind": "stacked", "trees": TREES}, random_state=0).fit(x, y)
    assert model.n_iter_ == 0  # nothing is trained end to end
    assert (model.predict(x) == y).mean() > 0.9
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(x), model.predict_proba(x))
