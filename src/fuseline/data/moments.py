"""The order of rows in time, from a column of numbers or dates."""

from __future__ import annotations

import datetime

import numpy as np
import polars as pl

from fuseline.data.guess import is_blank, to_number
from fuseline.errors import FuselineError

_FORMATS = ("%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S")


def moments(series: pl.Series) -> np.ndarray:
    """(N,) float64 that grow with time, NaN where absent.

    Numbers, polars dates, or text that is all numbers, ISO 8601 (moments without an offset count as UTC), 1.3.2020 or
    2020/03/01. Raises FuselineError ``bad_cell`` with row and column for anything else.
    """
    name = series.name
    if series.dtype.is_temporal():
        return series.to_physical().cast(pl.Float64).to_numpy()
    if series.dtype.is_numeric():
        return series.cast(pl.Float64).to_numpy()
    cells = series.to_list()
    out = np.full(len(cells), np.nan)
    kinds: set[type] = set()
    for row, cell in enumerate(cells):
        if is_blank(cell):
            continue
        text = str(cell).strip()
        number = to_number(text)
        if number is None:
            kinds.add(datetime.datetime)
            number = _read(text)
        else:
            kinds.add(float)
        if number is None or len(kinds) > 1:
            what = "is neither a number nor a date" if number is None else "is of another kind than the cells before"
            hint = "write every moment as 2020-03-01 or 2020-03-01 13:45, or as a number"
            raise FuselineError("bad_cell", f"{text[:60]!r} {what}", hint, row=row, column=name)
        out[row] = number
    return out


def _read(text: str) -> float | None:
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        for form in _FORMATS:
            try:
                when = datetime.datetime.strptime(text, form)
                break
            except ValueError:
                continue
        else:
            return None
    return (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)).timestamp()
