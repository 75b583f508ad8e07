"""Written texts beside the true ones: a table of examples, and what can be counted of all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from fuseline.lab.report.read import Part, RunFiles, mapping, number
from fuseline.lab.report.words import clean, count, fmt

EXAMPLES = 16
CHARACTERS = 300


@dataclass(frozen=True)
class Example:
    row: int
    target: str
    value: str
    score: str
    """ROUGE-L"""


@dataclass(frozen=True)
class Texts:
    sentence: str
    examples: list[Example]
    """evenly from the best to the worst"""


def texts(files: RunFiles, part: Part | None) -> Texts | None:
    """None where the run wrote no texts."""
    if part is None or files.task != "generation":
        return None
    tested = "test" if part.name == "folds" else part.name
    return Texts(_sentence(part), _examples(files.predictions, tested))


def _sentence(part: Part) -> str:
    told = {k: number(v) for k, v in mapping(part.details.get("texts")).items()}
    if told.get("distinct") is None:
        return ""
    several = f"{count(told['distinct'])} of {count(part.rows)} answers differ from all others"
    text = f"{several} (of the true texts {count(told.get('distinct_references'))}). "
    text += f"{count(told.get('empty'))} are empty, {count(told.get('unfinished'))} were cut at the longest length. "
    length, wanted = told.get("characters"), told.get("characters_of_references")
    return text + f"An answer has {fmt(length, 1)} characters on average, a true text {fmt(wanted, 1)}."


def _examples(predictions: pl.DataFrame | None, part: str) -> list[Example]:
    if predictions is None or not {"row", "part", "target", "value", "error"} <= set(predictions.columns):
        return []
    rows = predictions.filter(pl.col("part") == part).sort("error", "row")
    if not rows.height:
        return []
    chosen = np.unique(np.linspace(0, rows.height - 1, min(EXAMPLES, rows.height)).round().astype(int))
    return [
        Example(
            int(r["row"]),
            clean(r["target"] or "", CHARACTERS),
            clean(r["value"] or "", CHARACTERS),
            fmt(None if r["error"] is None else 100 - r["error"], 1),
        )
        for r in rows[chosen.tolist()].iter_rows(named=True)
    ]
