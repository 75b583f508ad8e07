"""The rows that are compared with the profile: columns taken from a table of records. Dimensions: N rows, D width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from fuseline.monitor.seen import STATS, hashed, stat_kinds


@dataclass(frozen=True)
class Window:
    """Some served rows, column by column. A statistic that was not kept (redacted) is not here at all."""

    rows: int
    """rows that carried statistics, broken ones among them"""
    read: int = 0
    """rows that could be read"""
    absent: dict[str, int] = field(default_factory=dict)
    """input -> rows that lacked it; `input.statistic` -> rows without that statistic"""
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    """`input.statistic` -> the present values"""
    texts: dict[str, Counter[str]] = field(default_factory=dict)
    """`input.statistic` -> how often each value came"""
    broken: Counter[str] = field(default_factory=Counter)
    """column or input -> rows whose cell could not be read"""
    labels: Counter[str] = field(default_factory=Counter)
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    """predicted numbers"""
    confidence: np.ndarray = field(default_factory=lambda: np.empty(0))
    embedding_ND: np.ndarray | None = None
    """at most `EMBEDDINGS` rows, evenly over the window"""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, frame: pl.DataFrame, profile: Mapping[str, Any]) -> Window:
        """From records as :func:`fuseline.monitor.seen.table` or a log holds them."""
        read = frame.filter(pl.col("error").is_null())
        absent: dict[str, int] = {}
        numbers: dict[str, np.ndarray] = {}
        texts: dict[str, Counter[str]] = {}
        lacking = Counter(read["absent"].explode(empty_as_null=True).drop_nulls().to_list())
        for key, entry in profile.items():
            if isinstance(entry, Mapping) and entry.get("kind") == "input":
                absent[key] = lacking[key]
        for key, kind in stat_kinds(profile).items():
            if STATS + key not in read.columns:
                continue
            present = read[STATS + key].drop_nulls()
            absent[key] = len(read) - len(present)
            if kind == "number":
                values = present.cast(pl.Float64, strict=False).to_numpy()
                numbers[key] = values[np.isfinite(values)]
            else:
                texts[key] = _count(present)
        broken = Counter(frame["broken"].explode(empty_as_null=True).drop_nulls().to_list())
        broken.update(_count(frame["error_column"].drop_nulls()))
        times = frame["time"]
        return cls(
            rows=len(frame),
            read=len(read),
            absent=absent,
            numbers=numbers,
            texts=texts,
            broken=broken,
            labels=_labels(read["label"].drop_nulls(), profile),
            values=read["number"].drop_nulls().to_numpy(),
            confidence=read["confidence"].drop_nulls().to_numpy(),
            embedding_ND=_embedding(read),
            since=_moment(times.min()) if len(times) else "",
            until=_moment(times.max()) if len(times) else "",
        )


EMBEDDINGS = 256


def _moment(time: Any) -> str:
    return str(time.isoformat(timespec="seconds"))


def _count(values: pl.Series) -> Counter[str]:
    counted = values.value_counts(name="rows")
    return Counter(dict(zip(counted[values.name].to_list(), counted["rows"].to_list(), strict=True)))


def _labels(values: pl.Series, profile: Mapping[str, Any]) -> Counter[str]:
    """Labels by their names: a log may hold hashes, and the profile's labels say what they stand for."""
    known = (profile.get("predictions") or {}).get("labels") or {}
    names = {hashed(label): label for label in known}
    out: Counter[str] = Counter()
    for label, rows in _count(values).items():
        out[names.get(label, label)] += rows
    return out


def _embedding(frame: pl.DataFrame) -> np.ndarray | None:
    if "embedding" not in frame.columns:
        return None
    kept = frame["embedding"].drop_nulls()
    if len(kept) > EMBEDDINGS:
        kept = kept.gather(np.linspace(0, len(kept) - 1, EMBEDDINGS).round().astype(int))
    rows = kept.to_list()
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        return None
    matrix = np.array(rows, dtype=np.float64)
    matrix = matrix[np.isfinite(matrix).all(axis=1)]
    return matrix if len(matrix) else None
