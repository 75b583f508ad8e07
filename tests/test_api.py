"""What Python users call: cross-validation and resuming one, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made
import polars as pl
import pytest

import fuseline
from fuseline import api
from fuseline.errors import FuselineError
from fuseline.lab.training import run as running

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}


def recipe(table: Path | None, **changes: Any) -> dict[str, Any]:
    return made.recipe(table, inputs={"vitals": made.INPUTS["vitals"]}, evaluation=LEAN, **changes)


def test_an_interrupted_cross_validation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folds = recipe(made.make_table(tmp_path), split={"kind": "group", "group": "patient", "folds": 3})
    whole = api.train(folds, out=tmp_path / "whole", quiet=True)

    evaluated: list[str] = []
    plain = running._evaluate

    def stopped(prepared: Any, model: Any, folder: Path, voice: Any) -> dict[str, Any]:
        evaluated.append(folder.name)
        if evaluated == ["fold-0", "fold-1"]:
            raise KeyboardInterrupt
        return plain(prepared, model, folder, voice)

    monkeypatch.setattr(running, "_evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        api.train(folds, out=tmp_path / "broken", quiet=True)
    with pytest.raises(FuselineError, match="holds a run already"):
        api.train(folds, out=tmp_path / "broken", quiet=True)
    with pytest.raises(FuselineError, match=f"--resume {tmp_path / 'broken'}"):
        api.resume(tmp_path / "broken" / "fold-1", quiet=True)
    again = api.resume(tmp_path / "broken", quiet=True)
    assert evaluated == ["fold-0", "fold-1", "fold-1", "fold-2"]  # a finished fold is not done twice
    assert again.metrics == whole.metrics
    assert again.score("auroc") == whole.score("auroc")


def test_a_cross_validation_has_no_one_model(tmp_path: Path) -> None:
    folds = recipe(made.make_table(tmp_path), split={"kind": "random", "folds": 2})
    run = api.train(folds, out=tmp_path / "run", quiet=True)
    with pytest.raises(FuselineError, match="cross-validation") as caught:
        run.load()
    assert "fold-0" in caught.value.hint


def test_a_recipe_and_a_target_are_too_much(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="names its target itself"):
        api.train(recipe(made.make_table(tmp_path)), target="score", out=tmp_path / "run", quiet=True)


def test_a_run_that_stopped_at_a_bad_cell_is_started_anew_in_its_folder(tmp_path: Path) -> None:
    table = made.make_table(tmp_path)
    good = table.read_text()
    table.write_text(good.replace(",f,", ",f,maybe", 1))
    with pytest.raises(FuselineError, match="maybe"):
        api.train(recipe(table), out=tmp_path / "run", quiet=True)
    table.write_text(good)
    assert api.train(recipe(table), out=tmp_path / "run", quiet=True).record["stage"] == "done"
    with pytest.raises(FuselineError, match="holds a run already"):
        api.train(recipe(table), out=tmp_path / "run", quiet=True)


def test_several_targets_of_a_csv_are_kept_as_numbers(tmp_path: Path) -> None:
    frame = pl.read_csv(made.make_table(tmp_path))
    frame.with_columns(half=pl.when(pl.col("patient") > 3).then(pl.col("score") / 2)).write_csv(tmp_path / "two.csv")
    task = {"kind": "regression", "targets": ["score", "half"]}
    run = api.train(recipe(tmp_path / "two.csv", task=task), out=tmp_path / "run", quiet=True)
    truths = [json.loads(t) for t in pl.read_parquet(run.folder / "predictions.parquet")["target"]]
    assert all(set(t) == {"score", "half"} and isinstance(t["score"], float) for t in truths)


def test_the_public_names_are_there() -> None:
    assert all(getattr(fuseline, name) is not None for name in fuseline.__all__)
    assert json.dumps(dir(fuseline)) == json.dumps(sorted(fuseline.__all__))
