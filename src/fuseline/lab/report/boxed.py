"""True and answered boxes in a picture of the gallery, and in words."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from fuseline.errors import FuselineError
from fuseline.lab.report.read import RunFiles, listing, mapping, number, numbers
from fuseline.lab.report.words import clean, percent
from fuseline.tasks.boxes import parse_boxes

THUMBNAIL = 240
"""pixels of a picture's longer side: edges must be seen"""
MEDIA = 4_000_000
"""bytes of media in a page of such pictures"""
TRUE, ANSWERED = (64, 224, 255), (255, 140, 0)
DASH = 5
LEGEND = "truth: blue dashes, answer: orange line"


class Boxed(NamedTuple):
    """One row's boxes, in pixels (`relative`: the true ones in shares of the picture)."""

    true: list[tuple[list[float], str]]
    answered: list[tuple[list[float], str, float]]
    relative: bool


def boxed(files: RunFiles, row: dict[str, Any]) -> Boxed | None:
    """The boxes of a row of predictions.parquet. None for another task, or a row that cannot be read."""
    if files.task != "detection":
        return None
    options = mapping(files.recipe.get("task"))
    relative = options.get("normalised") is True
    try:
        true = parse_boxes(row.get("target"), "", options.get("format", "xyxy"), relative) or []
        value = json.loads(row.get("value") or "[]")
    except (FuselineError, ValueError, RecursionError):
        return None
    answered = []
    for item in map(mapping, listing(value)):
        edges, score = numbers(item.get("box")), number(item.get("score"))
        if len(edges) == 4 and score is not None:
            answered.append((edges, str(item.get("label", "")), score))
    return Boxed([(list(b.xyxy), "" if b.label is None else str(b.label)) for b in true], answered, relative)


def said(found: Boxed) -> tuple[str, str]:
    """The answer and the truth, as a sentence names them."""
    answer = ", ".join(f"{clean(label, 40)} {percent(score)}" for _, label, score in found.answered[:6])
    more = len(found.answered) - 6
    counts = Counter(clean(label, 40) for _, label in found.true)
    truth = ", ".join(f"{n} × {label}" if n > 1 else label or "1 box" for label, n in counts.items())
    return (answer + (f" and {more} more" if more > 0 else "")) or "no box", truth or "no box"


def quality(error: float) -> str:
    """What `error` says of boxes."""
    return f"overlap with the truth {percent(max(0.0, 1 - error))}"


def drawn(picture: Image.Image, width: float, height: float, found: Boxed) -> Image.Image:
    """A copy with the boxes of a picture of `width` x `height` pixels."""
    out = picture.copy()
    pen = ImageDraw.Draw(out)
    across, down = out.width / max(1.0, width), out.height / max(1.0, height)
    for edges, _, _ in found.answered:
        pen.rectangle(_scaled(edges, across, down), outline=ANSWERED, width=2)
    if found.relative:
        across, down = out.width, out.height
    for edges, _ in found.true:
        left, top, right, bottom = _scaled(edges, across, down)
        for a, b in (((left, top), (right, top)), ((left, bottom), (right, bottom))):
            _dashes(pen, a, b, 0)
        for a, b in (((left, top), (left, bottom)), ((right, top), (right, bottom))):
            _dashes(pen, a, b, 1)
    return out


def _scaled(edges: list[float], across: float, down: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = edges[0] * across, edges[1] * down, edges[2] * across, edges[3] * down
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def _dashes(pen: ImageDraw.ImageDraw, a: tuple[float, float], b: tuple[float, float], axis: int) -> None:
    at, end = a[axis], min(b[axis], a[axis] + 100 * DASH)
    while at < end:
        to = min(at + DASH, end)
        line = [(at, a[1]), (to, a[1])] if axis == 0 else [(a[0], at), (a[0], to)]
        pen.line(line, fill=TRUE, width=2)
        at += 2 * DASH
