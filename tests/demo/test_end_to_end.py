"""From a made clinic to answers in one go; the package is handed to the tests that have no torch."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import fuseline
from fuseline.cli.demo import adapt, rows_tested
from fuseline.demo import generate

ROWS = 160


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    generate(folder, rows=ROWS, seed=3)
    text, _ = fuseline.init(folder / "table.csv", "diagnosis")
    recipe = adapt(yaml.safe_load(text))
    recipe["training"] |= {"epochs": 2}
    recipe["evaluation"] |= {"bootstrap": 20}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    fuseline.train(folder / "recipe.yaml", out=folder / "run", quiet=True)
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v or None for k, v in row.items() if k != "diagnosis"} for row in csv.DictReader(file)]


def test_inputs_are_the_four_modalities(clinic: Path) -> None:
    recipe = fuseline.load_recipe(clinic / "recipe.yaml")
    kinds = {name: spec.modality for name, spec in recipe.inputs.items()}
    assert kinds == {"picture": "image", "note": "text", "sound": "audio", "vitals": "tabular"}
    assert recipe.split.group == "patient"


def test_the_run_is_whole(clinic: Path) -> None:
    run = fuseline.Run(clinic / "run")
    assert 0 <= run.score("accuracy") <= 1
    assert len(run.metrics["degradation"]) == 15
    assert run.report.stat().st_size > 10_000
    held = rows_tested(run.folder)
    assert len(held) > ROWS / 8
    patients = [r["patient"] for r in rows_of(clinic)]
    assert {patients[r] for r in held}.isdisjoint({p for i, p in enumerate(patients) if i not in held})


def test_any_subset_answers_and_says_what_it_used(clinic: Path) -> None:
    predictor = fuseline.Run(clinic / "run").load()
    whole = next(r for r in rows_of(clinic) if r["picture"] and r["note"] and r["sound"] and r["oxygen"])
    for gone in ("picture", "note", "sound"):
        [answer] = predictor.predict([whole | {gone: None}], media=clinic)
        assert answer.error is None
        assert answer.absent == (gone,)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_hand_over_to_the_tests_without_torch(clinic: Path) -> None:
    named = os.environ.get("FUSELINE_TEST_PACKAGE")
    target = Path(named) if named else clinic / "handed-over"
    shutil.rmtree(target, ignore_errors=True)
    run = fuseline.Run(clinic / "run")
    shutil.copytree(run.package, target / "model.fuse")
    for sub in ("images", "sounds"):
        shutil.copytree(clinic / sub, target / sub)
    shutil.copy(clinic / "table.csv", target / "table.csv")
    rows = rows_of(clinic)[:12]
    answers = [a.to_dict() for a in run.load().predict(rows, media=clinic)]
    assert all("error" not in a for a in answers)
    (target / "answers.json").write_text(json.dumps({"rows": rows, "answers": answers}), encoding="utf-8")
