"""What a second worker gives a search, and what a kill takes from it, on `chest-xray`'s notes and numbers.

The same search by one and by two workers, in turn, `--rounds` times each with other seeds: the best validation metric,
the seconds in all and those in which trials ran (without the workers' own start), and how busy the machine was. Then
one search killed (-9) in the middle of a trial and gone on with, against the same one undisturbed.

    OMP_NUM_THREADS=1 python benchmarks/tune_workers.py --trials 8 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import yaml
from chest_xray import VITALS
from common import DATA, LEAN, machine

import fuseline
from fuseline.lab.tune.study import open_study, quiet

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
    "fusion.width": [32, 64],
    "fusion.head_dropout": {"low": 0.0, "high": 0.5},
}


def recipe(epochs: int, seed: int) -> dict[str, Any]:
    note = {"modality": "text", "max_length": 48, "encoder": {"kind": "small", "width": 64}}
    return {
        "table": {"path": str(DATA / "chest-xray" / "table.csv")},
        "inputs": {"notes": note, "vitals": {"modality": "tabular", "columns": VITALS}},
        "task": {"kind": "classification", "target": "covid", "positive": "yes"},
        "fusion": {"kind": "concat"},
        "split": {"kind": "group", "group": "patient", "val": 0.2, "test": 0.2, "seed": 0},
        "training": {
            **{"epochs": epochs, "patience": epochs, "seed": seed, "precision": "float32"},
            **{"checkpoint_seconds": 0, "loggers": []},
        },
        "evaluation": LEAN,
        "tune": {"space": SPACE},
    }


def search(plan: dict[str, Any], out: Path, trials: int, workers: int) -> dict[str, float]:
    start, load = time.monotonic(), os.getloadavg()[0]
    found = fuseline.tune(plan, out=out, trials=trials, workers=workers, quiet=True)
    whole = time.monotonic() - start
    ran = [t for t in open_study(out).trials if t.datetime_start and t.datetime_complete]
    span = max(t.datetime_complete for t in ran) - min(t.datetime_start for t in ran)  # type: ignore[type-var]
    return {
        "workers": workers,
        "best": found.result["best"]["value"],
        "seconds": round(whole, 1),
        "trials_seconds": round(span.total_seconds(), 1),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
    }


def told(folder: Path) -> list[Any]:
    """Trials that were not interrupted, in their order."""
    with quiet():
        trials = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'study.db'}").get_trials()
    ended = [t for t in trials if t.state != optuna.trial.TrialState.FAIL]
    return [[t.user_attrs["changes"], t.state.name, t.value, t.intermediate_values] for t in ended]


def killed(plan: dict[str, Any], folder: Path, trials: int) -> dict[str, Any]:
    """kill -9 in the middle of a trial, in the middle of a search."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    whole, part = folder / "whole", folder / "part"
    fuseline.tune(plan, out=whole, trials=trials, quiet=True)
    command = [sys.executable, "-m", "fuseline", "tune", str(folder / "recipe.yaml"), "-o", str(part), "-q"]
    process = subprocess.Popen([*command, "--trials", str(trials)])
    victim = part / "trials" / f"{trials // 2:04d}"
    while not (victim / "history.csv").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = fuseline.tune(resume=part, trials=trials, quiet=True)
    same = [json.dumps(a) == json.dumps(b) for a, b in zip(told(whole), told(part), strict=True)]
    return {"counts": found.result["counts"], "trials": len(same), "the same": sum(same)}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--trials", type=int, default=8)
    ask.add_argument("--epochs", type=int, default=12)
    ask.add_argument("--rounds", type=int, default=3)
    given = ask.parse_args()
    print(machine())
    rounds: list[dict[int, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(given.rounds):
            plan, pair = recipe(given.epochs, seed), {}
            for workers in (1, 2) if seed % 2 == 0 else (2, 1):
                pair[workers] = search(plan, folder / f"{seed}-{workers}", given.trials, workers)
                print(json.dumps({"seed": seed, **pair[workers]}), flush=True)
            rounds.append(pair)
        for key in ("seconds", "trials_seconds"):
            ratios = [r[2][key] / r[1][key] for r in rounds]
            print(f"{key}: two workers take {statistics.median(ratios):.2f} of one's (each: {ratios})")
        print(json.dumps(killed(recipe(given.epochs, 0), folder, given.trials)))


if __name__ == "__main__":
    main()
