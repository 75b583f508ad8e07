"""The words of a page with their boxes, as OCR programs give them: JSON, or a list column."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np

from fuseline.errors import FuselineError

MOST = 50_000
_FORM = 'write [{"text": "Total", "box": [x0, y0, x1, y1]}, ...], the corner of the smaller numbers first'


class Word(NamedTuple):
    text: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 from the page's upper left corner"""


def read_words(cell: Any, column: str) -> tuple[list[Word], tuple[float, float] | None]:
    """The words in the cell's order, and the page's width and height where the cell says them.

    A cell is a list of ``{"text", "box"}``, or ``{"width", "height", "words": [...]}``, or JSON of either. Raises
    FuselineError ``bad_cell``.
    """
    found = cell
    if isinstance(cell, (str, bytes, bytearray)):
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise _bad(column, f"the words are no JSON: {str(error)[:80]}") from None
    if isinstance(found, np.ndarray):
        found = found.tolist()
    extent = None
    if isinstance(found, dict):
        width, height = found.get("width"), found.get("height")
        if width is not None or height is not None:
            extent = (_number(width, column, "the page's width"), _number(height, column, "the page's height"))
            if min(extent) <= 0:
                raise _bad(column, "the page's width and height must be above 0")
        found = found.get("words")
    if not isinstance(found, (list, tuple)):
        raise _bad(column, f"a {type(found).__name__} is no list of words")
    if len(found) > MOST:
        raise _bad(column, f"{len(found)} words, more than {MOST}")
    return [_word(item, column, number) for number, item in enumerate(found, 1)], extent


def _word(item: Any, column: str, number: int) -> Word:
    if not isinstance(item, dict) or not {"text", "box"} <= set(item):
        raise _bad(column, f"word {number} has no text and box")
    text, box = item["text"], item["box"]
    if isinstance(box, np.ndarray):
        box = box.tolist()
    if not isinstance(text, str):
        raise _bad(column, f"word {number}: its text is a {type(text).__name__}")
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise _bad(column, f"word {number}: its box is not four numbers")
    x0, y0, x1, y1 = (_number(v, column, f"word {number}: its box") for v in box)
    if x1 < x0 or y1 < y0:
        raise _bad(column, f"word {number}: its box ends before it begins")
    return Word(text, (x0, y0, x1, y1))


def _number(value: Any, column: str, what: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise _bad(column, f"{what} holds what is no number")


def _bad(column: str, message: str) -> FuselineError:
    return FuselineError("bad_cell", message, _FORM, column=column)
