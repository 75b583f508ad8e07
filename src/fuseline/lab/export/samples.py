"""Rows made by code, for checks where no table is at hand: the raw cells of every input, and values of any length."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
from PIL import Image as Pillow

from fuseline.modalities import MediaRoot, Modality
from fuseline.modalities.cells import noted
from fuseline.modalities.document import Document, Page
from fuseline.modalities.graph import Graph
from fuseline.modalities.rows import RowParser
from fuseline.modalities.several import Items, Several
from fuseline.modalities.tabular import Tabular
from fuseline.modalities.text import Text
from fuseline.modalities.video import Clip, Video

WORDS = "a patient of 64 years with fever and a dry cough since 3 days; clear on both sides, no change seen (so far)"


def made_row(parser: RowParser, rng: np.random.Generator) -> dict[str, Any]:
    """The raw cells of a row that has everything: text, bytes of PNG and WAV files, numbers, words, dates."""
    row: dict[str, Any] = {}
    for modality in parser.modalities.values():
        row |= made_cells(modality, rng)
    return row


def made_cells(modality: Modality, rng: np.random.Generator) -> dict[str, Any]:
    """One input's cells. {} for a modality that this file does not know: it stays absent."""
    if isinstance(modality, Tabular):
        return _record(modality, rng)
    if isinstance(modality, Graph):
        return {modality.columns[0]: modality.entities[int(rng.integers(len(modality.entities)))]}
    if isinstance(modality, Several):
        count = int(rng.integers(2, modality.limit + 1))
        return {modality.columns[0]: [next(iter(made_cells(modality.item, rng).values())) for _ in range(count)]}
    if isinstance(modality, Document):
        return _page(modality, rng)
    column = modality.columns[0]
    match modality.name:
        case "text":
            words = rng.choice(WORDS.split(), size=int(rng.integers(2, 40)))
            return {column: " ".join(map(str, words))}
        case "image":
            return {column: picture(rng, int(rng.integers(80, 400)), int(rng.integers(80, 400)), "PNG")}
        case "audio":
            return {column: sound(rng, modality.config.sample_rate, _seconds(modality, rng))}  # type: ignore[attr-defined]
        case "video":
            return {column: video(rng, int(rng.integers(80, 200)), int(rng.integers(80, 200)), 12)}
        case "timeseries":
            return {column: _series(modality, rng)}
    return {}


def _series(modality: Any, rng: np.random.Generator) -> list[list[float]]:
    numbers_LC = rng.normal(modality.mean, modality.std, (modality.length, modality.size_C))
    return [[float(f"{n:.6g}") for n in step] for step in numbers_LC.tolist()]


def video(rng: np.random.Generator, width: int, height: int, count: int) -> bytes:
    """A picture that slides, as an animated GIF."""
    still = Pillow.open(io.BytesIO(picture(rng, width, height, "PNG")))
    moved = [still.rotate(0, translate=(4 * i, 0)) for i in range(count)]
    file = io.BytesIO()
    moved[0].save(file, "GIF", save_all=True, append_images=moved[1:], duration=100)
    return file.getvalue()


