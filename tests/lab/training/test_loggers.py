"""What trackers get, read back from what they wrote."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import made
import pytest

from fuseline import api
from fuseline.errors import FuselineError
from fuseline.lab.training.loggers import IDS, make_loggers

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}


def trained(folder: Path, *loggers: str) -> api.Run:
    training: dict[str, Any] = {"epochs": 2, "batch_size": 8, "precision": "float32", "loggers": list(loggers)}
    inputs = {"vitals": made.INPUTS["vitals"]}
    table = made.make_table(folder)
    return api.train(
        made.recipe(table, inputs=inputs, training=training, evaluation=LEAN), out=folder / "run", quiet=True
    )


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(tmp_path, "tensorboard")
    events = EventAccumulator(str(run.folder / "logs"))
    events.Reload()
    assert {"train_loss", "val_loss", "learning_rate"} <= set(events.Tags()["scalars"])
    history = (run.folder / "history.csv").read_text(encoding="utf-8").splitlines()
    assert len(events.Scalars("train_loss")) == len(history) - 1 == 2


def test_wandb_offline_writes_a_run_that_can_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = trained(tmp_path, "wandb")
    assert wandb.run is None  # closed: the next training of this process has a run of its own
    own = json.loads((run.folder / IDS).read_text(encoding="utf-8"))["wandb"]
    [file] = (run.folder / "wandb").glob(f"offline-run-*-{own}/run-{own}.wandb")
    words = (b"train_loss", b"val_loss", b"test_auroc", b"batch_size")
    end = time.monotonic() + 60
    # Its own process writes, and on a busy machine a little later than `finish` returns.
    while not all(word in file.read_bytes() for word in words) and time.monotonic() < end:
        time.sleep(0.2)
    assert [word for word in words if word not in file.read_bytes()] == []


def test_a_tracker_that_cannot_begin_is_said_with_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise OSError("No API key configured.\nmore")

    monkeypatch.setattr("fuseline.lab.training.loggers._make", fails)
    with pytest.raises(FuselineError, match="wandb, which cannot begin: OSError: No API key configured") as caught:
        make_loggers(["wandb"], tmp_path)
    assert caught.value.code == "no_tracker"
    assert "WANDB_MODE=offline" in caught.value.hint


def test_mlflow_keeps_curves_and_the_package_with_its_signature(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from fuseline.lab.tracking.mlflow_package import log_package
    from fuseline.lab.training.loggers import mlflow_uri

    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copytree(package, folder / "model.fuse")
    [logger] = make_loggers(["mlflow"], folder, {"task": "x"})
    logger.log_metrics({"train_loss": 0.5}, step=3)
    again = make_loggers(["mlflow"], folder)[0]
    assert again.run_id == logger.run_id  # a resumed run goes on
    log_package(mlflow_uri(folder), logger.run_id, folder, {"test_auroc": 0.75})

    with sqlite3.connect(folder / "mlflow.db") as base:
        found = dict(base.execute("select key, value from metrics").fetchall())
    assert found == {"train_loss": 0.5, "test_auroc": 0.75}
    mlflow.set_tracking_uri(mlflow_uri(folder))
    [logged] = mlflow.search_logged_models([logger.experiment_id], output_format="list")
    assert not list(folder.rglob("*.pkl"))
    model = mlflow.pyfunc.load_model(logged.model_uri)
    inputs = {c.name: c for c in model.metadata.signature.inputs.inputs}
    assert str(inputs["age"].type) == "DataType.double"
    assert not any(c.required for c in inputs.values())
    import pandas as pd

    answers = model.predict(pd.DataFrame([{"age": 50.0, "sex": "f"}, {"note": "no fever"}]))
    assert list(answers["value"].isin(["yes", "no"])) == [True, True]
    assert answers["used"][1] == ["note"]
