"""`air-quality`: pm2.5 of the next 24 hours from the last 24, trained on 2010-12, chosen on 2013, tested on 2014.

python benchmarks/air_quality.py

Ours with and without the next day's weather as a forecast would give it (here: as it came), against the last known
number, the day before, and gradient boosting on lags (one model an hour ahead and quantile, early stopping on 2013),
again with and without the next day's weather.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.data.windows import Windows
from fuseline.recipe import WindowSpec
from fuseline.tasks.series import covered, pinball

HISTORY = HORIZON = 24
WINDOWS = {
    "time": ["year", "month", "day", "hour"],
    "history": HISTORY,
    "horizon": HORIZON,
    "step": "1h",
    "series": {"weather": ["DEWP", "TEMP", "PRES", "Iws", "Is", "Ir", "cbwd"]},
}
PATH = DATA / "air-quality" / "beijing_pm25.csv"
QUANTILES = (0.1, 0.5, 0.9)


def recipe(ahead: bool, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    small = {"kind": "small", "width": 64, "layers": 1, "dropout": 0.2}
    inputs = {
        "pm": {"modality": "timeseries", "column": "pm2.5", "encoder": small},
        "weather": {"modality": "timeseries", "encoder": {**small, "patch": 6}},
        "calendar": {"modality": "timeseries", "column": "calendar@next", "encoder": {**small, "patch": 24}},
    }
    if ahead:
        inputs["forecast"] = {"modality": "timeseries", "column": "weather@next", "encoder": {**small, "patch": 6}}
    return {
        "table": {"path": str(PATH), "windows": WINDOWS},
        "inputs": inputs,
        "task": {"kind": "forecast", "target": "pm2.5@next", "season": 24, **args.task},
        "split": {"kind": "time", "time": "time", "val_from": "2013-01-01", "test_from": "2014-01-01"},
        "fusion": {"kind": "attention", "width": 64, "head_dropout": 0.2, "modality_dropout": 0.05},
        "training": {
            "epochs": args.epochs,
            "batch_size": 128,
            "learning_rate": args.rate,
            "weight_decay": 0.05,
            "precision": "float32",
            "seed": seed,
            "loggers": [],
        },
        "evaluation": {"degradation": False, "export": False, "report": False, "bootstrap": 0},
    }


def ours(ahead: bool, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = api.train(recipe(ahead, args, args.seed), out=Path(folder) / "run", quiet=True)
        return {k: m["value"] for k, m in run.metrics["parts"]["test"]["metrics"].items()}


def boosted(ahead: bool) -> dict[str, float]:
    """One gradient boosting a step and quantile, on all numbers of the history."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    table = Windows(Table.open(PATH), WindowSpec.model_validate(WINDOWS))
    names = ["pm2.5", "weather", "calendar@next", *(["weather@next"] if ahead else [])]
    rows = np.arange(table.n_rows)
    frame = table.take(rows, [*names, "pm2.5@next", "time"])
    when = frame["time"].dt.year().to_numpy()

    def array(name: str) -> np.ndarray:
        width = table.store.channels(name)
        shape = (HISTORY, len(width)) if len(width) > 1 else (HISTORY,)
        gap = np.full(shape, np.nan, np.float32)
        return np.stack([gap if v is None else np.asarray(v, np.float32) for v in frame[name].to_list()])

    past = np.concatenate([array(n).reshape(len(rows), -1) for n in ("pm2.5", "weather")], axis=1)
    nexts = [array(n) for n in names if n.endswith("@next")]
    truth_NK = array("pm2.5@next")
    train, val, test = when < 2013, when == 2013, when == 2014
    answer_NKQ = np.zeros((int(test.sum()), HORIZON, len(QUANTILES)))
    for k in range(HORIZON):
        # The weather up to the hour in question, as a mean and as it is then.
        features = [past, *(n[:, k] for n in nexts), *(n[:, : k + 1].mean(axis=1) for n in nexts)]
        x = np.concatenate(features, axis=1)
        known = ~np.isnan(truth_NK[:, k])
        for q, quantile in enumerate(QUANTILES):
            model = HistGradientBoostingRegressor(
                loss="quantile",
                quantile=quantile,
                max_iter=400,
                learning_rate=0.08,
                early_stopping=True,
                random_state=0,
            )
            fit, check = train & known, val & known
            model.fit(x[fit], truth_NK[fit, k], X_val=x[check], y_val=truth_NK[check, k])
            answer_NKQ[:, k, q] = model.predict(x[test])
    truth, answers = truth_NK[test][..., None].astype(float), answer_NKQ[:, :, None]
    return {
        "mae": float(np.nanmean(np.abs(truth - answers[..., 1]))),
        "pinball": float(np.nanmean(pinball(truth, answers, np.array(QUANTILES)))),
        "coverage": float(np.nanmean(covered(truth, answers[..., 0], answers[..., 2]))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("ours", "boosting"))
    parser.add_argument("--out")
    args = parser.parse_args()
    args.task = {}
    rows: list[dict[str, Any]] = []

    def add(name: str, found: dict[str, float], seconds: float) -> None:
        row: dict[str, Any] = {"forecast": name, "MAE": f"{found['mae']:.2f}"}
        if "pinball" in found:
            row |= {"pinball": f"{found['pinball']:.2f}", "80 % covers": f"{100 * found['coverage']:.1f} %"}
        rows.append({**row, "seconds": round(seconds)})
        print(rows[-1], flush=True)

    if args.only != "boosting":
        for ahead in (True, False):
            start = time.perf_counter()
            found = ours(ahead, args)
            if ahead:
                add("last known number", {"mae": found["naive_mae"]}, 0)
                add("the same hour a day before", {"mae": found["seasonal_mae"]}, 0)
            add(f"ours{', next weather known' if ahead else ''}", found, time.perf_counter() - start)
    if args.only != "ours":
        for ahead in (True, False):
            start = time.perf_counter()
            add(f"boosting{', next weather known' if ahead else ''}", boosted(ahead), time.perf_counter() - start)
    tell("air-quality, the hours of 2014, µg/m³", rows, args.out)


if __name__ == "__main__":
    main()
