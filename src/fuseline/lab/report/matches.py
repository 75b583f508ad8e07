"""Of a retrieval model: how far above chance it finds, and a few searches with what they found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from fuseline.lab.report.cells import Shown
from fuseline.lab.report.read import Part, RunFiles, mapping, number
from fuseline.lab.report.views import CellView
from fuseline.lab.report.words import clean, count, fmt, label

SEARCHES, SHOWN = 8, 4
MEDIA = 1_200_000
"""bytes of media in the section"""
WAYS = {"left_to_right": "left → right", "right_to_left": "right → left"}


@dataclass(frozen=True)
class Candidate:
    score: str
    right: bool
    cells: list[CellView]


@dataclass(frozen=True)
class Search:
    row: int
    rank: str
    asked: list[CellView]
    found: list[Candidate]


@dataclass(frozen=True)
class Matches:
    sentence: str
    headings: list[str]
    figures: list[list[str]]
    searches: list[Search]
    why: str


def matches(files: RunFiles, part: Part | None) -> Matches | None:
    """None where the task is another, or nothing was scored."""
    if files.task != "retrieval" or part is None or not part.details.get("candidates"):
        return None
    details = part.details
    names = list(mapping(details.get("chance")))
    figures = [["chance", *(fmt(number(mapping(details["chance"]).get(n))) for n in names), ""]]
    for way, said in WAYS.items():
        rank = number(mapping(details.get("median_rank")).get(way))
        values = [part.metrics.get(f"{n}_{way}") for n in names]
        figures.append([said, *(fmt(v.value if v else None) for v in values), fmt(rank)])
    number_of = count(number(details.get("candidates")))
    sentence = f"Each of {number_of} rows looked for its other side among all {number_of}."
    if left := number(details.get("left_out")):
        sentence += f" {count(left)} rows lack a side and are left out."
    if shared := number(details.get("shared")):
        sentence += f" {count(shared)} rows share a side's content with another row: either is right."
    searches, why = _searches(files, part.name)
    return Matches(sentence, [*map(label, names), "Median rank"], figures, searches, why)


def _searches(files: RunFiles, part: str) -> tuple[list[Search], str]:
    """Evenly spaced rows of the part, neither the best nor the worst."""
    frame = files.predictions
    if frame is None or "details" not in frame.columns:
        return [], ""
    frame = frame.filter(pl.col("part") == part)
    vectors = [_vectors(text) for text in frame["details"].to_list()]
    both = [i for i, v in enumerate(vectors) if v is not None]
    if not both:
        return [], ""
    left_NE, right_NE = (np.array([vectors[i][side] for i in both]) for side in (0, 1))  # type: ignore[index]
    rows = [int(frame["row"][i]) for i in both]
    chosen = np.unique(np.linspace(0, len(both) - 1, SEARCHES).astype(int)).tolist()
    scores = left_NE[chosen] @ right_NE.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
    sides = mapping(mapping(files.recipe.get("task")))
    wanted = [rows[i] for i in chosen] + [rows[int(j)] for j in best.flatten()]
    shown = Shown(files, wanted, MEDIA)
    out = []
    for place, i in enumerate(chosen):
        rank = int((scores[place] > scores[place, i]).sum()) + 1
        found = [
            Candidate(fmt(float(scores[place, j])), int(j) == i, _side(shown, rows[int(j)], sides.get("right")))
            for j in best[place]
        ]
        out.append(Search(rows[i], f"its own is number {rank}", _side(shown, rows[i], sides.get("left")), found))
    return (out if any(s.asked for s in out) else []), shown.why


def _side(shown: Shown, row: int, names: Any) -> list[CellView]:
    wanted = [clean(n, 60) for n in names] if isinstance(names, list) else []
    return [view for view in shown.views(row) if view.name in wanted and not view.absent]


def _vectors(text: Any) -> tuple[list[float], list[float]] | None:
    """Both vectors of a row that has both."""
    try:
        found = mapping(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return None
    left, right = found.get("left"), found.get("right")
    return (left, right) if isinstance(left, list) and isinstance(right, list) else None
