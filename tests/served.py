"""A tiny package over every modality, and raw rows as a caller sends them: for the tests of serving and watching."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import made
import numpy as np

import fuseline


def package(folder: Path, *, task: dict[str, Any] | None = None, seed: int = 0, name: str = "clinic") -> Path:
    """Train for one epoch on made rows (a few seconds) and give `folder/NAME.fuse`."""
    table = made.make_table(folder / f"table-{name}-{seed}", 48, seed=seed)
    recipe = made.recipe(
        table,
        task=task or {"kind": "classification", "target": "sick"},
        training={"epochs": 1, "batch_size": 8, "precision": "float32", "loggers": [], "seed": seed},
        evaluation={"bootstrap": 0, "degradation": False, "report": False},
    )
    run = fuseline.train(recipe, out=folder / f"run-{name}-{seed}" / name, quiet=True)
    target = folder / f"{name}.fuse"
    shutil.copytree(run.package, target, dirs_exist_ok=True)
    return target


def rows(count: int = 12, *, seed: int = 5, absent: float = 0.33) -> list[dict[str, Any]]:
    """Raw rows; media cells are bytes; a third of the cells is left out."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        label = i % 2
        row: dict[str, Any] = {
            "picture": made.picture(rng, label),
            "note": made.note(rng, label),
            "sound": made.sound(rng, label),
            "age": round(float(rng.normal(40 + 20 * label, 8)), 1),
            "sex": str(rng.choice(["f", "m"])),
            "smoker": bool(rng.integers(2)),
            "seen": f"2024-0{rng.integers(1, 9)}-1{rng.integers(0, 9)}",
        }
        out.append({k: v for k, v in row.items() if rng.random() >= absent})
    return out
