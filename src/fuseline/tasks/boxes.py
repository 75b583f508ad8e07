"""Boxes: the cells they come from and their arithmetic. Dimensions: K L boxes, 4 is x1 y1 x2 y2.

A box is its left, top, right and bottom edge; pixel 0 spans 0 to 1, so that a whole picture is (0, 0, width, height).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fuseline.errors import FuselineError
from fuseline.tasks.labels import Label, parse_label

Form = Literal["xyxy", "xywh", "cxcywh"]

NUMBERS: dict[str, Form | None] = {"xyxy": "xyxy", "xywh": "xywh", "cxcywh": "cxcywh", "box": None, "bbox": None}
"""keys that hold four numbers, and the form that the key says; None: the task's `format`"""
CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
LABELS = ("label", "category", "class", "name")
FAR = 10.0
"""relative coordinates beyond this are surely none"""
HINT = 'a list such as [{"label": "car", "xyxy": [10, 20, 110, 90]}], empty where the picture holds nothing'


class Box(NamedTuple):
    xyxy: tuple[float, float, float, float]
    label: Label | None


def parse_boxes(cell: Any, column: str, form: Form, normalised: bool) -> list[Box] | None:
    """The boxes of a cell: JSON text, or a list of mappings or of four numbers. None where absent.

    Raises FuselineError ``bad_cell``.
    """
    if isinstance(cell, str):
        if not cell.strip():
            return None
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise _bad(column, f"{cell[:80]!r} is not JSON") from None
    if hasattr(cell, "tolist"):
        cell = cell.tolist()
    elif hasattr(cell, "to_list"):
        cell = cell.to_list()
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if not isinstance(cell, (list, tuple)):
        raise _bad(column, f"{str(cell)[:80]!r} is not a list of boxes")
    return [_box(item, column, form, normalised) for item in cell]


def _bad(column: str, message: str) -> FuselineError:
    return FuselineError("bad_cell", message, HINT, column=column)


def _box(item: Any, column: str, form: Form, normalised: bool) -> Box:
    label: Label | None = None
    numbers: Any = item
    if hasattr(item, "tolist"):
        numbers = item.tolist()
    if isinstance(item, Mapping):
        key = next((k for k in LABELS if item.get(k) is not None), None)
        label = parse_label(item[key], column) if key else None
        numbers, form = _numbers(item, form)
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or len(numbers) != 4:
        raise _bad(column, f"{str(item)[:80]!r} is not a box")
    try:
        if any(isinstance(n, (bool, str)) for n in numbers):
            raise TypeError
        a, b, c, d = (float(n) for n in numbers)
    except (TypeError, ValueError, OverflowError):
        raise _bad(column, f"{str(item)[:80]!r} has edges that are no numbers") from None
    if form == "xywh":
        c, d = a + c, b + d
    elif form == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if not all(abs(n) < 1e7 for n in (a, b, c, d)) or not (c > a and d > b):
        raise _bad(column, f"{str(item)[:80]!r}: a box has finite edges, the right one behind the left one ({form})")
    if normalised and max(abs(n) for n in (a, b, c, d)) > FAR:
        raise FuselineError(
            "bad_cell", f"{str(item)[:80]!r} is not relative to the picture", "pixels? normalised: false", column=column
        )
    return Box((a, b, c, d), label)


def _numbers(item: Mapping[str, Any], form: Form) -> tuple[Any, Form]:
    for key, said in NUMBERS.items():
        if item.get(key) is not None:
            value = item[key]
            return (value.tolist() if hasattr(value, "tolist") else value), said or form
    for keys in CORNERS:
        if all(item.get(k) is not None for k in keys):
            return [item[k] for k in keys], "xyxy"
    return None, form


def areas(boxes_K4: np.ndarray) -> np.ndarray:
    """(K,)"""
    sides_K2 = np.clip(boxes_K4[..., 2:] - boxes_K4[..., :2], 0, None)
    return np.asarray(sides_K2[..., 0] * sides_K2[..., 1])


def iou(a_K4: np.ndarray, b_L4: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair (K, L); 0 where both are empty. Scaling an axis changes nothing."""
    overlap_KL, union_KL = _overlap(a_K4, b_L4)
    return np.asarray(np.divide(overlap_KL, union_KL, out=np.zeros_like(overlap_KL), where=union_KL > 0))


def giou(a_K4: np.ndarray, b_L4: np.ndarray) -> np.ndarray:
    """Generalised IoU of every pair (Rezatofighi et al. 2019): IoU - (hull - union) / hull, from -1 to 1. (K, L)"""
    overlap_KL, union_KL = _overlap(a_K4, b_L4)
    low = np.minimum(a_K4[:, None, :2], b_L4[None, :, :2])
    high = np.maximum(a_K4[:, None, 2:], b_L4[None, :, 2:])
    hull_KL = areas(np.concatenate([low, high], axis=-1))
    ratio_KL = np.divide(overlap_KL, union_KL, out=np.zeros_like(overlap_KL), where=union_KL > 0)
    gap_KL = np.divide(hull_KL - union_KL, hull_KL, out=np.zeros_like(hull_KL), where=hull_KL > 0)
    return np.asarray(ratio_KL - gap_KL)


def _overlap(a_K4: np.ndarray, b_L4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.maximum(a_K4[:, None, :2], b_L4[None, :, :2])
    high = np.minimum(a_K4[:, None, 2:], b_L4[None, :, 2:])
    overlap_KL = areas(np.concatenate([low, high], axis=-1))
    return overlap_KL, areas(a_K4)[:, None] + areas(b_L4)[None, :] - overlap_KL


def suppress(boxes_K4: np.ndarray, labels_K: np.ndarray, limit: float) -> np.ndarray:
    """Which of the boxes, best first, stay: none overlaps a better one of its own label by more than `limit` (K,)."""
    close_KK = (iou(boxes_K4, boxes_K4) > limit) & (labels_K[:, None] == labels_K[None, :])
    keep_K = np.ones(len(boxes_K4), dtype=bool)
    for k in range(1, len(boxes_K4)):
        keep_K[k] = not (close_KK[k, :k] & keep_K[:k]).any()
    return keep_K
