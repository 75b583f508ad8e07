"""Several processes and one: the same curve, whatever a batch lacks and whoever is killed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fuseline import api
from fuseline.errors import FuselineError
from fuseline.lab.scale.launch import environment
from fuseline.lab.training.sharded import check_sharded
from fuseline.lab.training.team import Team
from fuseline.lab.training.validation import Seen, Validation
from fuseline.recipe import parse_recipe

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}
TOLERANCE = 1e-4
"""of a loss after the steps of these tests: sums of gradients in another order"""


def test_who_one_is() -> None:
    assert Team.of_environment({}) == Team()
    told = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert Team.of_environment(told) == Team(3, 4, 1, 2)
    wrong: tuple[dict[str, str], ...] = (
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "two", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "2"},
        {"WORLD_SIZE": "3", "RANK": "0", "LOCAL_WORLD_SIZE": "2"},
    )
    for broken in wrong:
        with pytest.raises(FuselineError) as caught:
            Team.of_environment(broken)
        assert caught.value.code == "bad_team"


@pytest.mark.parametrize(("rows", "size"), [(7, 2), (8, 2), (5, 3), (3, 3)])
def test_shares_are_a_whole_and_count_as_one(rows: int, size: int) -> None:
    batch = np.random.default_rng(0).permutation(100)[:rows]
    team = [Team(rank, size) for rank in range(size)]
    assert sorted(np.concatenate([t.share(batch) for t in team])) == sorted(batch)
    means = [t.share(batch).mean() * t.weight(len(t.share(batch)), rows) for t in team]
    assert np.mean(means) == pytest.approx(batch.mean())


def test_a_batch_must_be_enough_for_all() -> None:
    Team().check(1, 1)
    Team(0, 4).check(8, 100)
    for batch, rows in ((7, 100), (64, 3)):
        with pytest.raises(FuselineError, match="4 processes"):
            Team(0, 4).check(batch, rows)


def test_each_process_gets_its_part_of_the_processors() -> None:
    assert environment(64, {})["OMP_NUM_THREADS"] == "1"
    assert environment(2, {"OMP_NUM_THREADS": "5"})["OMP_NUM_THREADS"] == "5"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One row alone has a picture: in every step all processes but one lack that input wholly, and mostly all do."""
    folder = tmp_path_factory.mktemp("team")
    path = made.make_table(folder, 26, seed=3, absent=0.2)
    frame = pl.read_csv(path, infer_schema_length=None)
    first = pl.int_range(pl.len()) == int(frame["picture"].is_not_null().arg_max() or 0)
    frame.with_columns(picture=pl.when(first).then(pl.col("picture"))).write_csv(path)
    spec = {
        "epochs": 12,
        "batch_size": 7,  # not the same number for both
        "precision": "float32",
        "checkpoint_seconds": 0,
        "patience": 99,
        "learning_rate": 0.01,
        "loggers": [],
    }
    still: dict[str, dict[str, Any]] = {  # processes draw other numbers, and so nothing may be drawn
        "note": {"width": 16, "layers": 1, "dropout": 0.0, "token_dropout": 0.0},
        "picture": {"channels": [8], "dropout": 0.0, "augment": 0.0},
        "vitals": {"width": 16, "layers": 1, "dropout": 0.0, "feature_dropout": 0.0},
    }
    inputs = {n: {**made.INPUTS[n], "encoder": {"kind": "small", **options}} for n, options in still.items()}
    none = dict.fromkeys(("dropout", "input_dropout", "modality_dropout", "head_dropout"), 0.0)
    fusion = {"kind": "concat", "width": 16, **none}
    return made.recipe(path, inputs=inputs, training=spec, fusion=fusion, evaluation=LEAN)


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def shapes(folder: Path) -> dict[str, Any]:
    state = load_file(folder / "checkpoints" / "last" / "tensors.safetensors")
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def same(a: list[dict[str, float]], b: list[dict[str, float]], tolerance: float) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x == pytest.approx(y, abs=tolerance)


