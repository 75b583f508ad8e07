"""Tables that are Python objects: frames of other libraries, Arrow, Hugging Face datasets, lists of dicts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from fuseline.data.csvfile import check_names
from fuseline.errors import FuselineError


def to_frame(source: Any) -> pl.DataFrame:
    """One copy in memory, Arrow data without a copy. Raises FuselineError ``bad_table`` or ``duplicate_column``."""
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        return _from_rows(source)
    name = type(source).__name__
    columns = getattr(source, "columns", None)
    if hasattr(source, "iloc") and columns is not None:
        return _from_pandas(source, name)
    inner = getattr(getattr(source, "data", None), "table", None)
    try:
        if inner is not None and hasattr(source, "_indices"):  # a Hugging Face dataset
            frame = _from_arrow(inner, name)
            chosen = source._indices
            return frame if chosen is None else frame[chosen.column(0).to_numpy()]
        if hasattr(source, "__arrow_c_stream__"):
            return _from_arrow(source, name)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise FuselineError("bad_table", f"the {name} cannot be read as a table: {error}", "") from None
    raise FuselineError(
        "bad_table",
        f"a {name} is no table",
        "give a path, a polars or pandas frame, an Arrow table, a Hugging Face dataset, or a list of dicts",
    )


def _from_arrow(source: Any, name: str) -> pl.DataFrame:
    names = getattr(source, "column_names", None)
    if names is not None:
        check_names([str(n) for n in names], name)
    return pl.DataFrame(source)


def _from_pandas(source: Any, name: str) -> pl.DataFrame:
    """By column, so that no pyarrow is needed and columns of mixed cells do not fail."""
    names = [str(c) for c in source.columns]
    check_names(names, name)
    columns = []
    for at, column in enumerate(names):
        series = source.iloc[:, at]
        if str(series.dtype) in ("object", "string", "str", "category"):
            columns.append(_series(column, [None if _is_nan(v) else v for v in series.tolist()]))
        elif hasattr(series.array, "_mask"):  # pandas' nullable integers, floats, booleans
            columns.append(_series(column, series.astype(object).where(series.notna(), None).tolist()))
        else:
            values = series.to_numpy()
            values = values if values.dtype.kind in "biufmM" else series.dt.tz_localize(None).to_numpy()
            columns.append(pl.Series(column, values))
    return pl.DataFrame(columns)


def _from_rows(rows: Sequence[Any]) -> pl.DataFrame:
    names: dict[str, None] = {}
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping):
            kind = type(row).__name__
            raise FuselineError("bad_table", f"row {at} is a {kind}, not a mapping", "give a list of dicts", row=at)
        names.update(dict.fromkeys(row))
    check_names([str(n) for n in names], "the list of rows")
    return pl.DataFrame([_series(str(n), [row.get(n) for row in rows]) for n in names])


def _series(name: str, values: list[Any]) -> pl.Series:
    """A column of Python values. Where kinds are mixed, bytes and paths become media cells, all else text."""
    plain = [
        os.fspath(v) if isinstance(v, os.PathLike) else v.item() if isinstance(v, np.generic) else v for v in values
    ]
    kinds = {type(v) for v in plain if v is not None}
    if kinds == {int, float}:
        plain = [v if v is None else float(v) for v in plain]
    elif kinds == {bytes, str}:
        plain = [
            v
            if v is None
            else {"bytes": v if isinstance(v, bytes) else None, "path": v if isinstance(v, str) else None}
            for v in plain
        ]
    elif len(kinds) > 1:
        plain = [_text(v, name, row) for row, v in enumerate(plain)]
    try:
        return pl.Series(name, plain, dtype=None if kinds else pl.String)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        return pl.Series(name, [_text(v, name, row) for row, v in enumerate(plain)], dtype=pl.String)


def _text(value: Any, column: str, row: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, (int, float, bool)) or type(value).__module__ in ("datetime", "decimal", "uuid"):
        return None if _is_nan(value) else str(value)
    raise FuselineError(
        "bad_table",
        f"a {type(value).__name__} is no cell that a table holds",
        "give text, numbers, booleans, dates, bytes or lists of them",
        row=row,
        column=column,
    )


def _is_nan(value: Any) -> bool:
    """NaN, NaT and pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def check_columns(schema: Mapping[str, Any], name: str) -> None:
    """Raises FuselineError ``empty_table``, ``bad_table`` or ``duplicate_column``."""
    if not schema:
        raise FuselineError("empty_table", f"{name} has no columns", "")
    check_names(list(schema), name)
    for column, kind in schema.items():
        if kind == pl.Object:
            raise FuselineError(
                "bad_table",
                "cells are Python objects of a kind that no table holds",
                "give text, numbers, booleans, dates, bytes or lists of them",
                column=column,
            )
