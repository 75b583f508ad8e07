"""Does a student gain by its teacher? The same small model with and without one, on made tables, several seeds.

python benchmarks/distilling.py forecast
python benchmarks/distilling.py detection
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image

from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.compress.distil import DistilConfig, Distillation, distil, unwatched
from fuseline.lab.compress.heal import standing
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.model import FusionModel
from fuseline.lab.training import loop
from fuseline.lab.training.begin import begin
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe

TRAINING = {"batch_size": 16, "learning_rate": 3e-3, "precision": "float32", "loggers": []}


def waves(folder: Path, rows: int) -> Path:
    """Two waves of a drawn period and a slow drift under noise; 36 steps to the next 6. A tenth has no history."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(rows):
        t, period = np.arange(42), float(rng.choice([6, 9, 12]))
        level = rng.normal(50, 10) + np.cumsum(rng.normal(0, 0.3, 42))
        y = level + 6 * np.sin(2 * np.pi * (t + rng.uniform(0, period)) / period) + rng.normal(0, 1.5, 42)
        past = None if i % 10 == 9 else json.dumps(y[:36].round(2).tolist())
        out.append({"y": past, "y@next": json.dumps(y[36:].round(2).tolist()), "period": period})
    pl.DataFrame(out, infer_schema_length=None).write_csv(folder / "table.csv")
    return folder / "table.csv"


def squares(folder: Path, rows: int) -> Path:
    """None to two coloured squares in a noisy picture; a tenth has no picture."""
    rng = np.random.default_rng(0)
    (folder / "media").mkdir()
    out = []
    for i in range(rows):
        pixels = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
        boxes = []
        for _ in range(i % 3):
            side, colour = int(rng.integers(10, 18)), int(rng.integers(0, 2))
            x, y = (int(v) for v in rng.integers(0, 48 - side, 2))
            pixels[y : y + side, x : x + side, colour] = 170
            boxes.append({"label": ["red", "green"][colour], "xyxy": [x, y, x + side, y + side]})
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        (folder / f"media/{i}.png").write_bytes(file.getvalue())
        out.append({"photo": None if i % 10 == 9 else f"media/{i}.png", "boxes": json.dumps(boxes)})
    pl.DataFrame(out, infer_schema_length=None).write_csv(folder / "table.csv")
    return folder / "table.csv"


KINDS: dict[str, dict[str, Any]] = {
    "forecast": {
        "table": waves,
        "rows": 320,
        "task": {"kind": "forecast", "target": "y@next"},
        "inputs": [
            {
                "y": {"modality": "timeseries", "encoder": {"kind": "small", "width": width, "layers": layers}},
                "period": {"modality": "tabular", "columns": {"period": "number"}},
            }
            for width, layers in ((48, 2), (12, 1))
        ],
        "width": (48, 12),
        "epochs": (20, 12),
    },
    "detection": {
        "table": squares,
        "rows": 240,
        "task": {"kind": "detection", "target": "boxes", "layers": 2},
        "inputs": [
            {"photo": {"modality": "image", "size": 48, "encoder": {"kind": "small", "channels": channels}}}
            for channels in ([16, 32, 48], [8, 12, 16])
        ],
        "width": (48, 16),
        "epochs": (40, 16),
    },
}


def prepared(kind: str, path: Path, which: int, seed: int, epochs: int) -> Prepared:
    """`which`: 0 the teacher's recipe, 1 the student's."""
    spec = KINDS[kind]
    recipe = parse_recipe(
        {
            "table": {"path": str(path)},
            "inputs": spec["inputs"][which],
            "task": spec["task"],
            "fusion": {"kind": "attention", "width": spec["width"][which], "layers": 2 - which},
            "split": {"kind": "random", "val": 0.15, "test": 0.35},
            "training": {**TRAINING, "epochs": epochs, "seed": seed},
        }
    )
    return prepare(recipe, Table.open(path), folder=path.parent, voice=Silent(), cache=Cache(256))


def trained(ready: Prepared, folder: Path) -> FusionModel:
    """From labels alone, to the end."""
    model = build_model(ready.recipe, ready.plans, ready.parser.modalities, ready.task)
    folder.mkdir(parents=True)
    loop.keep_frozen(ready, model, Silent())
    begin(model, ready.recipe.training.seed, Silent())
    plain = replace(ready, part=unwatched(ready.part))
    loop.fit(plain, model, folder, Silent(), resume=False, precision="float32")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    spec = KINDS[given.kind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = spec["table"](folder, spec["rows"])
        whole = prepared(given.kind, path, 0, 0, spec["epochs"][0])
        master = trained(whole, folder / "teacher")
        test = whole.rows("test")
        teacher = Teacher.of_models([master], whole)
        size = sum(p.numel() for p in master.parameters())
        held = standing(master, whole, test, None).metric
        print(f"teacher: {size} parameters, {whole.task.metric} {held:.4f} on {len(test)} test rows", flush=True)
        for seed in range(given.seeds):
            own = prepared(given.kind, path, 1, seed, spec["epochs"][1])
            alone = trained(own, folder / f"alone-{seed}")
            ready, student = distil(own.recipe, whole, teacher, folder / f"taught-{seed}")
            measure = Distillation(DistilConfig(), teacher, student, ready)
            near = [standing(m, ready, ready.rows("val"), measure).distance for m in (alone, student)]
            scores = [standing(m, ready, test, None).metric for m in (alone, student)]
            print(
                f"seed {seed}: {sum(p.numel() for p in student.parameters())} parameters, {whole.task.metric} "
                f"alone {scores[0]:.4f}, taught {scores[1]:.4f}; distance from the teacher (validation rows) "
                f"alone {near[0]:.4f}, taught {near[1]:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