@pytest.fixture(scope="module")
def together(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By two processes, undisturbed."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    run = api.train(recipe, out=folder, workers=2, quiet=True)
    assert run.record["processes"] == 2
    assert run.record["stage"] == "done"
    return folder


def test_two_processes_learn_as_one(recipe: dict[str, Any], together: Path, tmp_path: Path) -> None:
    api.train(recipe, out=tmp_path / "one", quiet=True)
    same(curve(together), curve(tmp_path / "one"), TOLERANCE)


def test_a_killed_process_is_replaced_and_nothing_differs(
    recipe: dict[str, Any], together: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "fuseline", "train", str(tmp_path / "recipe.yaml"), "--out", str(folder)]
    process = subprocess.Popen([*command, "--workers", "2", "--quiet"], stderr=subprocess.PIPE, text=True)
    try:
        victim = _second(process.pid, folder)
        os.kill(victim, signal.SIGKILL)
        _, said = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert str(victim) in said  # torchrun names whom it lost
    same(curve(folder), curve(together), 0.0)


def _second(launcher: int, folder: Path) -> int:
    """The process of rank 1, once the first checkpoint is there."""
    deadline, found = time.monotonic() + 200, 0
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if not found:  # early: the rest of the training takes seconds
            found = next((p.pid for p in _below(launcher) if _rank(p) == "1"), 0)
        elif (folder / "history.csv").exists():
            return found
    raise AssertionError("no second process")


def _below(launcher: int) -> list[psutil.Process]:
    try:
        return psutil.Process(launcher).children(recursive=True)
    except psutil.Error:
        return []


def _rank(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("RANK")
    except psutil.Error:  # it has ended
        return None


def test_ray_replaces_a_killed_worker_and_a_split_model_learns_as_a_whole_one(
    recipe: dict[str, Any], together: Path, tmp_path: Path
) -> None:
    """Both in one, for each start of a team costs half a minute. The recipe's batches lack an input in one process."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "fuseline", "train", str(tmp_path / "recipe.yaml"), "--out", str(folder)]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--engine", "ray", "--strategy", "fsdp", "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 450
        while not (folder / "history.csv").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[1]
        victim = next(p for p in _below(process.pid) if "RayTrainWorker" in " ".join(p.cmdline()))
        victim.kill()
        _, said = process.communicate(timeout=500)
    finally:
        process.terminate()  # Ray's processes end with it
        process.wait(timeout=60)
    assert process.returncode == 0, said
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["stage"] == "done"
    same(curve(folder), curve(together), TOLERANCE)
    assert shapes(folder) == shapes(together)  # either may go on with the other's


def test_torchrun_goes_on_with_a_run_as_one_team(together: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(together, folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "fuseline", "train", "--resume", str(folder), "--quiet"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report.html") <= 1  # one of them has the run
    same(curve(folder), curve(together), 0.0)


def test_what_stops_it_is_said_once(recipe: dict[str, Any], tmp_path: Path) -> None:
    spec = {**recipe["training"], "batch_size": 3}
    with pytest.raises(FuselineError, match="2 processes for batches") as caught:
        api.train({**recipe, "training": spec}, out=tmp_path / "run", workers=2, quiet=True)
    assert caught.value.code == "bad_team"


def test_what_cannot_be_sharded(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="--workers 2") as caught:
        api.train(recipe, out=tmp_path / "a", strategy="fsdp", quiet=True)
    assert caught.value.code == "bad_team"
    assert not (tmp_path / "a").exists()
    spec = parse_recipe({**recipe, "training": {**recipe["training"], "mixup": 0.2}}).training
    check_sharded(spec, Team(0, 2), "float16")
    for team, precision in ((Team(0, 2, sharded=True), "float32"), (Team(sharded=True), "float32")):
        with pytest.raises(FuselineError, match=r"mixup|several"):
            check_sharded(spec, team, precision)
    with pytest.raises(FuselineError, match="ddp, fsdp"):
        Team.of_environment({}, strategy="zero")


@pytest.mark.parametrize("rows", [1, 5, 8, 9, 13])
def test_validation_is_dealt_out_and_put_together_again(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, in turn: what they gather is what one would have seen, batch by batch."""

    class Rows:
        def batch(self, rows: np.ndarray) -> np.ndarray:
            return rows

    def seen(numbers: np.ndarray) -> Seen:
        tensor = torch.from_numpy(numbers)
        return Seen({"score": torch.stack([tensor, tensor**2], 1).float()}, tensor, tensor.sum())

    numbers = np.random.default_rng(0).permutation(100)[:rows]
    alone = Validation(Rows(), numbers, 4, Team())  # type: ignore[arg-type]
    team = [Validation(Rows(), numbers, 4, Team(rank, 3)) for rank in range(3)]  # type: ignore[arg-type]
    assert len({len(v) for v in team}) == 1
    own = [[seen(batch) for batch in v] for v in team]  # type: ignore[arg-type]
    sent: list[list[torch.Tensor]] = []
    for validation, mine in zip(team[1:], own[1:], strict=True):  # what the others would send
        monkeypatch.setattr(Team, "gather", lambda _, tensor: sent[-1].append(tensor) or [])
        sent.append([])
        assert validation.of_all(mine) is None
    calls = iter(zip(*sent, strict=True))
    monkeypatch.setattr(Team, "gather", lambda _, tensor: [tensor, *next(calls)])
    together = team[0].of_all(own[0])
    assert together is not None
    for a, b in zip(together, [seen(batch) for batch in alone], strict=True):  # type: ignore[arg-type]
        assert torch.equal(a.outputs["score"], b.outputs["score"])
        assert torch.equal(a.targets, b.targets)
        assert a.loss == b.loss


def test_what_a_team_cannot_do(recipe: dict[str, Any], tmp_path: Path) -> None:
    frame = pl.read_csv(recipe["table"]["path"], infer_schema_length=None)
    with pytest.raises(FuselineError, match="in memory"):
        api.train({k: v for k, v in recipe.items() if k != "table"}, table=frame, out=tmp_path / "a", workers=2)
    with pytest.raises(FuselineError, match="one after the other"):
        api.train({**recipe, "split": {"folds": 3}}, out=tmp_path / "b", workers=2)
