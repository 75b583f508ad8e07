"""Reading a recorder's log, and joining the labels that came later."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fuseline.errors import FuselineError
from fuseline.monitor.seen import FIXED, STATS, hashed
from fuseline.tasks.labels import text_of

LOG_HINT = "give the folder that `fuseline serve --record` wrote"


@dataclass(frozen=True)
class Log:
    """Records of one model's version."""

    frame: pl.DataFrame
    notes: tuple[str, ...]


def read_log(
    folder: str | Path, *, version: str | None = None, since: datetime.datetime | None = None, doors: bool = False
) -> Log:
    """All whole files of a log; what cannot be read is said, not raised.

    Args:
        folder: of the log, or one Parquet file.
        version: only rows that this version answered; other versions are counted in the notes.
        since: only rows from this moment on.
        doors: also mirrored (shadow) requests, which another version answered to the caller.

    Raises FuselineError ``no_such_file``, ``empty_log``.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FuselineError("no_such_file", f"no log at {folder}", LOG_HINT)
    paths = sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]
    frames, notes, others = [], [], 0
    for path in paths:
        try:
            frame = pl.read_parquet(path, memory_map=False)
        except Exception as error:  # polars raises half a dozen private types on half a file
            notes.append(f"{path.name} cannot be read ({type(error).__name__}); it is left out")
            continue
        wrong = [k for k, kind in FIXED.items() if frame.schema.get(k) != kind]
        if wrong:
            notes.append(f"{path.name} is no log of a recorder (column {wrong[0]}); it is left out")
            continue
        if since is not None:
            frame = frame.filter(pl.col("time") >= since)
        if version is not None:
            others += len(frame) - len(frame := frame.filter(pl.col("version") == version))
        if not doors:
            frame = frame.filter(pl.col("door") != "shadow")
        if len(frame):
            frames.append(frame)
    if others:
        notes.append(f"{others} rows were answered by other versions and are left out")
    if not frames:
        what = "no row" if version is None else f"no row of version {version}"
        raise FuselineError("empty_log", f"{folder} holds {what}" + "".join(f"; {n}" for n in notes), LOG_HINT)
    shared = set.intersection(*(_stats(f) for f in frames))
    partly = set.union(*(_stats(f) for f in frames)) - shared
    if partly:  # they were redacted for a while: a hole in the log is no absent cell
        notes.append(f"recorded only in part, so left out: {', '.join(sorted(k.removeprefix(STATS) for k in partly))}")
    frame = pl.concat([f.drop(*(partly & set(f.columns))) for f in frames], how="diagonal_relaxed")
    return Log(frame.sort("time"), tuple(notes))


def _stats(frame: pl.DataFrame) -> set[str]:
    return {c for c in frame.columns if c.startswith(STATS)}


@dataclass(frozen=True)
class Live:
    """How right the served answers were, by labels that came later."""

    rows: int
    """rows with a label and an answer"""
    accuracy: float | None
    """classification: the share of right answers"""
    low: float | None
    high: float | None
    """95 % interval of the accuracy (Wilson 1927)"""
    error: float | None = None
    """regression: the mean absolute error"""
    unmatched: int = 0
    """labels whose request and row are not in the log"""

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def read_labels(path: str | Path) -> pl.DataFrame:
    """A CSV or Parquet table with the columns request, row (default 0) and label, as text.

    Raises FuselineError ``no_such_file``, ``bad_labels``.
    """
    path = Path(path)
    if not path.is_file():
        raise FuselineError("no_such_file", f"no labels at {path}", "a table with the columns request, row, label")
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except Exception as error:
        raise FuselineError("bad_labels", f"{path.name} cannot be read: {error}", "CSV or Parquet") from None
    missing = [c for c in ("request", "label") if c not in frame.columns]
    if missing:
        raise FuselineError("bad_labels", f"{path.name} lacks the column {missing[0]}", "columns: request, row, label")
    if "row" not in frame.columns:
        frame = frame.with_columns(row=pl.lit(0))
    row = frame["row"].cast(pl.Int32, strict=False)
    if row.null_count():
        raise FuselineError("bad_labels", f"{path.name}: row is not a whole number everywhere", "rows count from 0")
    label = pl.Series("label", [None if v in (None, "") else text_of(v) for v in frame["label"].to_list()], pl.String)
    labels = pl.DataFrame({"request": frame["request"].cast(pl.String), "row": row, "truth": label}).drop_nulls()
    if labels.select("request", "row").is_duplicated().any():
        raise FuselineError("bad_labels", f"{path.name} labels a row of a request twice", "keep one label a row")
    return labels


def live(frame: pl.DataFrame, labels: pl.DataFrame) -> Live:
    """Join later labels with the log. Where an id was sent twice, its last answer counts.

    `frame`: of :func:`read_log`. `labels`: of :func:`read_labels`. Labels are compared as text, 1.0 as 1.
    """
    answers = frame.filter(pl.col("error").is_null()).unique(["request", "row"], keep="last", maintain_order=True)
    joined = labels.join(answers.select("request", "row", "label", "number"), on=["request", "row"], how="inner")
    unmatched = len(labels) - len(joined)
    if not len(joined):
        return Live(0, None, None, None, None, unmatched)
    if joined["label"].null_count() == len(joined):
        gaps = (joined["truth"].cast(pl.Float64, strict=False) - joined["number"]).abs().drop_nulls()
        error = gaps.mean()
        return Live(len(gaps), None, None, None, float(error) if isinstance(error, float) else None, unmatched)
    pairs = zip(joined["truth"].to_list(), joined["label"].to_list(), strict=True)
    right = sum(_same(truth, label) for truth, label in pairs)
    low, high = wilson(right, len(joined))
    return Live(len(joined), right / len(joined), low, high, None, unmatched)


def _same(truth: str, label: str | None) -> bool:
    if label is None:
        return False
    plain = truth.strip()
    try:
        number = text_of(float(plain)) if plain.isascii() and not plain.isalpha() else plain
    except (ValueError, OverflowError):
        number = plain
    return label in (plain, number, hashed(plain), hashed(number))


def wilson(hits: int, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share (Wilson 1927)."""
    share, spread = hits / rows, z**2 / rows
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def expected_accuracy(metrics: Mapping[str, Any] | None) -> float | None:
    """The package's own accuracy on its test (or validation) rows."""
    parts = (metrics or {}).get("parts", {})
    part = parts.get("test") or parts.get("val") or {}
    value = part.get("metrics", {}).get("accuracy", {}).get("value")
    return float(value) if isinstance(value, (int, float)) else None
