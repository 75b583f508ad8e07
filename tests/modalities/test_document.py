from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.document import Document, DocumentConfig, Page

NO_FILES = MediaRoot()
WORDS = [{"text": "Total", "box": [10, 20, 50, 30]}, {"text": " 12.50 ", "box": [60.0, 20, 100, 30]}]


def scan(width: int = 200, height: int = 400) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (width, height), (250, 250, 250)).save(file, "PNG")
    return file.getvalue()


def document(columns: dict[str, str] | None = None, **options: Any) -> Document:
    config = DocumentConfig(**{"size": 32, "vocab_size": 300, "max_length": 16, **options})
    rows = [{"ocr": json.dumps(WORDS)}, {"ocr": "broken"}, {"ocr": None}] * 3
    return Document.fit(config, columns or {"ocr": "words", "scan": "image"}, rows, NO_FILES)


def read(modality: Document, **cells: Any) -> Page:
    page = modality.parse(cells, NO_FILES)
    assert page is not None
    return page


def refused(modality: Document, **cells: Any) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        modality.parse(cells, NO_FILES)
    return caught.value


def test_each_token_carries_its_words_box_in_thousandths() -> None:
    modality = document()
    assert modality.columns == ("scan", "ocr")  # the file first
    page = read(modality, scan=scan(), ocr=WORDS)
    assert page.boxes[0].tolist() == [0, 0, 1000, 1000]
    assert {tuple(b) for b in page.boxes[1:].tolist()} == {(50, 50, 250, 75), (300, 50, 500, 75)}
    assert modality.tokenizer.decode(page.ids.tolist()).split() == ["Total", "12.50"]
    assert page.pixels is not None
    assert page.facts == {"width": 200.0, "height": 400.0, "words": 2.0, "cut": 0.0}


@pytest.mark.parametrize(
    ("boxes", "cell"),
    [
        ("pixels", {"width": 200, "height": 400, "words": WORDS}),
        ("share", [{**w, "box": [v / s for v, s in zip(w["box"], (200, 400) * 2, strict=True)]} for w in WORDS]),
        ("thousand", [{**w, "box": [v / s for v, s in zip(w["box"], (0.2, 0.4) * 2, strict=True)]} for w in WORDS]),
    ],
)
def test_the_ways_to_say_where(boxes: str, cell: Any) -> None:
    wanted = read(document(), scan=scan(), ocr=WORDS).boxes
    for given_cell in (cell, json.dumps(cell), json.dumps(cell).encode()):
        page = read(document(boxes=boxes), scan=None, ocr=given_cell)
        np.testing.assert_array_equal(page.boxes, wanted)
        assert page.pixels is None


def test_picture_or_words_or_none() -> None:
    modality = document()
    only = read(modality, scan=scan(), ocr=None)
    assert (len(only), only.pixels is None) == (1, False)
    assert modality.parse({"scan": None, "ocr": " "}, NO_FILES) is None
    assert modality.parse({"scan": None, "ocr": "[]"}, NO_FILES) is None
    arrays = modality.collate([only, None, read(modality, scan=scan(), ocr=WORDS)])
    assert arrays["pictured"].tolist() == [True, False, True]
    assert arrays["mask"].sum(1).tolist()[:2] == [1, 1]
    assert document({"ocr": "words"}, boxes="share").columns == ("ocr",)


def test_long_pages_are_cut_and_boxes_outside_the_page_end_at_its_edge() -> None:
    page = read(document(), scan=scan(), ocr=[{"text": "Total", "box": [-10, 20, 900, 30]}] * 50)
    assert (len(page), page.facts["cut"]) == (16, 1.0)
    assert page.boxes[1].tolist() == [0, 50, 1000, 75]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("nonsense", "no JSON"),
        ("3", "no list of words"),
        ([1], "word 1 has no text and box"),
        ([WORDS[0], {"text": 3, "box": [1, 2, 3, 4]}], "word 2: its text is a int"),
        ([{"text": "a", "box": [1, 2, 3]}], "not four numbers"),
        ([{"text": "a", "box": [1, 2, 3, "x"]}], "no number"),
        ([{"text": "a", "box": [1, 2, 3, float("nan")]}], "no number"),
        ([{"text": "a", "box": [9, 2, 3, 4]}], "ends before it begins"),
        ({"width": 0, "height": 1, "words": []}, "above 0"),
        (WORDS, "no picture that says how many"),
    ],
)
def test_broken_words_are_named(cell: Any, words: str) -> None:
    error = refused(document(), scan=None, ocr=cell)
    assert (error.code, error.column) == ("bad_cell", "ocr")
    assert words in error.message


def test_a_broken_picture_is_its_columns() -> None:
    error = refused(document(), scan=b"no picture", ocr=WORDS)
    assert (error.code, error.column) == ("bad_cell", "scan")


@pytest.mark.parametrize("columns", [{"a": "image"}, {"a": "words", "b": "words"}, {"a": "words", "b": "sound"}])
def test_columns_that_are_no_document(columns: dict[str, str]) -> None:
    with pytest.raises(FuselineError, match="one column of words"):
        document(columns)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text(), st.tuples(*[st.floats(0, 1)] * 4)), max_size=20))
def test_any_words_fit_their_arrays(words: list[tuple[str, tuple[float, ...]]]) -> None:
    cell = [{"text": t, "box": [*map(min, b[:2], b[2:]), *map(max, b[:2], b[2:])]} for t, b in words]
    page = _SHARES.parse({"ocr": cell}, NO_FILES)
    if page is not None:
        assert page.ids.shape == page.boxes.shape[:1]
        assert page.ids.max() < _SHARES.vocab_size
        assert page.boxes.min() >= 0
        assert page.boxes.max() <= 1000


_SHARES = document({"ocr": "words"}, boxes="share")


def test_state_and_digest() -> None:
    modality = document()
    again = Document.from_state(json.loads(json.dumps(modality.state())))
    assert again.columns == modality.columns
    one, two = (m.parse({"scan": scan(), "ocr": WORDS}, NO_FILES) for m in (modality, again))
    moved = [{**WORDS[0], "box": [10, 40, 50, 50]}, WORDS[1]]
    assert modality.digest(one) == again.digest(two) != modality.digest(read(modality, scan=scan(), ocr=moved))


@pytest.mark.parametrize(
    ("unit", "boxes", "words"),
    [
        ("pixels", [[300, 20, 400, 30]] * 2 + [[10, 20, 50, 30]], "2 of 3 words lie outside"),
        ("pixels", [[0.1, 0.2, 0.3, 0.4]] * 3, "within one of"),
        ("share", [[10, 20, 50, 30]] * 3, "3 of 3 words lie outside"),
        ("thousand", [[0.1, 0.2, 0.3, 0.4]] * 3, "within one of"),
    ],
)
def test_boxes_of_another_unit_than_said_are_named(unit: str, boxes: list[list[float]], words: str) -> None:
    page = {"width": 200, "height": 400, "words": [{"text": "a", "box": box} for box in boxes]}
    error = refused(document(boxes=unit), scan=None, ocr=page)
    assert (error.code, error.column) == ("bad_cell", "ocr")
    assert words in error.message
