from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from fuseline.data.items import items_of
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.several import Images, ImagesConfig, Texts, TextsConfig

NO_FILES = MediaRoot()


def png(level: int) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (12, 9), (level,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def images() -> Images:
    return Images.fit(ImagesConfig(size=8, several=3), {"photos": ""}, [], NO_FILES)


@pytest.fixture
def texts() -> Texts:
    rows = [{"notes": ["no fever", "a cough"]}, {"notes": None}, {"notes": '["fever; chills", "again fever"]'}]
    return Texts.fit(TextsConfig(max_length=8, vocab_size=300, several=3), {"notes": ""}, rows, NO_FILES)


@pytest.mark.parametrize(
    ("cell", "files", "items"),
    [
        (["a.png", None, "b.png"], True, ["a.png", "b.png"]),
        ('["a.png", null, " "]', True, ["a.png"]),
        ("a.png; b.png;", True, ["a.png", "b.png"]),
        ("no fever; a cough", False, ["no fever; a cough"]),
        ("data:image/png;base64,AAAA", True, ["data:image/png;base64,AAAA"]),
        (b'["a", "b"]', True, ["a", "b"]),
        ("[unclear]", False, ["[unclear]"]),
        ('{"a": 1}', False, ['{"a": 1}']),
        (float("nan"), False, []),
        ([float("nan"), np.float32("nan")], False, []),
        ([], True, []),
        (np.array(["a", "b"], dtype=object), False, ["a", "b"]),
        (3, False, [3]),
    ],
)
def test_items_of_a_cell(cell: Any, files: bool, items: list[Any]) -> None:
    assert items_of(cell, files=files) == items


@settings(deadline=None)
@given(st.lists(st.text(min_size=1).filter(lambda t: not t.isspace()), min_size=1))
def test_json_lists_and_lists_are_the_same(items: list[str]) -> None:
    assert items_of(json.dumps(items), files=False) == items_of(items, files=False) == items


def test_pictures_come_in_order_with_a_mask(images: Images, tmp_path: Path) -> None:
    for level in (10, 20, 30):
        (tmp_path / f"{level}.png").write_bytes(png(level))
    media = MediaRoot(str(tmp_path))
    rows = ["10.png;30.png", [png(20)], None, png(30), "10.png"]
    values = [images.parse({"photos": cell}, media) for cell in rows]
    arrays = images.collate(values)
    assert arrays["pixels"].shape == (5, 2, 8, 8, 3)
    assert arrays["pixels"][:, :, 0, 0, 0].tolist() == [[10, 30], [20, 0], [0, 0], [30, 0], [10, 0]]
    assert arrays["several"].tolist() == [[True, True], [True, False], [True, False], [True, False], [True, False]]
    assert images.collate([None])["pixels"].shape == (1, 1, 8, 8, 3)


def test_what_is_beyond_the_limit_is_said(images: Images) -> None:
    value = images.parse({"photos": [png(10)] * 5}, NO_FILES)
    assert len(value) == 3
    assert value.note == "photos holds more than 3 items: the last 2 of 5 left out"
    assert images.summary(value) | {"items": 3.0, "left_out": 2.0} == images.summary(value)
    assert images.parse({"photos": [png(10)] * 3}, NO_FILES).note == ""


def test_a_broken_item_is_named(images: Images, texts: Texts) -> None:
    with pytest.raises(FuselineError, match=r"item 2 of 3: .*no picture") as caught:
        images.parse({"photos": [png(1), b"no picture", png(2)]}, NO_FILES)
    assert (caught.value.code, caught.value.column) == ("bad_cell", "photos")
    with pytest.raises(FuselineError, match=r"item 1 of 2: .* is a list, not a text"):
        texts.parse({"notes": [["a"], "b"]}, NO_FILES)
    with pytest.raises(FuselineError) as caught:
        images.parse({"photos": [png(1), "../x.png"]}, MediaRoot("/tmp"))
    assert caught.value.code == "unsafe_path"


def test_texts_have_two_lengths(texts: Texts) -> None:
    cells = [["no fever", "a cough", "again and again and again"], None, "fever; chills"]
    values = [texts.parse({"notes": cell}, NO_FILES) for cell in cells]
    arrays = texts.collate(values)
    assert texts.lengths == {"N": (1, 3), "T": (1, 8)}
    assert arrays["ids"].shape == arrays["mask"].shape == (3, 3, 8)
    alone = texts.item.parse({"notes": "no fever"}, NO_FILES)
    assert arrays["ids"][0, 0, : len(alone)].tolist() == alone.tolist()
    assert arrays["mask"].sum(2).min() == 1  # no row of an attention is all masked
    assert arrays["several"].sum(1).tolist() == [3, 1, 1]
    assert texts.parse({"notes": ["", " "]}, NO_FILES) is None


def test_the_vocabulary_is_trained_on_the_items_of_training_rows() -> None:
    rows = [{"n": ["zyxw zyxw"] * 3}] * 4
    config = TextsConfig(max_length=8, vocab_size=400)
    known, unknown = (Texts.fit(config, {"n": ""}, r, NO_FILES) for r in (rows, []))
    assert len(known.parse({"n": ["zyxw"]}, NO_FILES).values[0]) == 3
    assert len(unknown.parse({"n": ["zyxw"]}, NO_FILES).values[0]) > 3
    assert unknown.notes


def test_state_and_digest_of_a_set(images: Images, texts: Texts) -> None:
    for modality, cells in ((images, [png(1), png(9)]), (texts, ["no fever", "a cough"])):
        column = modality.columns[0]
        again = type(modality).from_state(json.loads(json.dumps(modality.state())))
        assert again.state() == modality.state()
        one, turned = (again.parse({column: c}, NO_FILES) for c in (cells, cells[::-1]))
        other = again.parse({column: cells[:1]}, NO_FILES)
        assert modality.digest(one) == modality.digest(turned) != modality.digest(other)
        assert modality.size(one) == sum(modality.item.size(v) for v in one)
