"""Drift of a made clinic: how often a check alarms where nothing changed, and what it finds where something did.

A package is trained on one clinic. Another one, drawn from the same model with another seed, is served by it, and
windows of its rows are compared with the profile. Then the same rows come darkened, without notes, and so on.

    python benchmarks/drift.py --windows 400
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from common import tell
from PIL import Image

from fuseline import api
from fuseline.cli.demo import adapt
from fuseline.demo import generate
from fuseline.modalities import MediaRoot
from fuseline.monitor.compare import compare
from fuseline.monitor.seen import OPEN as ALL
from fuseline.monitor.seen import kept_stats, records, table
from fuseline.monitor.window import Window
from fuseline.runtime import Predictor, load
from fuseline.serve.calls import Call, Event, RowSeen
from fuseline.serve.describe import describe

Cells = dict[str, Any]
SIZES = (100, 300, 1000, 3000)


def package(folder: Path, rows: int, epochs: int) -> Path:
    generate(folder, rows, 0)
    text, _ = api.init(folder / "table.csv", "diagnosis")
    recipe = adapt(yaml.safe_load(text))
    recipe["training"] |= {"epochs": epochs}
    recipe["evaluation"] |= {"bootstrap": 0, "degradation": False, "report": False}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return api.train(folder / "recipe.yaml", out=folder / "run", quiet=True).package


def served(predictor: Predictor, folder: Path, change: Callable[[Cells], Cells], limit: int) -> pl.DataFrame:
    """Records of the clinic's rows, as the server's observers would get them."""
    info = describe(predictor)
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        cells = [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)][:limit]
    for row in cells:
        for column in ("picture", "sound"):
            if row[column]:
                row[column] = (folder / row[column]).read_bytes()
    out: list[dict[str, Any]] = []
    for start in range(0, len(cells), 64):
        parsed = [
            predictor.parse(change(dict(row)), MediaRoot(None), i) for i, row in enumerate(cells[start : start + 64])
        ]
        outputs = predictor.run([p.values for p in parsed])
        seen = []
        for i, (p, answer) in enumerate(zip(parsed, predictor.decode(parsed, outputs), strict=True)):
            stats = {
                f"{name}.{key}": v
                for name, value in p.values.items()
                if value is not None
                for key, v in predictor.rows.modalities[name].summary(value).items()
            }
            seen.append(RowSeen(answer, stats, tuple(outputs["embedding"][i].tolist())))
        call = Call(info.name, [{}] * len(seen), str(start))
        out += records(Event(call, "ok", 0.0, rows=tuple(seen), version=info.version), info)
    return table(out, kept_stats(info.profile, ALL))


def darkened(row: Cells) -> Cells:
    if row["picture"]:
        file = io.BytesIO()
        Image.open(io.BytesIO(row["picture"])).convert("RGB").point(lambda v: int(v * 0.8)).save(file, "PNG")
        row["picture"] = file.getvalue()
    return row


def dropping(share: float) -> Callable[[Cells], Cells]:
    rng = np.random.default_rng(1)
    return lambda row: row | {"note": None} if rng.random() < share else row


def coughing(share: float) -> Callable[[Cells], Cells]:
    rng = np.random.default_rng(2)
    return lambda row: row | {"cough": "wet"} if row["cough"] and rng.random() < share else row


def warmer(row: Cells) -> Cells:
    return row | {"temperature": f"{float(row['temperature']) + 0.4:.1f}"} if row["temperature"] else row


CHANGES: dict[str, Callable[[Cells], Cells]] = {
    "nothing": lambda row: row,
    "pictures darkened to 80 %": darkened,
    "a quarter of the notes dropped": dropping(0.25),
    "a third of the coughs called wet": coughing(1 / 3),
    "temperatures 0.4 degrees higher": warmer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=400)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--served", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--keep", type=Path, help="keep package and logs there")
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = args.keep or Path(made)
        model = folder / "clinic" / "run" / "model.fuse"
        if not model.exists():
            package(folder / "clinic", args.rows, args.epochs)
        predictor = load(model)
        profile = predictor.package.read_json("profile.json")
        generate(folder / "later", args.served, 1)
        rows = []
        for name, change in CHANGES.items():
            limit = args.served if name == "nothing" else min(3000, args.served)
            frame = served(predictor, folder / "later", change, limit)
            if args.keep:
                frame.write_parquet(folder / f"{name.replace(' ', '-').replace('%', 'percent')}.parquet")
            for size in SIZES:
                windows = args.windows if name == "nothing" else 40
                rng = np.random.default_rng(size)
                found: Counter[str] = Counter()
                alarms, seconds = 0, 0.0
                for _ in range(windows):
                    some = frame[rng.choice(len(frame), min(size, len(frame)), replace=False)]
                    start = time.perf_counter()
                    result = compare(profile, Window.of(some, profile))
                    seconds += time.perf_counter() - start
                    alarms += result.alarm
                    found.update(f.feature for f in result.findings if f.alarm)
                worst = ", ".join(f"{k} {n / windows:.0%}" for k, n in found.most_common(3))
                rows.append(
                    {
                        "change": name,
                        "rows": size,
                        "windows": windows,
                        "alarm": f"{alarms / windows:.2%}",
                        "checks": len(result.findings),
                        "ms a check": round(1000 * seconds / windows, 1),
                        "found in": worst,
                    }
                )
                print(rows[-1], file=sys.stderr, flush=True)
    tell("drift of a made clinic", rows, args.out)


if __name__ == "__main__":
    main()
