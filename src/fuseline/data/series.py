"""A cell that holds a series. Dimensions: L steps, C channels, N stamped values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from fuseline.data.stamps import on_grid, read_stamps, usual_step
from fuseline.errors import FuselineError

NEXT = "@next"
"""ends the names of the columns that hold what comes after a window"""
NOW = "@now"
"""ends the names of the columns that hold a window's last cell"""


def read_series(cell: Any, column: str, step: float | None) -> np.ndarray | None:
    """(L, C) float64, NaN at gaps; None where absent. Raises FuselineError ``bad_cell``."""
    if isinstance(cell, str):
        cell = _parsed(cell, column) if cell.strip() else None
    if isinstance(cell, np.ndarray) and cell.dtype.kind in "fiu":
        plain = cell.astype(np.float64)
        if plain.ndim not in (1, 2) or not plain.size:
            raise _bad(column, f"an array of shape {cell.shape} is no series", "steps, or steps × channels")
        if (np.abs(plain) > float(np.finfo(np.float32).max)).any():
            raise _bad(column, "a number that is not a finite 32-bit number", "a gap is null")
        return None if np.isnan(plain).all() else plain.reshape(len(plain), -1)
    if cell is None or (isinstance(cell, (float, np.generic)) and bool(cell != cell)):
        return None
    if isinstance(cell, dict):
        return _stamped(cell, column, step)
    if not isinstance(cell, (list, tuple, np.ndarray)):
        raise _bad(column, f"{_shown(cell)} is no series", "a list of numbers, or JSON text of one")
    if not len(cell):
        return None
    series_LC = _numbers(list(cell), column)
    return None if np.isnan(series_LC).all() else series_LC


def step_of(cell: Any) -> float | None:
    """The usual distance of a cell's stamps in seconds, None where it has none or cannot be read."""
    if isinstance(cell, str) and cell.lstrip()[:1] == "{":
        try:
            cell = _parsed(cell, "")
        except FuselineError:
            return None
    if not isinstance(cell, dict):
        return None
    try:
        seconds_N = np.unique(read_stamps(cell["time"]))
    except (ValueError, TypeError, KeyError):
        return None
    return usual_step(seconds_N) if len(seconds_N) > 1 else None


def looks_like_series(cells: Sequence[Any]) -> bool:
    """Whether every cell is a list of numbers, most of them of two steps or more."""
    long = 0
    for cell in cells:
        if not (isinstance(cell, (list, dict, np.ndarray)) or (isinstance(cell, str) and cell.lstrip()[:1] in "[{")):
            return False
        try:
            found = read_series(cell, "", None)
        except FuselineError:
            return False
        long += found is not None and len(found) > 1
    return 2 * long > len(cells)


def _parsed(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _bad(column, f"{_shown(text)} is no JSON list of numbers", "e.g. [1.5, null, 2]") from None


def _numbers(steps: list[Any], column: str) -> np.ndarray:
    several = any(isinstance(s, (list, tuple, np.ndarray)) for s in steps)
    width = max(len(s) for s in steps if isinstance(s, (list, tuple, np.ndarray))) if several else 1
    if width == 0:
        raise _bad(column, "a step without a number", "a gap is null")
    out_LC = np.full((len(steps), width), np.nan)
    for i, step in enumerate(steps):
        if step is None:
            continue
        own = list(step) if several and isinstance(step, (list, tuple, np.ndarray)) else [step]
        if len(own) != width:
            raise _bad(column, f"step {i + 1} has {len(own)} numbers, others have {width}", "one a channel")
        for c, number in enumerate(own):
            out_LC[i, c] = _number(number, i, column)
    return out_LC


def _number(number: Any, place: int, column: str) -> float:
    if number is None:
        return np.nan
    if isinstance(number, (bool, str)) or not isinstance(number, (int, float, np.number)):
        raise _bad(column, f"step {place + 1}, {_shown(number)}, is no number", "a gap is null")
    try:
        out = float(number)
    except OverflowError:
        out = np.inf
    if abs(out) > float(np.finfo(np.float32).max):
        raise _bad(column, f"step {place + 1} is not a finite 32-bit number", "a gap is null")
    return out


def _stamped(cell: dict[str, Any], column: str, step: float | None) -> np.ndarray | None:
    if set(cell) != {"time", "value"} or not all(isinstance(v, (list, tuple)) for v in cell.values()):
        raise _bad(column, f"{_shown(cell)} is no series", 'with stamps: {"time": [...], "value": [...]}')
    if len(cell["time"]) != len(cell["value"]):
        raise _bad(column, f"{len(cell['time'])} stamps for {len(cell['value'])} steps", "one a step")
    if not len(cell["time"]):
        return None
    values_NC = _numbers(list(cell["value"]), column)
    try:
        seconds_N = read_stamps(cell["time"])
    except ValueError as error:
        raise _bad(column, str(error), "seconds, or 2020-03-01T13:45") from None
    series_LC = on_grid(seconds_N, values_NC, step or usual_step(seconds_N))
    return None if np.isnan(series_LC).all() else series_LC


def _bad(column: str, message: str, hint: str = "") -> FuselineError:
    return FuselineError("bad_cell", message, hint, column=column)


def _shown(cell: Any) -> str:
    if isinstance(cell, (bytes, bytearray)):
        return f"{len(cell)} bytes"
    try:
        text = cell[:61] if isinstance(cell, str) else repr(cell)[:61]
    except ValueError:  # Python turns no integer of thousands of digits to text
        return f"a {type(cell).__name__} of thousands of digits"
    text = "".join(c if c.isprintable() else "�" for c in text)
    return repr(text) if isinstance(cell, str) else text
