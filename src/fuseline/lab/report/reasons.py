"""The shares of a row's inputs in its answer, ready for the page; `reasons.json` holds them, see
lab/training/reasons.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fuseline.explain.schema import Explanation
from fuseline.explain.words import change, figure, lean, short, subject, then
from fuseline.lab.report.words import clean

FILE = "reasons.json"


@dataclass(frozen=True)
class Share:
    """`left`, `width`: of the bar, in percent of its place; it grows from the middle. `then`: another answer that the
    model gives without this input."""

    name: str
    text: str
    speaks_for: bool
    left: float
    width: float
    then: str = ""


@dataclass(frozen=True)
class Reasons:
    title: str
    sentence: str
    shares: list[Share]


def reasons_of(rows: Iterable[Any]) -> dict[int, Reasons]:
    """row -> its reasons. What cannot be read, or has no input, is left out."""
    out = {}
    for given in rows:
        try:
            row = Explanation.model_validate(given)
        except ValidationError:
            continue
        if (told := _reasons(row)) is not None:
            out[row.row] = told
    return out


def _reasons(row: Explanation) -> Reasons | None:
    of, inputs = row.of, row.inputs
    if of is None or inputs is None or row.quantity is None or not inputs.values:
        return None
    most = max(abs(v) for v in inputs.values.values()) or 1.0
    answer = row.answer.get("value")
    now = short(answer.get(of.target)) if of.target and isinstance(answer, dict) else short(answer)
    without = {w.absent: then(of, w) for w in row.what_if if w.absent is not None and w.error is None}
    shares = []
    for name, value in sorted(inputs.values.items(), key=lambda v: -abs(v[1])):
        left, width = lean(value / most)
        other = without.get(name, "")
        shares.append(
            Share(
                clean(name, 60),
                change(of, value),
                value > 0,
                round(left, 1),
                round(width, 1),
                clean(other, 60) if of.kind == "probability" and other and other != now else "",
            )
        )
    what = clean(subject(of), 120)
    points = " points" if of.kind == "probability" else ""
    return Reasons(
        f"What made {what} {figure(of, row.quantity)}",
        f"Without any input {figure(of, inputs.base)}; each input adds its{points or ' share'}.",
        shares,
    )
