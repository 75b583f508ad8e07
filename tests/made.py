"""Small tables made by code for tests: every modality, a third of the cells absent, a target that can be learned."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
from PIL import Image

INPUTS: dict[str, dict[str, Any]] = {
    "picture": {"modality": "image", "size": 32, "encoder": {"kind": "small"}},
    "note": {"modality": "text", "max_length": 16, "vocab_size": 300, "encoder": {"kind": "small"}},
    "sound": {"modality": "audio", "sample_rate": 8000, "max_seconds": 1.0, "encoder": {"kind": "small"}},
    "vitals": {
        "modality": "tabular",
        "columns": {"age": "number", "sex": "category", "smoker": "boolean", "seen": "date"},
        "encoder": {"kind": "small"},
    },
    "pulse": {"modality": "timeseries", "length": 12, "encoder": {"kind": "small", "width": 32, "layers": 1}},
}
FEW = ("picture", "note", "sound", "vitals")
"""what :func:`recipe` reads unless told otherwise"""


def picture(rng: np.random.Generator, label: int) -> bytes:
    pixels = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
    pixels[10:30, 10 + 12 * label : 20 + 12 * label] += 150
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def sound(rng: np.random.Generator, label: int, rate: int = 8000) -> bytes:
    seconds = rng.uniform(0.3, 0.9)
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (300 + 700 * label) * t) + 0.05 * rng.normal(size=t.shape)
    file = io.BytesIO()
    soundfile.write(file, wave.astype(np.float32), rate, format="WAV")
    return file.getvalue()


def series(rng: np.random.Generator, label: int) -> str:
    """A list cell of two channels, with gaps, of 3 to 14 steps: shorter and longer than what is kept."""
    steps = int(rng.integers(3, 15))
    numbers = 60 + 30 * label + rng.normal(0, 4, (steps, 2)).cumsum(axis=0)
    return json.dumps([[None if rng.random() < 0.1 else round(float(n), 2) for n in step] for step in numbers])


def note(rng: np.random.Generator, label: int) -> str:
    words = ["calm breath", "clear lungs", "ruhig"] if label == 0 else ["heavy cough", "fever again", "咳嗽"]
    return " ".join(str(rng.choice(words)) for _ in range(int(rng.integers(1, 5))))


def make_table(folder: Path, rows: int = 36, *, seed: int = 0, absent: float = 0.33) -> Path:
    """Write table.csv with pictures and sounds beside it; columns as INPUTS read them; `sick`, `score` to predict."""
    rng = np.random.default_rng(seed)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    out: list[dict[str, Any]] = []
    for i in range(rows):
        label = i % 2
        (folder / f"media/{i}.png").write_bytes(picture(rng, label))
        (folder / f"media/{i}.wav").write_bytes(sound(rng, label))
        row: dict[str, Any] = {
            "picture": f"media/{i}.png",
            "note": note(rng, label),
            "sound": f"media/{i}.wav",
            "age": round(float(rng.normal(40 + 20 * label, 8)), 1),
            "sex": str(rng.choice(["f", "m"])),
            "smoker": str(rng.choice(["yes", "no"])),
            "pulse": series(rng, label),
            "seen": f"2024-0{rng.integers(1, 9)}-1{rng.integers(0, 9)}",
        }
        for key in row:
            if rng.random() < absent:
                row[key] = None
        row |= {"patient": i // 2, "sick": "yes" if label else "no", "score": round(label * 5 + float(rng.normal()), 3)}
        out.append(row)
    path = folder / "table.csv"
    pl.DataFrame(out, infer_schema_length=None).write_csv(path)
    return path


def recipe(table: Path | None = None, **changes: Any) -> dict[str, Any]:
    """A small recipe over a few modalities; `changes` replace whole sections."""
    base: dict[str, Any] = {
        "inputs": {name: INPUTS[name] for name in FEW},
        "task": {"kind": "classification", "target": "sick"},
        "fusion": {"kind": "attention", "width": 32},
        "split": {"kind": "stratified", "val": 0.25, "test": 0.25},
        "training": {"epochs": 2, "batch_size": 8, "precision": "float32", "loggers": []},
        "evaluation": {"bootstrap": 20},
    }
    if table is not None:
        base["table"] = {"path": str(table)}
    return {**base, **changes}
