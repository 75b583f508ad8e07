"""Turns signs into raw media: a picture, a breath sound, a note. Signs are drawn large enough to be read without doubt.

Dimensions: S samples of a waveform.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

Array = np.ndarray[Any, np.dtype[Any]]

SIZE = 64
RATE = 8000


Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of the drawing"""


class Drawing(NamedTuple):
    """A picture and where its parts were drawn."""

    image: Image.Image
    lungs: tuple[Box, Box]
    """the one on the picture's left first"""
    cloud: Box | None


def picture(signs: Collection[str], body: tuple[float, float], rng: Generator) -> Image.Image:
    """See :func:`drawing`."""
    return drawing(signs, body, rng).image


def drawing(signs: Collection[str], body: tuple[float, float], rng: Generator) -> Drawing:
    """A chest-like drawing, 8-bit grey, SIZE x SIZE. `cloud`: one blurred bright patch in a lung. `lines`: streaks.

    Args:
        signs: any of cloud, lines.
        body: the patient's chest width and height, each about 1; a trait that says nothing about the diagnosis.
        rng: the visit's random stream.
    """
    wide, high = body
    image = Image.new("L", (SIZE, SIZE), int(rng.integers(135, 160)))
    draw = ImageDraw.Draw(image)
    lungs: list[tuple[float, float]] = []
    cloud = None
    for side in (-1, 1):
        x = SIZE / 2 + side * 15 * wide + rng.normal(0, 1)
        y = SIZE / 2 + rng.normal(0, 1.5)
        lungs.append((x, y))
        draw.ellipse((x - 11 * wide, y - 22 * high, x + 11 * wide, y + 22 * high), fill=60)
    if "lines" in signs:
        for x, y in lungs:
            for step in range(5):
                top = y - 14 + 7 * step + rng.uniform(-1, 1)
                draw.line((x - 8, top - 5, x + 8, top + 5), fill=190, width=2)
    image = image.filter(ImageFilter.GaussianBlur(0.7))
    if "cloud" in signs:
        x, y = lungs[int(rng.integers(2))]
        x, y, r = x + rng.normal(0, 2), y + rng.uniform(-11, 11), rng.uniform(7, 9)
        patch = Image.new("L", (SIZE, SIZE), 0)
        cloud = (x - r, y - r, x + r, y + r)
        ImageDraw.Draw(patch).ellipse(cloud, fill=255)
        image.paste(215, (0, 0), patch.filter(ImageFilter.GaussianBlur(2)))
    noisy = np.asarray(image, dtype=np.float64) + rng.normal(0, 8, (SIZE, SIZE))
    left, right = ((x - 11 * wide, y - 22 * high, x + 11 * wide, y + 22 * high) for x, y in lungs)
    return Drawing(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), (left, right), cloud)


def sound(signs: Collection[str], rng: Generator) -> Array:
    """One second of breath, float64 [S] in [-1, 1] at RATE. `crackles`: a dozen clicks. `wheeze`: a long pure tone."""
    t_S = np.arange(RATE) / RATE
    breath_S = rng.normal(0, 1, RATE)
    breath_S = np.convolve(breath_S, np.ones(6) / 6, mode="same")  # softer than white noise
    wave_S = 0.06 * breath_S * (0.6 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.8, 1.4) * t_S + rng.random())))
    if "wheeze" in signs:
        pitch, start, length = rng.uniform(350, 450), rng.uniform(0.05, 0.35), rng.uniform(0.4, 0.6)
        envelope_S = np.clip(np.minimum(t_S - start, start + length - t_S) / 0.05, 0, 1)
        wave_S += 0.25 * envelope_S * np.sin(2 * np.pi * pitch * t_S)
    if "crackles" in signs:
        click = np.exp(-np.arange(40) / 8) * np.sin(2 * np.pi * 1800 * np.arange(40) / RATE)
        for at in rng.integers(0, RATE - 40, int(rng.integers(10, 15))):
            wave_S[at : at + 40] += 0.6 * click
    return np.clip(rng.uniform(0.8, 1.2) * wave_S, -1, 1)


PHRASES: dict[str, tuple[str, ...]] = {
    "fever": ("Fever since last night.", "Fièvre: hot to the touch for two days."),
    "no_fever": ("No fever.", "Denies any fever."),
    "whistling": ("Whistling when breathing out.", "The chest whistles at night, “like a reed”."),
    "no_whistling": ("No whistling.", "Denies any whistling."),
    "tired": ("Very tired and weak.", "Müde: stays in bed all day."),
    "exertion": ("Short of breath on the stairs.", "Breathless after sport."),
    "comfortable": ("Feels fine, came for a check.", "Comfortable — nothing to report."),
    "neutral": (
        "Came with a relative.",
        "Lives near the river.",
        "Next visit in spring.",
        "Works in the café on the corner.",
        "Prefers appointments before noon.",
        "Travelled from São Miguel by train.",
    ),
}


def note(topics: Sequence[str], rng: Generator) -> str:
    """Sentences on the topics, in order; each topic's wordings are equally likely whatever the diagnosis."""
    return " ".join(PHRASES[topic][int(rng.integers(len(PHRASES[topic])))] for topic in topics)
