"""A cell that holds several things: a list, a JSON list, or file names with `;` between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

MOST = 10_000
"""items of one cell that are looked at; no list of files or notes is longer"""


def is_nothing(cell: Any) -> bool:
    """An item that stands for none: null, NaN, a blank text."""
    return cell is None or (isinstance(cell, str) and (not cell or cell.isspace())) or _is_nan(cell)


def _is_nan(cell: Any) -> bool:
    return isinstance(cell, (float, np.floating)) and bool(cell != cell)


def items_of(cell: Any, *, files: bool, nothing: Callable[[Any], bool] = is_nothing) -> list[Any]:
    """The items of a cell in its order, without absent ones. A cell that is no list is one item.

    Args:
        cell: a list, tuple or array of items; text (or bytes) of a JSON list; else one item.
        files: whether text is names of files, so that `;` separates them. A data URI holds a `;` and is one item.
        nothing: which items are absent.
    """
    found = cell
    if isinstance(cell, np.ndarray) and cell.dtype == object:
        found = cell.tolist()
    elif isinstance(cell, (bytes, bytearray)) and cell[:1] == b"[":
        found = _json_list(bytes(cell).decode("utf-8", "replace"), cell)
    elif isinstance(cell, str):
        text = cell.strip()
        if text.startswith("["):
            found = _json_list(text, cell)
        elif files and ";" in text and text[:5].lower() != "data:":
            found = [part.strip() for part in text.split(";", MOST)]
    if isinstance(found, (list, tuple)):
        return [item for item in found[:MOST] if not nothing(item)]
    return [] if nothing(found) else [found]


def _json_list(text: str, cell: Any) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return cell
    return found if isinstance(found, list) else cell
