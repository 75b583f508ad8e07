"""Whether a column holds boxes on pictures, by a look at its cells."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

KEYS = ("xyxy", "box", "bbox", "xywh", "cxcywh")
CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))


class BoxLike(NamedTuple):
    """What the boxes look like: options of the detection task."""

    boxes: int
    form: str
    normalised: bool


def box_like(cells: Iterable[Any]) -> BoxLike | None:
    """None unless every cell (absent ones left out) is a list of boxes, and one at least holds any."""
    found: list[tuple[str, list[float]]] = []
    for cell in cells:
        items = _items(cell)
        if items is None:
            return None
        for item in items:
            box = _numbers(item)
            if box is None:
                return None
            found.append(box)
    if not found:
        return None
    open_ones = [n for form, n in found if not form]
    corners = all(n[2] > n[0] and n[3] > n[1] for n in open_ones)
    return BoxLike(len(found), "xyxy" if corners else "xywh", all(max(n) <= 1.0 for _, n in found))


def _items(cell: Any) -> list[Any] | None:
    if isinstance(cell, str):
        if not cell.lstrip().startswith("["):
            return None
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    return cell if isinstance(cell, list) else None


def _numbers(item: Any) -> tuple[str, list[float]] | None:
    """The form that the item says ("" where it says none) and its four numbers."""
    form, given = "", item
    if isinstance(item, dict):
        if "text" in item:  # a word of a page, and where it stands
            return None
        key = next((k for k in KEYS if item.get(k) is not None), None)
        corners = next((keys for keys in CORNERS if all(item.get(k) is not None for k in keys)), None)
        if key is not None:
            form, given = (key if key[0] in "xc" else ""), item[key]
        elif corners is not None:
            form, given = "xyxy", [item[k] for k in corners]
    if not isinstance(given, list) or len(given) != 4:
        return None
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in given):
        return None
    return form, [float(n) for n in given]
