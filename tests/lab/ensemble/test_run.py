"""From a cross-validation to one package: replayed, served, scored out of fold, shared parts held once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from lab.encoders.tiny import WORDS, make_tiny

from fuseline import api
from fuseline.package import read_package

ROWS = 48


def table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    sick = np.arange(ROWS) % 2
    frame = pl.DataFrame(
        {
            "note": [None if rng.random() < 0.2 else " ".join(rng.choice(WORDS[:14], 4)) for _ in range(ROWS)],
            "age": [float(40 + 20 * s + rng.normal()) for s in sick],
            # Each value of `ward` is met in one row or two: folds know different ones.
            "ward": [f"w{i // 2}" for i in range(ROWS)],
            "sick": ["yes" if s else "no" for s in sick],
        }
    )
    frame.write_parquet(folder / "table.parquet")
    return folder / "table.parquet"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    folder = tmp_path_factory.mktemp("ensemble")
    source = make_tiny("bert", folder / "bert")
    given = {
        "table": {"path": str(table(folder))},
        "inputs": {
            "note": {"modality": "text", "encoder": {"kind": "hf", "source": str(source), "tune": "frozen"}},
            "vitals": {
                "modality": "tabular",
                "columns": {"age": "number", "ward": "category"},
                "min_count": 1,
                "encoder": {"kind": "small", "width": 16},
            },
        },
        "task": {"kind": "classification", "target": "sick"},
        "fusion": {"kind": "attention", "width": 16},
        "split": {"kind": "stratified", "folds": 2, "val": 0.2},
        "training": {
            "epochs": 12,
            "batch_size": 8,
            "learning_rate": 0.01,
            "precision": "float32",
            "loggers": [],
            "cache_folder": "off",
        },
        "evaluation": {"bootstrap": 20, "report": False, "ensemble": True},
    }
    return api.train(given, out=folder / "run", quiet=True)


def test_one_package_answers_by_the_mean_and_says_how_it_was_scored(run: api.Run) -> None:
    package = read_package(run.package)
    assert not (run.folder / "fold-0" / "model.fuse").exists()
    parity = json.loads((run.package / "parity.json").read_text(encoding="utf-8"))
    assert parity["rows"] >= 16
    assert parity["max_abs_difference"] <= 1e-3
    metrics = json.loads((run.package / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["ensemble"]["members"] == 2
    assert metrics["parts"]["test"]["rows"] == ROWS  # every row, by the member that was not trained on it
    assert "mean of all 2" in (run.package / "README.md").read_text(encoding="utf-8")
    assert run.metrics["out_of_fold"]["auroc"] == metrics["parts"]["test"]["metrics"]["auroc"]["value"]
    assert package.task["kind"] == "classification"


def test_out_of_fold_scores_are_the_folds_own(run: api.Run) -> None:
    """The pooled accuracy is the mean of the folds' by their rows: no member scored a row that it was trained on."""
    folds = [json.loads((run.folder / f"fold-{i}" / "metrics.json").read_text(encoding="utf-8")) for i in (0, 1)]
    parts = [f["parts"]["test"] for f in folds]
    pooled = sum(p["rows"] * p["metrics"]["accuracy"]["value"] for p in parts) / sum(p["rows"] for p in parts)
    assert run.metrics["out_of_fold"]["accuracy"] == pytest.approx(pooled)


def test_frozen_weights_are_stored_once(run: api.Run) -> None:
    raw = (run.package / "weights.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    words = [name for name in header if name.endswith("word_embeddings.weight")]
    assert len(words) == 1
    assert words[0].startswith("shared.")
    assert sum(name.endswith("categories.weight") for name in header) == 2  # what each member learned is its own


def test_it_is_served_like_any_other(run: api.Run) -> None:
    predictor = run.load()
    rows = [{"note": "no fever .", "age": 60.0, "ward": "w3"}, {"age": 41.0, "ward": "never seen"}, {}]
    answers = predictor.predict(rows)
    assert [a.absent for a in answers] == [(), ("note",), ("note", "vitals")]
    assert all(a.error is None and a.value in ("yes", "no") for a in answers)
    older, younger = (predictor.predict([{"age": age, "ward": "w3"}])[0].probabilities for age in (62.0, 38.0))
    assert older is not None
    assert younger is not None
    assert older["yes"] > younger["yes"]
