"""From a pool without labels to the rows to label first. Dimensions: N rows that may be labelled, L labelled rows, E
embedding, C classes or numbers of an answer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.data.table import Table
from fuseline.errors import FuselineError, unknown_kind
from fuseline.labelling.choose import badge, highest, k_center
from fuseline.labelling.measures import MEASURES, unsure
from fuseline.labelling.pool import Seen, Wanted, embed_table, read_pool
from fuseline.modalities import MediaRoot
from fuseline.progress import Voice
from fuseline.runtime import Predictor

METHODS = ("auto", "uncertainty", "diversity", "badge", "random")
OWN = ("_row", "_why", "_score", "_suggested_by")
"""columns that are added; of an earlier suggestion they are replaced"""


@dataclass
class Suggestion:
    """The rows to label, the most wanted first."""

    rows: list[int]
    """of the pool"""
    scores: list[float]
    """larger is more wanted, within one method: doubt, distance (infinite: the first of all), NaN of chance"""
    why: list[str]
    by: str
    """the method, e.g. `badge`, or `uncertainty (entropy)`"""
    counts: dict[str, int]
    """rows of the pool: rows, errors, labelled, empty, copies, candidates"""
    bad: list[FuselineError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def suggest(
    predictor: Predictor,
    table: Table,
    n: int,
    *,
    by: str = "auto",
    measure: str = "auto",
    labelled: Table | None = None,
    columns: Sequence[str],
    labelled_columns: Sequence[str] = (),
    media: MediaRoot,
    labelled_media: MediaRoot | None = None,
    seed: int = 0,
    voice: Voice,
    batch_size: int = 32,
) -> Suggestion:
    """Choose up to `n` rows. See :func:`fuseline.suggest` for the arguments and errors."""
    if by not in METHODS:
        raise unknown_kind("method", by, METHODS)
    if measure not in ("auto", *MEASURES):
        raise unknown_kind("measure", measure, ("auto", *MEASURES))
    if n < 1:
        raise FuselineError("bad_usage", f"{n} rows to suggest", "give 1 or more")
    task = predictor.task
    if not task.columns:
        raise FuselineError("bad_usage", f"a {task.name} model learns from no labels", "there is nothing to label")
    how, measure = resolve(predictor, by, measure)
    wanted = Wanted(
        answers=how in ("badge", "uncertainty"),
        embedding=how in ("badge", "diversity"),
        committee=measure == "disagreement",
    )
    with tempfile.TemporaryDirectory() as folder:
        seen = read_pool(
            predictor,
            table,
            Path(folder),
            columns=columns,
            media=media,
            wanted=wanted,
            voice=voice,
            batch_size=batch_size,
        )
        counts = {**seen.counts, "candidates": len(seen.places_N)}
        if not len(seen.places_N):
            raise FuselineError("empty_table", f"no row of the pool may be labelled: {_left_out(counts)}", _first(seen))
        known_LE = None
        if labelled is not None and how == "diversity":
            known_LE = embed_table(
                predictor,
                labelled,
                columns=labelled_columns,
                media=labelled_media or media,
                voice=voice,
                batch_size=batch_size,
            )
        places, scores, why = _choose(predictor, seen, n, how, measure, known_LE, seed)
    name = f"{how} ({measure})" if how == "uncertainty" else how
    rows = [int(r) for r in seen.places_N[places]]
    out = Suggestion(rows, [round(float(s), 6) for s in scores], why, name, counts, seen.bad)
    if len(rows) < n:
        out.notes.append(f"{len(rows)} of the {n} rows asked for: {_left_out(counts)}")
    return out


def resolve(predictor: Predictor, by: str, measure: str) -> tuple[str, str]:
    """The method and the measure (empty: none) that are meant. Raises FuselineError ``bad_usage``."""
    task, several = predictor.task, len(predictor.names) > 1
    if by == "auto":
        by = "badge" if task.name == "classification" else "diversity"
        if measure != "auto" or (task.name == "regression" and several):
            by = "uncertainty"
    if by == "badge" and task.name != "classification":
        raise FuselineError(
            "bad_usage",
            f"badge needs chances of classes; {predictor.package.name} is a {task.name}",
            _others(predictor),
        )
    if by != "uncertainty":
        if measure != "auto":
            raise FuselineError("bad_usage", f"--measure {measure} belongs to --by uncertainty", "")
        return by, ""
    if task.name not in ("classification", "regression"):
        raise FuselineError("bad_usage", f"a {task.name} says nothing of how sure it is", _others(predictor))
    if measure == "auto":
        measure = "entropy" if task.name == "classification" else "disagreement"
    if task.name == "regression" and measure != "disagreement":
        raise FuselineError("bad_usage", f"{measure} is of classes; numbers have disagreement", _others(predictor))
    if measure == "disagreement" and not several:
        raise FuselineError(
            "bad_usage",
            f"{predictor.package.name} has one input: no answers without one of them that could disagree",
            _others(predictor),
        )
    return by, measure


def _others(predictor: Predictor) -> str:
    some = "badge, diversity" if predictor.task.name == "classification" else "diversity"
    return f"choose --by {some} or random"


def _choose(
    predictor: Predictor,
    seen: Seen,
    n: int,
    how: str,
    measure: str,
    known_LE: np.ndarray | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng, several = np.random.default_rng(seed), predictor.task.mode == "multilabel"
    if how == "random":
        places = rng.permutation(len(seen.places_N))[:n]
        return places, np.full(len(places), np.nan), ["drawn by chance"] * len(places)
    if how == "diversity":
        places, gaps = k_center(seen.embedding_NE, n, known_LE)
        return places, gaps, [_far(gap, first=i == 0, labelled=known_LE is not None) for i, gap in enumerate(gaps)]
    if how == "badge":
        places, lengths = badge(seen.answers_NC, seen.embedding_NE, n, rng, several=several)
        tail = ("", "; unlike the rows above")
        return places, lengths, [_says(predictor, seen, p) + tail[i > 0] for i, p in enumerate(places)]
    if measure == "disagreement":
        scores_N = seen.disagreement_N
        if np.isnan(scores_N).all():
            raise FuselineError(
                "bad_usage", "no row of the pool has two inputs, whose answers could disagree", _others(predictor)
            )
        places = highest(scores_N, n)
        return places, scores_N[places], [_moves(predictor, seen, p) for p in places]
    scores_N = unsure(seen.answers_NC, measure, several=several)
    places = highest(scores_N, n)
    return places, scores_N[places], [_says(predictor, seen, p) for p in places]


def _says(predictor: Predictor, seen: Seen, place: int) -> str:
    """The likeliest classes of a row and their chances; of several labels the least sure one."""
    task: Any = predictor.task
    chance_C = np.asarray(seen.answers_NC[place], np.float64)
    if task.mode == "multilabel":
        nearest = np.argsort(np.abs(chance_C - 0.5), kind="stable")[:2]
        return "not sure of " + ", ".join(f"{task.labels[k]} ({chance_C[k]:.0%})" for k in nearest)
    best = np.argsort(-chance_C, kind="stable")[:2]
    sure = "rather sure: " if chance_C[best[0]] >= 0.9 else "not sure: "
    return sure + ", ".join(f"{task.labels[k]} {chance_C[k]:.0%}" for k in best)


def _moves(predictor: Predictor, seen: Seen, place: int) -> str:
    without = int(seen.without_N[place])
    if without < 0:
        return "its answers with an input hidden agree"
    return f"answers with an input hidden disagree, most without {predictor.names[without]}"


def _far(gap: float, *, first: bool, labelled: bool) -> str:
    if not np.isfinite(gap):
        return "the nearest to the middle of the pool"
    if gap == 0:
        return "like a row that is labelled or above"
    before = (
        "every labelled row"
        if first and labelled
        else "every labelled row and those above"
        if labelled
        else "those above"
    )
    return f"unlike {before} (distance {gap:.3g})"


def _left_out(counts: dict[str, int]) -> str:
    words = {
        "errors": "cannot be read",
        "labelled": "have a label",
        "empty": "have none of the model's inputs",
        "copies": "are copies of another",
    }
    said = ", ".join(f"{counts[key]} {word}" for key, word in words.items() if counts[key])
    return f"of {counts['rows']} rows {said or 'all may be labelled'}"


def _first(seen: Seen) -> str:
    return f"the first that cannot be read: {seen.bad[0]}" if seen.bad else ""


def frame_of(table: Table, made: Suggestion, targets: Sequence[str]) -> pl.DataFrame:
    """The suggested rows with all of the pool's columns, OWN and empty targets."""
    columns = [c for c in table.columns if c not in OWN and c not in targets]
    frame = table.take(np.array(made.rows, np.int64), columns)
    return frame.with_columns(
        pl.Series("_row", made.rows, dtype=pl.Int64),
        pl.Series("_why", made.why, dtype=pl.String),
        pl.Series("_score", [None if np.isnan(s) or np.isinf(s) else s for s in made.scores], dtype=pl.Float64),
        pl.lit(made.by).alias("_suggested_by"),
        *(pl.lit(None, pl.String).alias(c) for c in targets),
    )
