"""What is kept of one served row: never its cells. One flat record, and tables of records for polars."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from fuseline.tasks.labels import amount_of, answer_text

if TYPE_CHECKING:
    from fuseline.runtime import Answer
    from fuseline.serve.calls import Event, ModelInfo

UNKNOWN = "(unknown)"
"""stands for a column that the model does not have: callers choose such names"""
STATS = "stats."
"""prefix of the statistics' columns, which are named as in profile.json"""
LONGEST_ID = 128
BROKEN = " taken as absent: "
"""what parsing says of a broken cell that the recipe bears"""

FIXED: dict[str, Any] = {
    "time": pl.Datetime("us", "UTC"),
    "request": pl.String,
    "row": pl.Int32,
    "model": pl.String,
    "version": pl.String,
    "door": pl.String,
    "used": pl.List(pl.String),
    "absent": pl.List(pl.String),
    "label": pl.String,
    "number": pl.Float64,
    "confidence": pl.Float64,
    "error": pl.String,
    "error_column": pl.String,
    "broken": pl.List(pl.String),
}
"""`error`: the row's error code; `error_column`: its column; `broken`: inputs whose broken cell counted as absent"""


@dataclass(frozen=True)
class Redaction:
    """What of a row is not kept.

    Args:
        drop: statistics left out: `input.statistic`, or an input's name for all of its statistics.
        texts: leave out every statistic that is a text (a category's value).
        labels: keep a hash instead of the label, and no predicted number. Whoever knows the possible labels can still
            tell which hash is which, as the drift check does: it keeps them from being read in passing.
        embeddings: leave out the fused embedding.
    """

    drop: frozenset[str] = frozenset()
    texts: bool = False
    labels: bool = False
    embeddings: bool = False


OPEN = Redaction()


def hashed(label: str) -> str:
    return "#" + hashlib.blake2b(label.encode(), digest_size=8).hexdigest()


def broken_inputs(answer: Answer) -> list[str]:
    """Inputs whose cell was broken and counted as absent, as the recipe says."""
    found = (note.split(BROKEN, 1)[0] for note in answer.notes if BROKEN in note)
    return [name for name in dict.fromkeys(found) if name in answer.absent]


def stat_kinds(profile: Mapping[str, Any] | None) -> dict[str, str]:
    """`input.statistic` -> number or category, of everything the profile holds a sketch of."""
    entries = (profile or {}).items()
    return {k: v["kind"] for k, v in entries if isinstance(v, Mapping) and v.get("kind") in ("number", "category")}


def records(event: Event, info: ModelInfo, redaction: Redaction = OPEN) -> list[dict[str, Any]]:
    """One record a row of the event that carries statistics."""
    now = datetime.datetime.now(datetime.UTC)
    kinds = kept_stats(info.profile, redaction)
    columns = {c.name for c in info.columns}
    out = []
    for place, row in enumerate(event.rows):
        if row.stats is None:
            continue
        answer = row.answer
        value = answer.suggestion if answer.abstained else answer.value  # what the model says, given or not
        error_column = None if answer.error is None else answer.error.column
        record: dict[str, Any] = {
            "time": now,
            "request": event.call.id[:LONGEST_ID],
            "row": place,
            "model": info.name,
            "version": info.version,
            "door": event.call.door,
            "used": list(answer.used),
            "absent": list(answer.absent),
            "label": None,
            "number": None,
            "confidence": max(answer.probabilities.values(), default=None) if answer.probabilities else None,
            "error": None if answer.error is None else answer.error.code,
            "error_column": error_column if error_column is None or error_column in columns else UNKNOWN,
            "broken": broken_inputs(answer),
            "embedding": None if redaction.embeddings or row.embedding is None else list(row.embedding),
        }
        if answer.probabilities is not None:
            label = answer_text(value)
            record["label"] = hashed(label) if redaction.labels else label
        elif not redaction.labels:
            record["number"] = amount_of(value)
        for key, kind in kinds.items():
            stat = row.stats.get(key)
            record[STATS + key] = stat if isinstance(stat, str) == (kind == "category") else None
        out.append(record)
    return out


def kept_stats(profile: Mapping[str, Any] | None, redaction: Redaction) -> dict[str, str]:
    return {
        key: kind
        for key, kind in stat_kinds(profile).items()
        if key not in redaction.drop
        and key.split(".", 1)[0] not in redaction.drop
        and not (redaction.texts and kind == "category")
    }


def table(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> pl.DataFrame:
    """Records as a table with exactly these columns, whatever the rows hold. `kinds`: of :func:`kept_stats`."""
    schema = dict(FIXED)
    if any(row.get("embedding") is not None for row in rows):
        schema["embedding"] = pl.List(pl.Float32)
    schema |= {STATS + key: pl.Float64 if kind == "number" else pl.String for key, kind in kinds.items()}
    return pl.DataFrame({key: [row.get(key) for row in rows] for key in schema}, schema=schema, strict=False)
