"""A column of a long table as channels of a series. Dimensions: N rows, C channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from fuseline.data.guess import is_blank, to_number
from fuseline.data.table import cells
from fuseline.errors import FuselineError

MOST_WORDS = 64


def read_channels(series: pl.Series, trained: tuple[str, ...] | None = None) -> tuple[np.ndarray, tuple[str, ...], int]:
    """(N, C) float32 with NaN at gaps; the words, where the column holds words: C is their number then, a 1 in the
    word's place; how many cells hold a word that is none of `trained`, which are gaps.

    `trained`: the words that training saw, () where it saw numbers. Channels of another table are these, whatever words
    it happens to hold. Raises FuselineError ``bad_cell``.
    """
    if not trained and (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        plain = series.cast(pl.Float64).to_numpy().copy()
        plain[~np.isfinite(plain)] = np.nan
        return plain.astype(np.float32)[:, None], (), 0
    column: list[Any] = cells(series)
    texts = [None if is_blank(c) else str(c).strip() for c in column]
    if trained:
        return _placed(texts, trained)
    numbers = [None if t is None else to_number(t) for t in texts]
    row = next((i for i, (t, n) in enumerate(zip(texts, numbers, strict=True)) if t is not None and n is None), None)
    if row is None:
        plain = np.array([np.nan if n is None else n for n in numbers], dtype=np.float64)
        plain[np.abs(plain) > np.finfo(np.float32).max] = np.nan
        return plain.astype(np.float32)[:, None], (), 0
    words = tuple(sorted({t for t in texts if t is not None}))
    known = sum(n is not None for n in numbers)
    if trained is not None or len(words) > MOST_WORDS or known > 0.5 * len(numbers):
        raise FuselineError(
            "bad_cell", f"{texts[row]!r:.60} is no number", "a gap is an empty cell", row=row, column=series.name
        )
    return _placed(texts, words)


def _placed(texts: list[str | None], words: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...], int]:
    place = {w: i for i, w in enumerate(words)}
    out = np.full((len(texts), len(words)), np.nan, dtype=np.float32)
    strange = 0
    for i, text in enumerate(texts):
        if text in place:
            out[i] = 0.0
            out[i, place[text]] = 1.0
        else:
            strange += text is not None
    return out, words, strange
