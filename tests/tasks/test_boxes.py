"""Cells to boxes, and the arithmetic of boxes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseline.errors import FuselineError
from fuseline.tasks import boxes

EDGES = st.tuples(*[st.floats(0, 100) for _ in range(4)]).map(
    lambda e: [min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]) + 1.0, max(e[1], e[3]) + 1.0]
)
MANY = st.lists(EDGES, min_size=1, max_size=6).map(lambda b: np.array(b, dtype=np.float64))


@pytest.mark.parametrize(
    "item",
    [
        {"label": "car", "xyxy": [10, 20, 110, 90]},
        {"category": "car", "xywh": [10, 20, 100, 70]},
        {"label": "car", "cxcywh": [60, 55, 100, 70]},
        {"label": "car", "xmin": 10, "ymin": 20, "xmax": 110, "ymax": 90},
        {"label": "car", "bbox": [10, 20, 110, 90]},
    ],
)
def test_every_way_to_write_a_box(item: dict[str, Any]) -> None:
    struct = pl.Series([[item]])[0]
    for cell in ([item], json.dumps([item]), struct):
        assert boxes.parse_boxes(cell, "c", "xyxy", False) == [((10.0, 20.0, 110.0, 90.0), "car")]


def test_plain_lists_are_read_by_the_format() -> None:
    for form, numbers in (("xyxy", [1, 2, 4, 8]), ("xywh", [1, 2, 3, 6]), ("cxcywh", [2.5, 5, 3, 6])):
        assert boxes.parse_boxes([numbers], "c", form, False) == [((1.0, 2.0, 4.0, 8.0), None)]  # type: ignore[arg-type]


def test_no_boxes_and_no_cell_differ() -> None:
    assert boxes.parse_boxes("[]", "c", "xyxy", False) == []
    for cell in (None, float("nan"), " "):
        assert boxes.parse_boxes(cell, "c", "xyxy", False) is None


@pytest.mark.parametrize(
    "cell",
    [
        "no json",
        "{}",
        7,
        [[1, 2, 3]],
        [[1, 2, 1, 4]],
        [[4, 2, 1, 8]],
        [[1, 2, float("nan"), 4]],
        [[1, 2, float("inf"), 4]],
        [["1", 2, 3, 4]],
        [{"label": "car"}],
        [{"label": ["a"], "xyxy": [1, 2, 3, 4]}],
        [None],
        "[" * 100_000,
    ],
)
def test_a_bad_cell_is_named(cell: Any) -> None:
    with pytest.raises(FuselineError) as error:
        boxes.parse_boxes(cell, "c", "xyxy", False)
    assert (error.value.code, error.value.column) == ("bad_cell", "c")


def test_pixels_are_no_shares() -> None:
    assert boxes.parse_boxes([[0.1, 0.2, 0.5, 1.02]], "c", "xyxy", True)
    with pytest.raises(FuselineError, match="relative to the picture"):
        boxes.parse_boxes([[10, 20, 110, 90]], "c", "xyxy", True)


@settings(deadline=None, max_examples=60)
@given(MANY, MANY, st.floats(0.1, 10), st.floats(0.1, 10))
def test_overlaps_are_as_defined(a: np.ndarray, b: np.ndarray, across: float, down: float) -> None:
    iou, giou = boxes.iou(a, b), boxes.giou(a, b)
    assert ((iou >= 0) & (iou <= 1 + 1e-9) & (giou <= iou + 1e-9) & (giou >= -1 - 1e-9)).all()
    np.testing.assert_allclose(iou, boxes.iou(b, a).T)
    np.testing.assert_allclose(np.diag(boxes.iou(a, a)), 1)
    np.testing.assert_allclose(np.diag(boxes.giou(a, a)), 1)
    scale = np.array([across, down, across, down])
    np.testing.assert_allclose(iou, boxes.iou(a * scale, b * scale), atol=1e-9)


def test_overlap_of_known_boxes() -> None:
    a, b = np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 1, 3, 3], [4.0, 0, 6, 2]])
    np.testing.assert_allclose(boxes.iou(a, b), [[1 / 7, 0]])
    np.testing.assert_allclose(boxes.giou(a, b), [[1 / 7 - 2 / 9, -4 / 12]])


def test_suppression_keeps_the_best_of_a_label() -> None:
    found = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9.5], [50, 50, 60, 60]])
    kept = boxes.suppress(found, np.array([0, 0, 1, 0]), 0.7)
    assert kept.tolist() == [True, False, True, True]
