"""Generated videos: the class is the direction in which a shape moves, which no single frame shows.

A shape of random kind, size, colour and speed crosses a noisy picture and comes back at the other side, from a random
place: the frames of one direction are distributed as those of any other. Clips are written as MPEG-4 files (PyAV) and
read as any table's. The same training is done with one frame a clip, which cannot do better than chance.

    python benchmarks/moving_shapes.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
from common import LEAN, tell

from fuseline import api

SIDE = 32
FRAMES = 16
RATE = 16
STEPS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def clip(rng: np.random.Generator, direction: str) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    at, speed, reach = rng.uniform(0, SIDE, 2), rng.uniform(0.8, 1.6), rng.uniform(3.5, 6)
    colour, ground = rng.uniform(120, 255, 3), rng.uniform(0, 60, 3)
    kind = rng.choice(["disc", "square", "cross"])
    frames = np.empty((FRAMES, SIDE, SIDE, 3))
    for i in range(FRAMES):
        # Distances on a torus: what leaves at one side enters at the other.
        dx, dy = (
            (g - at[k] - i * speed * STEPS[direction][k] + SIDE / 2) % SIDE - SIDE / 2 for k, g in ((0, x), (1, y))
        )
        near, far = np.minimum(np.abs(dx), np.abs(dy)), np.maximum(np.abs(dx), np.abs(dy))
        inside = {"disc": np.hypot(dx, dy) < reach, "square": far < reach, "cross": (far < reach) & (near < reach / 3)}
        frames[i] = np.where(inside[str(kind)][..., None], colour, ground)
    return np.clip(frames + rng.normal(0, 12, frames.shape), 0, 255).astype(np.uint8)


def write(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=RATE, options={"b": "400000"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


def make(folder: Path, rows: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    names = list(STEPS)
    table = [{"clip": f"{i}.mp4", "direction": names[i % len(names)]} for i in range(rows)]
    for row in table:
        write(folder / row["clip"], clip(rng, row["direction"]))
    pl.DataFrame(table).write_csv(folder / "table.csv")
    return folder / "table.csv"


def recipe(table: Path, frames: int, epochs: int, seed: int) -> dict[str, Any]:
    encoder = {"kind": "small", "frame": {"kind": "small", "channels": [16, 32]}, "width": 64}
    return {
        "table": {"path": str(table)},
        "inputs": {"clip": {"modality": "video", "size": SIDE, "frames": frames, "encoder": encoder}},
        "task": {"kind": "classification", "target": "direction"},
        "split": {"kind": "stratified", "val": 0.15, "test": 0.3, "seed": seed},
        "fusion": {"kind": "attention", "width": 64},
        "training": {
            "epochs": epochs, "batch_size": 32, "patience": 25, "seed": seed, "precision": "float32", "loggers": [],
        },
        "evaluation": LEAN,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        table = make(Path(name), args.rows, args.seed)
        for frames in (8, 1):
            start = time.perf_counter()
            epochs = args.epochs if frames > 1 else max(1, args.epochs // 2)
            run = api.train(recipe(table, frames, epochs, args.seed), out=Path(name) / f"run{frames}", quiet=True)
            test = run.metrics["parts"]["test"]
            scores = {k: round(m["value"], 4) for k, m in test["metrics"].items() if k in ("accuracy", "macro_f1")}
            rows.append({"frames": frames, "test rows": test.get("rows"), **scores})
            rows[-1]["seconds"] = round(time.perf_counter() - start, 1)
            print(rows[-1], flush=True)
    tell("Direction of a moving shape, four classes, chance 0.25", rows, args.out)


if __name__ == "__main__":
    main()
