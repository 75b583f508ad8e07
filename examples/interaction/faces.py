"""Drawn faces whose expression is known: a circle, eyes, brows, a mouth. No photograph of anybody is in this system.

An expression is seven numbers, most from -1 to 1; a drawn face strays around them, on a head of its own size, place,
tint and light, with noise over it.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 48
_SCALE = 4
"""drawn so many times larger, and reduced: smooth lines"""


class Expression(NamedTuple):
    brow_tilt: float
    """above 0: inner ends down, as in anger"""
    brow_height: float
    eyes: float
    """0 closed to 1 wide"""
    smile: float
    """corners of the mouth up"""
    open: float
    """0 a line to 1 a hole"""
    width: float
    """of the mouth"""
    nose: float
    """wrinkles beside it"""


EXPRESSIONS: dict[str, Expression] = {
    "neutral": Expression(0.0, 0.0, 0.55, 0.0, 0.0, 0.6, 0.0),
    "calm": Expression(-0.1, 0.0, 0.3, 0.3, 0.0, 0.6, 0.0),
    "happy": Expression(-0.1, 0.2, 0.5, 0.95, 0.35, 0.9, 0.0),
    "sad": Expression(-0.8, 0.1, 0.4, -0.7, 0.0, 0.5, 0.0),
    "angry": Expression(0.9, -0.4, 0.6, -0.5, 0.1, 0.7, 0.2),
    "fearful": Expression(-0.7, 0.7, 0.95, -0.35, 0.4, 0.7, 0.0),
    "disgust": Expression(0.5, -0.3, 0.25, -0.6, 0.1, 0.5, 1.0),
    "surprised": Expression(0.0, 0.9, 1.0, 0.0, 1.0, 0.3, 0.0),
}
STRAY = 0.14


def draw(expression: str, seed: int, size: int = SIZE) -> bytes:
    """PNG, `size` x `size`, RGB. The same expression, seed and size give the same pixels. KeyError for another name."""
    rng = np.random.default_rng([seed, list(EXPRESSIONS).index(expression)])
    shape = Expression(*(np.array(EXPRESSIONS[expression]) + rng.normal(0, STRAY, 7)))
    side = SIZE * _SCALE
    ground = tuple(int(v) for v in rng.integers(150, 245, 3))
    skin = np.clip(np.array([1.0, rng.uniform(0.76, 0.9), rng.uniform(0.55, 0.75)]) * rng.uniform(110, 245), 0, 255)
    image = Image.new("RGB", (side, side), ground)
    _paint(ImageDraw.Draw(image), shape, rng, side, tuple(int(v) for v in skin))
    image = image.rotate(rng.normal(0, 5), Image.Resampling.BICUBIC, fillcolor=ground)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 3))).resize((size, size), Image.Resampling.LANCZOS)
    light = rng.uniform(0.75, 1.15)
    pixels = np.asarray(image, dtype=np.float64) * light + rng.normal(0, 7, (size, size, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _paint(
    pen: ImageDraw.ImageDraw, shape: Expression, rng: np.random.Generator, side: int, skin: tuple[int, ...]
) -> None:
    x, y = side * (0.5 + rng.normal(0, 0.02)), side * (0.5 + rng.normal(0, 0.02))
    r = side * rng.uniform(0.38, 0.46)
    ink, stroke = (45, 35, 35), max(3, round(r * 0.055))
    pen.ellipse((x - 0.88 * r, y - r, x + 0.88 * r, y + r), fill=skin, outline=ink, width=stroke)
    for way in (-1, 1):
        ex, ey = x + way * 0.36 * r, y - 0.18 * r
        high = r * (0.02 + 0.17 * float(np.clip(shape.eyes, 0, 1.2)))
        pen.ellipse((ex - 0.15 * r, ey - high, ex + 0.15 * r, ey + high), fill="white", outline=ink, width=stroke // 2)
        dot = min(high, 0.08 * r)
        pen.ellipse((ex - dot, ey - dot, ex + dot, ey + dot), fill=ink)
        by = ey - r * (0.28 + 0.12 * shape.brow_height)
        inner, outer = (ex - way * 0.18 * r, by + 0.14 * r * shape.brow_tilt), (ex + way * 0.2 * r, by)
        pen.line((inner, outer), fill=ink, width=round(1.4 * stroke))
        if shape.nose > 0.5:
            for step in (0.0, 0.1):
                place = y + (0.06 + step) * r
                pen.line((x + way * 0.12 * r, place, x + way * 0.24 * r, place - 0.06 * r), fill=ink, width=stroke // 2)
    pen.line((x, y - 0.02 * r, x - 0.06 * r, y + 0.16 * r, x + 0.04 * r, y + 0.17 * r), fill=ink, width=stroke // 2)
    half = r * (0.12 + 0.34 * float(np.clip(shape.width, 0.1, 1.1)))
    across = np.linspace(-1, 1, 15)
    bend = 0.2 * r * shape.smile * (across**2 - 0.5)  # corners up: y falls towards both ends
    gap = r * 0.22 * float(np.clip(shape.open, 0, 1.1)) * np.sqrt(1 - across**2)
    middle = y + 0.48 * r - bend
    above = list(zip(x + half * across, middle - gap, strict=True))
    below = list(zip(x + half * across, middle + gap, strict=True))
    if shape.open > 0.15:
        pen.polygon([tuple(p) for p in (*above, *reversed(below))], fill=(110, 30, 40), outline=ink)
    pen.line([tuple(p) for p in below], fill=ink, width=stroke)
    pen.line([tuple(p) for p in above], fill=ink, width=stroke)
