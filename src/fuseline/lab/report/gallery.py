"""The worst errors, each with what the model was shown and what led to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from fuseline.lab.report import boxed
from fuseline.lab.report.cells import Shown
from fuseline.lab.report.read import RunFiles, listing, mapping, number
from fuseline.lab.report.reasons import Reasons, reasons_of
from fuseline.lab.report.views import ALL_MEDIA, CellView, read_json, written
from fuseline.lab.report.words import clean, fmt, percent

MOST = 12


@dataclass(frozen=True)
class Card:
    row: int
    part: str
    value: str
    target: str
    note: str
    cells: list[CellView]
    reasons: Reasons | None = None


@dataclass(frozen=True)
class Gallery:
    sentence: str
    cards: list[Card]


@dataclass(frozen=True)
class Worst:
    """The rows of predictions.parquet that are shown, worst first, and how they were chosen."""

    rows: pl.DataFrame
    sentence: str


def worst(predictions: pl.DataFrame) -> Worst | None:
    """The twelve worst answers of the test part (of the validation part where there is none); None without any."""
    part = next((p for p in ("test", "val") if (predictions["part"] == p).any()), None)
    if part is None:
        return None
    ranked, sentence = _ranked(predictions.filter(pl.col("part") == part))
    return None if ranked is None or not ranked.height else Worst(ranked.head(MOST), sentence)


def gallery(files: RunFiles) -> Gallery | None:
    """The worst answers with what the model was shown, and each input's share in them where the run tells it."""
    found = None if files.predictions is None else worst(files.predictions)
    if found is None:
        return None
    rows = found.rows.to_dicts()
    shown = Shown(files, [int(r["row"]) for r in rows], boxed.MEDIA if files.task == "detection" else ALL_MEDIA)
    reasons = reasons_of(listing(files.reasons.get("rows")))
    cards = [_card(files, row, shown, reasons.get(int(row["row"]))) for row in rows]
    return Gallery(f"{found.sentence} {shown.why}".strip(), cards)


def _ranked(frame: pl.DataFrame) -> tuple[pl.DataFrame | None, str]:
    """Rows, worst first: wrong and sure of it, or farthest from the truth. Ties go by row number."""
    if "correct" in frame.columns and frame["correct"].dtype == pl.Boolean:
        wrong = frame.filter(~pl.col("correct"))
        by = ["confidence"] if "confidence" in frame.columns else []
        ranked = wrong.sort([*by, "row"], descending=[*(True for _ in by), False], nulls_last=True)
        shown = min(MOST, wrong.height)
        text = f"{wrong.height:,} of {frame.height:,} answers are wrong; here are {shown}"
        return ranked, text + (", those the model was most sure of first." if by else ".")
    if "error" in frame.columns and frame["error"].dtype.is_numeric():
        ranked = frame.filter(pl.col("error").is_finite()).sort(
            [pl.col("error").abs(), "row"], descending=[True, False]
        )
        return ranked, f"The {min(MOST, ranked.height)} of {frame.height:,} answers that are farthest from the truth."
    return None, ""


def _card(files: RunFiles, row: dict[str, Any], shown: Shown, reasons: Reasons | None) -> Card:
    found = boxed.boxed(files, row)
    answer, truth = boxed.said(found) if found else ("", "")
    numeric = "error" in row
    return Card(
        int(row["row"]),
        str(row["part"]),
        answer or written(row.get("value"), numeric=numeric),
        truth or written(row.get("target"), numeric=numeric),
        boxed.quality(number(row.get("error")) or 0.0) if found else _note(row, files.task),
        shown.views(int(row["row"]), found, read_json(row.get("used"))),
        reasons,
    )


def _note(row: dict[str, Any], task: str) -> str:
    """How sure it was and what else it thought of, or how far it was off."""
    if (error := number(row.get("error"))) is not None:
        if task == "retrieval":
            return f"{error:.0f} others are nearer than its own, the mean of both ways"
        if task == "multi":
            return f"error {fmt(error)}: the mean over its tasks of 0 or 1, or of its rank among all"
        return f"off by {fmt(error)}"
    chances = mapping(read_json(row.get("probabilities")))
    found = sorted(((p, k) for k, v in chances.items() if (p := number(v)) is not None), reverse=True)
    if found:
        return " · ".join(f"{clean(k, 40)} {percent(p)}" for p, k in found[:3])
    sure = number(row.get("confidence"))
    return f"{percent(sure)} sure" if sure is not None else ""
