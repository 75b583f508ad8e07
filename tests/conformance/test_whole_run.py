"""One run over every modality at once, from the table to the answer."""

from __future__ import annotations

from pathlib import Path

import made

import fuseline


def test_a_run_over_every_modality(tmp_path: Path) -> None:
    table = made.make_table(tmp_path, 48)
    run = fuseline.train(made.recipe(table), out=tmp_path / "run", quiet=True)
    for name in ("report.html", "metrics.json", "history.csv", "predictions.parquet", "recipe.yaml", "data.json"):
        assert (run.folder / name).is_file(), name
    assert len(run.metrics["degradation"]) == 15
    assert run.record["stage"] == "done"
    predictor = run.load()
    [answer] = predictor.predict([{"note": "heavy cough", "age": 70.0}])
    assert answer.used == ("note", "vitals")
    assert answer.absent == ("picture", "sound")
    assert run.package.joinpath("parity.json").is_file()
