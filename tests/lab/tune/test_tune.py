from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import made
import optuna
import polars as pl
import psutil
import pytest
import yaml

import fuseline
from fuseline.api.tuning import seconds_of
from fuseline.errors import FuselineError
from fuseline.lab.tune.ray import Board, Report, hear
from fuseline.lab.tune.space import apply, default_space, read_space
from fuseline.lab.tune.study import PRUNER, open_study
from fuseline.recipe import load_recipe, parse_recipe

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    "fusion.width": [16, 32],
    "training.epochs": {"low": 2, "high": 4, "whole": True},
}


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A small table of numbers: a trial takes a tenth of a second."""
    rows = [{"x": (i * 37 % 100) / 100, "y": "yes" if i * 37 % 100 > 50 else "no"} for i in range(120)]
    pl.DataFrame(rows).write_csv(folder / "table.csv")
    base = made.recipe(folder / "table.csv", **changes)
    base["inputs"] = {"vitals": {"modality": "tabular", "columns": {"x": "number"}, "encoder": {"width": 16}}}
    base["task"] = {"kind": "classification", "target": "y"}
    base["tune"] = {"space": SPACE}
    return base


def told(found: Any) -> list[tuple[Any, ...]]:
    return [(t["state"], t["value"], sorted(t["changes"].items())) for t in found.result["trials"]]


def test_a_search_finds_writes_and_explains(tmp_path: Path) -> None:
    found = fuseline.tune(recipe(tmp_path), out=tmp_path / "s", trials=10, quiet=True)
    result = found.result
    ended = [t for t in result["trials"] if t["state"] in ("completed", "given up")]
    assert len(ended) == 10
    assert result["metric"] == "auroc"
    done = [t["value"] for t in result["trials"] if t["state"] == "completed"]
    assert result["best"]["value"] == max(done) > 0.9
    best = load_recipe(found.recipe)
    assert best.training.learning_rate == result["best"]["changes"]["training.learning_rate"]
    assert best.evaluation.export, "a trial's short cuts are not the recipe's"
    assert json.loads((found.folder / "study.json").read_text()) == result
    page = found.report.read_text()
    assert "training.learning_rate" in page
    assert page.count("<figure>") == (2 if result["importance"] else 1)
    assert not list(found.folder.glob("trials/*/checkpoints"))
    metrics = json.loads(next(found.folder.glob("trials/*/metrics.json")).read_text())
    assert "test" not in metrics["parts"], "test rows are never looked at"


def test_an_interrupted_search_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = fuseline.tune(recipe(tmp_path), out=tmp_path / "whole", trials=7, quiet=True)
    fuseline.tune(recipe(tmp_path), out=tmp_path / "part", trials=3, quiet=True)
    resumed = fuseline.tune(resume=tmp_path / "part", trials=7, quiet=True)
    assert told(resumed) == told(whole)


def test_a_killed_search_loses_one_trial_at_most(tmp_path: Path) -> None:
    plan = recipe(tmp_path)
    plan["training"]["epochs"] = 400
    plan["tune"] = {"space": {"training.learning_rate": {"low": 1e-4, "high": 1e-3}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(plan))
    out = tmp_path / "s"
    command = [
        sys.executable,
        "-m",
        "fuseline",
        "tune",
        str(tmp_path / "r.yaml"),
        "-o",
        str(out),
        "--trials",
        "9",
        "-q",
    ]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 400
    while not list(out.glob("trials/0000/checkpoints/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    plan["training"]["epochs"] = 2
    (out / "recipe.yaml").write_text(yaml.safe_dump(plan))
    found = fuseline.tune(resume=out, trials=2, quiet=True)
    assert found.result["counts"] == {"failed": 1, "completed": 2}
    killed, again, other = (t["changes"] for t in found.result["trials"])
    assert again == killed != other, "what was interrupted is tried again, as it would have been"


def test_two_workers_share_a_search(tmp_path: Path) -> None:
    found = fuseline.tune(recipe(tmp_path), out=tmp_path / "s", trials=5, workers=2, quiet=True)
    trials = found.result["trials"]
    assert [t["trial"] for t in trials] == [0, 1, 2, 3, 4]
    assert len({t["changes"]["training.learning_rate"] for t in trials}) == 5, "no two draw the same"


def test_trials_that_cannot_be_run_say_why_and_the_search_goes_on(tmp_path: Path) -> None:
    plan = recipe(tmp_path)
    plan["tune"] = {"space": {"training.learning_rate": [1e-3, 1e30]}}
    found = fuseline.tune(plan, out=tmp_path / "s", trials=2, quiet=True)
    failed = [t for t in found.result["trials"] if t["state"] == "failed"]
    assert all("loss" in t["why"] for t in failed)
    plan["tune"] = {"space": {"training.learning_rate": [1e30, 1e31]}}
    with pytest.raises(FuselineError) as caught:
        fuseline.tune(plan, out=tmp_path / "none", trials=1, max_time=0.01, quiet=True)
    assert caught.value.code == "no_trial"


def test_a_search_in_which_nothing_can_be_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuseline.lab.tune.study.HOPELESS", 2)
    plan = recipe(tmp_path)
    plan["tune"] = {"space": {"training.learning_rate": [1e30, 1e31]}}
    with pytest.raises(FuselineError, match="loss") as caught:
        fuseline.tune(plan, out=tmp_path / "s", trials=9, quiet=True)
    assert caught.value.code == "no_trial"
    assert "2 of 2 ended with" in caught.value.message
    assert len(open_study(tmp_path / "s").trials) == 2


def test_a_trial_on_ray_that_falls_behind_is_given_up() -> None:
    """What workers report, heard by the process that asks Optuna: pruned like a trial here, and nothing twice."""
    study = optuna.create_study(direction="maximize", pruner=PRUNER)
    for _ in range(6):
        trial = study.ask()
        for interval in range(5):
            trial.report(0.9, interval)
        study.tell(trial, 0.9)
    good, bad = study.ask(), study.ask()
    reports = [Report(t.number, i, v) for t, v in ((good, 0.95), (bad, 0.5)) for i in range(4)]
    board = Board()
    assert not any(board.report(*report) for report in reports)
    running = {t.number: t for t in (good, bad)}
    assert set(hear(running, board.exchange([]))) == {bad.number}
    assert hear(running, [reports[1]]) == []  # again, from a worker that went on with it
    assert hear({}, reports) == []  # they have ended
    assert board.exchange([bad.number]) == []
    assert board.report(bad.number, 4, 0.5)
    assert not board.report(good.number, 4, 0.95)


def test_a_search_on_ray_goes_on_where_a_worker_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    plan = recipe(tmp_path)
    plan["training"] = {**plan["training"], "epochs": 150, "patience": 150, "checkpoint_seconds": 0}
    plan["tune"] = {"space": {"training.learning_rate": {"low": 1e-4, "high": 1e-3}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(plan))
    out = tmp_path / "s"
    command = [sys.executable, "-m", "fuseline", "tune", str(tmp_path / "r.yaml"), "-o", str(out), "-q"]
    process = subprocess.Popen(
        [*command, "--trials", "3", "--engine", "ray", "--workers", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 450
        while not list(out.glob("trials/*/history.csv")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[1]
        below = psutil.Process(process.pid).children(recursive=True)
        next(p for p in below if p.cmdline()[:1] == ["ray::train"]).kill()
        _, said = process.communicate(timeout=400)
    finally:
        process.terminate()  # Ray's processes end with it
        process.wait(timeout=60)
    assert process.returncode == 0, said
    result = json.loads((out / "study.json").read_text())
    assert result["counts"] == {"completed": 3}
    assert {len((out / f"trials/{i:04d}/history.csv").read_text().splitlines()) for i in range(3)} == {151}


def test_what_cannot_be_searched_is_said_at_once(tmp_path: Path) -> None:
    plan = recipe(tmp_path)
    for change, code in (
        ({"split": {"kind": "random", "val": 0.0}}, "no_validation"),
        ({"tune": {"space": {"training.learning_rat": [1, 2]}}}, "bad_recipe"),
        ({"tune": {"space": {"split.seed": [1, 2]}}}, "bad_recipe"),
        ({"tune": {"space": {"inputs.none.encoder.width": [16]}}}, "bad_recipe"),
        ({"tune": {"space": {"fusion": ["concat"]}}}, "bad_recipe"),
        ({"tune": {"space": {"training.epochs": {"low": 3, "high": 1}}}}, "bad_recipe"),
        ({"tune": {"space": {"training.epochs": {"low": 1, "high": 4}}}}, "bad_recipe"),  # it lacks `whole`
        ({"tune": {"space": {"training.epochs": []}}}, "bad_recipe"),
        ({"tune": {"space": {"fusion.kind": ["concat", "conkat"]}}}, "bad_recipe"),
        ({"training": {**plan["training"], "metric": "bleu"}}, "bad_recipe"),
    ):
        with pytest.raises(FuselineError) as caught:
            fuseline.tune({**plan, **change}, out=tmp_path / "s", trials=1, quiet=True)
        assert caught.value.code == code, change
        assert not (tmp_path / "s").exists()
    with pytest.raises(FuselineError) as caught:
        open_study(tmp_path)
    assert caught.value.code == "no_such_run"
    fuseline.tune(plan, out=tmp_path / "s", trials=1, quiet=True)
    with pytest.raises(FuselineError, match="begun with"):
        fuseline.tune(plan, resume=tmp_path / "s", trials=1, quiet=True)
    with pytest.raises(FuselineError) as caught:
        fuseline.tune(plan, out=tmp_path / "s", trials=1, quiet=True)
    assert caught.value.code == "run_exists"


def test_the_default_space_holds_for_the_recipe() -> None:
    plain = parse_recipe({**made.recipe(), "fusion": {"kind": "attention"}})
    assert "fusion.kind" in read_space(plain)
    for path, values in default_space(plain).items():
        for value in values if isinstance(values, tuple) else (values.low, values.high):
            apply(plain, {path: value})
    own = parse_recipe({**made.recipe(), "fusion": {"kind": "attention", "bottleneck": 4}})
    assert "fusion.kind" not in default_space(own), "other kinds have no bottleneck"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), (90, 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), ("2d", 172800)]
)
def test_times(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "1y", "-1", "", "1 h 2"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(FuselineError):
        seconds_of(text)