def picture(rng: np.random.Generator, width: int, height: int, kind: str, mode: str = "RGB") -> bytes:
    """Shapes on a slope with a little noise, as a file of `kind`: as soft as a photograph."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x / width, 255 * y / height, 255 - 255 * x / width], axis=-1)
    for _ in range(4):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.1, 0.3) * min(width, height)
        pixels[np.hypot(x - cx, y - cy) < r] = rng.uniform(0, 255, size=3)
    pixels += rng.normal(0, 2, pixels.shape)
    file = io.BytesIO()
    image = Pillow.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode)
    image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def sound(
    rng: np.random.Generator, rate: int, seconds: float, kind: str = "WAV", channels: int = 1, subtype: str = "PCM_16"
) -> bytes:
    """Tones with a little noise, as a file of `kind`."""
    t = np.arange(max(1, round(rate * seconds))) / rate
    tones = [0.2 * np.sin(2 * np.pi * f * t + p) for f, p in rng.uniform(80, min(3000, rate / 3), (3, 2))]
    wave = np.sum(tones, axis=0)[:, None] + rng.normal(0, 0.01, (len(t), channels))
    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1), rate, format=kind, subtype=subtype)
    return file.getvalue()


def _page(modality: Document, rng: np.random.Generator) -> dict[str, Any]:
    """Words in lines, in pixels, shares or thousandths, and an empty page of that size."""
    width, height = 240, 320
    unit = {"pixels": (width, height), "share": (1.0, 1.0), "thousand": (1000.0, 1000.0)}[modality.config.boxes]
    words = []
    for i, text in enumerate(map(str, rng.choice(WORDS.split(), size=int(rng.integers(3, 12))))):
        x, y = 0.1 + 0.4 * (i % 2), 0.05 + 0.07 * i
        box = [x * unit[0], y * unit[1], (x + 0.3) * unit[0], (y + 0.05) * unit[1]]
        words.append({"text": text, "box": [round(v, 4) for v in box]})
    page = {"width": unit[0], "height": unit[1], "words": words}
    cells: dict[str, Any] = {modality.words: json.dumps(page)}
    if modality.picture is not None:
        cells[modality.picture] = picture(rng, width, height, "PNG")
    return cells


def _seconds(modality: Any, rng: np.random.Generator) -> float:
    return float(rng.uniform(modality.config.min_seconds, min(modality.config.max_seconds, 4.0)))


def _record(modality: Tabular, rng: np.random.Generator) -> dict[str, Any]:
    edges = dict(zip(modality.number_names, modality.quantiles.tolist(), strict=True))
    cells: dict[str, Any] = {}
    for column, kind in modality.kinds.items():
        if kind == "number":
            cells[column] = float(f"{rng.choice(edges[column]):.6g}")
        elif kind == "date":
            days = float(rng.choice(edges[f"{column}.days"]))
            day = datetime.datetime(2000, 1, 1) + datetime.timedelta(days=days)
            cells[column] = day.strftime("%Y-%m-%d %H:%M")
        else:
            cells[column] = str(rng.choice(modality.values[column] or ["unseen"]))
    return cells


def made_value(
    modality: Modality, length: int | None, rng: np.random.Generator, others: Mapping[str, int] | None = None
) -> Any:
    """A parsed value, random, of `length` where the modality has lengths (tokens, samples); None where unknown.

    `others`: further lengths by letter, where it has more than one. Raises nothing: whatever it gives,
    `modality.collate` accepts.
    """
    if isinstance(modality, Several) and length is not None:
        longest = next(iter((others or {}).values()), None)
        least = next((low for low, _ in modality.item.lengths.values()), 1)
        sizes = [longest if i == 0 or longest is None else int(rng.integers(least, longest + 1)) for i in range(length)]
        return Items(tuple(made_value(modality.item, size, rng) for size in sizes))
    if isinstance(modality, Document) and length is not None:
        corners = np.sort(rng.integers(0, 1001, (length, 2, 2)), axis=1)
        side = modality.config.size
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8) if rng.random() < 0.7 else None
        return Page(rng.integers(0, modality.vocab_size, size=length), corners.reshape(length, 4), pixels)
    if isinstance(modality, Video):
        count, side = int(rng.integers(1, modality.config.frames + 1)), modality.config.size
        pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        return Clip(pixels, np.linspace(0, 1, count, dtype=np.float32))
    match modality.name:
        case "text" if length is not None:
            assert isinstance(modality, Text)
            return rng.integers(0, modality.vocab_size, size=length, dtype=np.int64)
        case "audio" if length is not None:
            most, least = modality.max_samples, modality.min_samples  # type: ignore[attr-defined]
            # Batches are rounded up to whole hops: a length in the graph stands for any of the last hop's samples.
            samples = int(np.clip(length - int(rng.integers(0, 160)), least, most))
            return np.clip(rng.normal(0, 0.1, samples), -1, 1).astype(np.float32)
        case "image":  # no need of a file for every row of a large batch
            size = modality.config.size  # type: ignore[attr-defined]
            width, height = rng.integers(size // 2, 4 * size, 2).tolist()
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            return noted(pixels, width=float(width), height=float(height))
    cells = made_cells(modality, rng)
    return modality.parse(cells, MediaRoot(None)) if cells else None


def spread(low: int, high: int, step: int = 1, most: int = 12) -> list[int]:
    """Lengths from `low` to `high`: both ends, their neighbours, and between them ever wider apart, odd and even."""
    if high - low <= most * step:
        return list(range(low, high + 1, step))
    ends = {low, low + step, low + 2 * step, high - step, high}
    between = np.geomspace(low + 2 * step, high - step, max(2, most - 3))[1:-1]
    inner = {low + (int(n) - low) // step * step + step * (i % 2) for i, n in enumerate(between)}
    return sorted(n for n in ends | inner if low <= n <= high)


def steps_of(modalities: Mapping[str, Modality]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(input, letter) of every varying length -> shortest, longest, step."""
    from fuseline.modalities.audio import HOP

    return {
        (name, letter): (low, high, HOP if modality.name == "audio" else 1)
        for name, modality in modalities.items()
        for letter, (low, high) in modality.lengths.items()
    }
