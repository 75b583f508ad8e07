"""A run killed at any moment and resumed ends with the weights of an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import made
import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file

from fuseline import api
from fuseline.errors import FuselineError

KILLS = 3


def start(*words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "fuseline", "train", "--quiet", *words], env=environment)


def recipe(folder: Path) -> Path:
    table = made.make_table(folder, 48)
    inputs = {k: made.INPUTS[k] for k in ("note", "vitals")}
    training = {
        "epochs": 24,
        "batch_size": 8,
        "patience": 100,
        "precision": "float32",
        "loggers": [],
        "interval_steps": 2,
        "checkpoint_seconds": 0,
    }
    data = made.recipe(
        table, inputs=inputs, training=training, evaluation={"bootstrap": 0, "export": False, "report": False}
    )
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def weights(run: Path) -> dict[str, np.ndarray]:
    return {
        **{f"best/{k}": v for k, v in load_file(run / "checkpoints" / "best.safetensors").items()},
        **{f"last/{k}": v for k, v in load_file(run / "checkpoints" / "last" / "tensors.safetensors").items()},
    }


def test_killed_three_times_and_resumed(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(str(path), "-o", str(whole)).wait() == 0

    moments = random.Random(0)
    for kill in range(KILLS):
        words = ["--resume", str(broken)] if kill else [str(path), "-o", str(broken)]
        process = start(*words)
        last = broken / "checkpoints" / "last" / "state.json"
        before = last.stat().st_mtime_ns if last.exists() else 0
        deadline = time.monotonic() + 120
        # Wait until this process has checkpointed something, so that every kill falls into training, then a little.
        while not (last.exists() and last.stat().st_mtime_ns > before) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
        assert json.loads((broken / "run.json").read_text())["stage"] == "started"
    assert start("--resume", str(broken)).wait() == 0

    expected, got = weights(whole), weights(broken)
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(values, got[name], err_msg=name)
    for name in ("metrics.json",):
        assert (whole / name).read_text() == (broken / name).read_text()


def test_the_same_command_gives_the_same_numbers(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    runs = [api.train(path, out=tmp_path / name, quiet=True) for name in ("a", "b")]
    a, b = (weights(run.folder) for run in runs)
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)
    assert runs[0].metrics == runs[1].metrics


@pytest.mark.parametrize("change", ["rows", "cell"])
def test_resuming_another_table_is_refused(change: str, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    run = api.train(path, out=tmp_path / "a", quiet=True)
    table = tmp_path / "table.csv"
    frame = pl.read_csv(table, infer_schema=False)
    if change == "rows":
        frame = frame[:-3]
    else:  # one word of one note
        frame = frame.with_columns(note=pl.when(pl.int_range(pl.len()) == 30).then(pl.lit("?")).otherwise("note"))
    frame.write_csv(table)
    with pytest.raises(FuselineError, match="not the one that this run started on"):
        api.resume(run.folder, quiet=True)


def test_a_table_written_anew_with_the_same_cells_is_the_same(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    run = api.train(path, out=tmp_path / "a", quiet=True)
    table = tmp_path / "table.csv"
    pl.read_csv(table, infer_schema=False).write_csv(table, quote_style="always")
    assert api.resume(run.folder, quiet=True).metrics == run.metrics
