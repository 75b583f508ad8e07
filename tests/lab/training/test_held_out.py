"""What an export adds to the profile, and that the profile's inputs are the training rows'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import pytest

import fuseline
from fuseline.lab.training.held_out import _answers
from fuseline.package import read_package
from fuseline.runtime import Predictor
from fuseline.tasks.base import Decoded


def trained(folder: Path, **changes: Any) -> tuple[Predictor, dict[str, Any], Path]:
    table = made.make_table(folder / "table", 40, seed=1)
    changes = {
        "training": {"epochs": 1, "batch_size": 8, "precision": "float32", "loggers": []},
        "evaluation": {"bootstrap": 0, "degradation": False, "report": False},
    } | changes
    run = fuseline.train(made.recipe(table, **changes), out=folder / "run", quiet=True)
    profile = read_package(run.package).read_json("profile.json")
    return run.load(), profile, table


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, dict[str, Any], Path]:
    return trained(tmp_path_factory.mktemp("held-out"))


def test_predictions_and_embedding_are_the_packages_own_on_the_test_rows(whole: Any) -> None:
    predictor, profile, table = whole
    run = predictor.package.folder.parent
    frame = pl.read_parquet(run / "predictions.parquet").filter(pl.col("part") == "test")
    cells = pl.read_csv(table)[frame["row"].to_list()].to_dicts()
    answers = predictor.predict(cells, media=table.parent)
    told = profile["predictions"]
    assert (told["rows"], told["of"]) == (len(cells), "test rows")
    for label, share in told["labels"].items():
        assert share == pytest.approx(np.mean([a.value == label for a in answers]))
    assert told["confidence"]["max"] == pytest.approx(max(max(a.probabilities.values()) for a in answers), abs=1e-4)
    embedding = profile["embedding"]
    parsed = [predictor.parse(row, predictor_media(table), i).values for i, row in enumerate(cells)]
    expected = predictor.run(parsed)["embedding"]
    assert np.array(embedding["sample"]).shape == (len(cells), embedding["dim"]) == expected.shape
    assert np.allclose(np.array(embedding["sample"]), expected, atol=2e-3)


def predictor_media(table: Path) -> Any:
    from fuseline.modalities import MediaRoot

    return MediaRoot(str(table.parent))


def test_the_inputs_are_those_of_the_training_rows(whole: Any) -> None:
    predictor, profile, table = whole
    run = predictor.package.folder.parent
    held = set(pl.read_parquet(run / "predictions.parquet")["row"].to_list())
    train = pl.read_csv(table).filter(~pl.int_range(pl.len()).is_in(list(held)))
    assert profile["vitals"]["rows"] == len(train) < 40
    ages = train["age"].drop_nulls()
    assert profile["vitals.age"]["count"] == len(ages)
    assert (profile["vitals.age"]["min"], profile["vitals.age"]["max"]) == (ages.min(), ages.max())
    assert profile["errors"] == {"kind": "errors", "rows": 40, "columns": {}}


def test_numbers_have_a_sketch_and_broken_cells_a_share(tmp_path: Path) -> None:
    table = made.make_table(tmp_path / "table", 40, seed=1)
    (table.parent / "media" / "3.png").write_bytes(b"no picture")
    frame = pl.read_csv(table).with_columns(
        picture=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("media/3.png")).otherwise("picture")
    )
    frame.write_csv(table)
    inputs = {n: made.INPUTS[n] for n in made.FEW} | {"picture": made.INPUTS["picture"] | {"on_bad_cell": "absent"}}
    recipe = made.recipe(
        table,
        inputs=inputs,
        task={"kind": "regression", "target": "score"},
        split={"kind": "random", "val": 0.0, "test": 0.0},
        training={"epochs": 1, "batch_size": 8, "precision": "float32", "loggers": []},
        evaluation={"bootstrap": 0, "degradation": False, "report": False},
    )
    run = fuseline.train(recipe, out=tmp_path / "run", quiet=True)
    profile = read_package(run.package).read_json("profile.json")
    assert profile["errors"]["columns"] == {"picture": 1}
    assert profile["predictions"]["of"] == "train rows"
    assert profile["predictions"]["value"]["count"] == 40
    assert "labels" not in profile["predictions"]


def test_several_labels_are_one_text_and_many_numbers_are_left_out() -> None:
    told = _answers([Decoded(["a", "b"], {"a": 0.9, "b": 0.6}), Decoded([], {"a": 0.1, "b": 0.2})])
    assert told["labels"] == {'["a", "b"]': 0.5, "[]": 0.5}
    assert _answers([Decoded({"x": 1.0, "y": 2.0})]) == {}
