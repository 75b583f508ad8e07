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
    "who": {"modality": "graph", "edges": "triples.csv", "encoder": {"kind": "small"}},
    "clip": {"modality": "video", "size": 16, "frames": 3, "encoder": {"kind": "small"}},
    "photos": {"modality": "images", "size": 16, "several": 3, "encoder": {"kind": "small"}},
    "remarks": {"modality": "texts", "max_length": 8, "vocab_size": 300, "several": 3, "encoder": {"kind": "small"}},
    "pulse": {"modality": "timeseries", "length": 12, "encoder": {"kind": "small", "width": 32, "layers": 1}},
    "form": {
        "modality": "document",
        "columns": {"scan": "image", "ocr": "words"},
        "size": 32,
        "max_length": 16,
        "vocab_size": 300,
        "encoder": {"kind": "small", "width": 32, "layers": 1, "patch": 16},
    },
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


def clip(label: int, start: int, frames: int = 5) -> bytes:
    """A bar that goes right or left, as an animated GIF; one frame does not say which."""
    pixels = np.zeros((frames, 24, 32), dtype=np.uint8)
    for i in range(frames):
        at = (start + (3 * i if label else -3 * i)) % 32
        pixels[i, :, at : at + 4] = 220
    first, *rest = (Image.fromarray(p) for p in pixels)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=200)
    return file.getvalue()


def series(rng: np.random.Generator, label: int) -> str:
    """A list cell of two channels, with gaps, of 3 to 14 steps: shorter and longer than what is kept."""
    steps = int(rng.integers(3, 15))
    numbers = 60 + 30 * label + rng.normal(0, 4, (steps, 2)).cumsum(axis=0)
    return json.dumps([[None if rng.random() < 0.1 else round(float(n), 2) for n in step] for step in numbers])


def ocr(rng: np.random.Generator, label: int) -> str:
    """The same two words in every page; which of them is on top says the label."""
    top, bottom = ("fever", "calm") if label else ("calm", "fever")
    words = [{"text": t, "box": [4, y, 30, y + 8]} for t, y in ((top, 2), (bottom, 28))]
    return json.dumps({"width": 48, "height": 40, "words": [words[i] for i in rng.permutation(2)]})


def note(rng: np.random.Generator, label: int) -> str:
    words = ["calm breath", "clear lungs", "ruhig"] if label == 0 else ["heavy cough", "fever again", "咳嗽"]
    return " ".join(str(rng.choice(words)) for _ in range(int(rng.integers(1, 5))))


def write_triples(path: Path, entities: int = 20) -> None:
    """A graph of the entities e0, e1 ...: a ring, and a star around each fifth."""
    rows = [(f"e{i}", "next", f"e{(i + 1) % entities}") for i in range(entities)]
    rows += [(f"e{i}", "knows", f"e{i // 5 * 5}") for i in range(entities) if i % 5]
    pl.DataFrame(rows, schema=["head", "relation", "tail"], orient="row").write_csv(path)


def entity(row: int, seed: int, absent: float) -> str | None:
    """Now and then one that the graph does not hold."""
    if np.random.default_rng([seed, row]).random() < absent:
        return None
    return "stranger" if row % 11 == 10 else f"e{7 * row % 20}"


def make_table(folder: Path, rows: int = 36, *, seed: int = 0, absent: float = 0.33) -> Path:
    """Write table.csv with pictures and sounds beside it; columns as INPUTS read them; `sick`, `score` to predict."""
    rng, more = np.random.default_rng(seed), np.random.default_rng([seed, 1])
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
            "seen": f"2024-0{rng.integers(1, 9)}-1{rng.integers(0, 9)}",
        }
        for key in row:
            if rng.random() < absent:
                row[key] = None
        row["who"] = entity(i, seed, absent)
        row |= _more(folder, i, label, absent, more)
        row |= {"patient": i // 2, "sick": "yes" if label else "no", "score": round(label * 5 + float(rng.normal()), 3)}
        out.append(row)
    write_triples(folder / "triples.csv")
    path = folder / "table.csv"
    pl.DataFrame(out, infer_schema_length=None).write_csv(path)
    return path


def _more(folder: Path, i: int, label: int, absent: float, rng: np.random.Generator) -> dict[str, Any]:
    """Cells that no test before them knows: drawn apart, so that the others stay as they are."""
    (folder / f"media/{i}.gif").write_bytes(clip(label, int(rng.integers(32))))
    row: dict[str, Any] = {
        "clip": f"media/{i}.gif",
        "photos": ";".join(f"media/{j}.png" for j in range(i, -1, -2)[: int(rng.integers(1, 4))]),
        "scan": f"media/{i}.png",
        "pulse": series(rng, label),
        "ocr": ocr(rng, label),
        "remarks": json.dumps([note(rng, label) for _ in range(int(rng.integers(1, 4)))]),
    }
    return {key: None if rng.random() < absent else cell for key, cell in row.items()}


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
