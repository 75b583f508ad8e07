"""How values are divided, and what is left when parts are hidden."""

from __future__ import annotations

import io
import json
from typing import Any

import made
import numpy as np
import PIL.Image
import pytest

from fuseline.explain.curves import deletion, insertion
from fuseline.explain.parts import Parts, parts_of
from fuseline.modalities import MediaRoot, modality_class

NOWHERE = MediaRoot(None)
RNG = np.random.default_rng(0)


def divided(kind: str, column: Any, cells: dict[str, Any], **options: Any) -> tuple[list[Parts], Any, Any]:
    columns = column if isinstance(column, dict) else {column: ""}
    sizes = {k: options.pop(k) for k in ("grid", "most") if k in options}
    made_of = modality_class(kind)
    modality = made_of.fit(made_of.Config(**options), columns, [cells], NOWHERE)
    value = modality.parse(cells, NOWHERE)
    return parts_of(modality, cells, value, **sizes), value, modality


def test_words_leave_the_text() -> None:
    [parts], value, modality = divided("text", "note", {"note": "  Heavy cough,  again\t today "})
    assert parts.labels == ("Heavy", "cough,", "again", "today")
    assert [parts.text[int(a) : int(b)] for a, b in parts.places] == list(parts.labels)
    assert parts.without([]).tolist() == value.tolist()
    assert parts.without([1]).tolist() == modality.parse({"note": "Heavy   again  today"}, NOWHERE).tolist()
    assert parts.without(range(4)) is None, "nothing is left: absent"


def test_words_of_other_alphabets_and_long_texts() -> None:
    [parts], *_ = divided("text", "note", {"note": "患者咳嗽 two"})
    assert parts.labels == ("患", "者", "咳", "嗽", "two")
    text = " ".join(f"word{i}" for i in range(500))
    [parts], value, _ = divided("text", "note", {"note": text}, most=10, max_length=64)
    assert len(parts) == 10
    assert len(parts.text) < len(text), "only what is read"
    assert len(parts.without([0])) < len(value), "no word moves in from behind"


def test_of_a_huge_text_only_what_is_read_has_parts() -> None:
    text = "a " + " " * 3000 + "fever " * 50_000
    [parts], value, modality = divided("text", "note", {"note": text}, max_length=64)
    assert len(parts.text) <= 64 * 32
    assert parts.without([]).tolist() == value.tolist() == modality.parse({"note": parts.text}, NOWHERE).tolist()


def test_patches_become_the_mean_colour() -> None:
    [parts], value, _ = divided("image", "picture", {"picture": made.picture(RNG, 1)}, grid=4, size=30)
    assert len(parts) == 16
    hidden = parts.without([5])
    changed = np.argwhere((np.asarray(hidden) != np.asarray(value)).any(axis=2))
    left, top, right, bottom = np.array(parts.places[5]) * 30
    assert changed[:, 0].min() >= round(top)
    assert changed[:, 0].max() < round(bottom)
    assert changed[:, 1].min() >= round(left)
    assert changed[:, 1].max() < round(right)
    assert hidden.facts == value.facts
    assert len(np.unique(np.asarray(parts.without(range(16))).reshape(-1, 3), axis=0)) == 1
    area = sum((r - x) * (b - y) for x, y, r, b in parts.places)
    assert area == pytest.approx(1), "patches cover the picture once"


@pytest.mark.parametrize(
    ("resize", "size", "seen"),
    [
        ("stretch", (40, 20), (0, 0, 1, 1)),
        ("crop", (40, 20), (0.25, 0, 0.75, 1)),
        ("crop", (20, 80), (0, 0.375, 1, 0.625)),
        ("pad", (40, 20), (0, -0.5, 1, 1.5)),
        ("pad", (20, 40), (-0.5, 0, 1.5, 1)),
        ("crop", (30, 30), (0, 0, 1, 1)),
    ],
)
def test_which_part_of_the_picture_the_model_sees(resize: str, size: tuple[int, int], seen: tuple[float, ...]) -> None:
    """Patches laid by `seen` on the original lie where the marked spot is in the pixels that the model reads."""
    width, height = size
    picture = np.full((height, width, 3), 9, np.uint8)
    spot = (int(width * 0.6), int(height * 0.45))
    picture[spot[1], spot[0]] = 255
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "PNG")
    [parts], value, modality = divided("image", "p", {"p": file.getvalue()}, grid=8, size=32, resize=resize)
    assert parts.seen == pytest.approx(seen)
    left, top, right, bottom = parts.seen
    y, x = np.unravel_index(np.asarray(value)[..., 0].argmax(), (32, 32))
    [held] = [p for p in parts.places if p[0] <= (x + 0.5) / 32 < p[2] and p[1] <= (y + 0.5) / 32 < p[3]]
    on = [left + s * (right - left) if i % 2 == 0 else top + s * (bottom - top) for i, s in enumerate(held)]
    assert on[0] <= (spot[0] + 0.5) / width <= on[2]
    assert on[1] <= (spot[1] + 0.5) / height <= on[3]
    assert modality.seen(np.asarray(value)) is None, "its sides are not known"


def test_a_turned_picture_is_seen_as_it_is_shown() -> None:
    file, exif = io.BytesIO(), PIL.Image.Exif()
    exif[274] = 6  # lies on its side: shown 20 wide and 40 high
    PIL.Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    [parts], *_ = divided("image", "p", {"p": file.getvalue()}, grid=2, size=16, resize="crop")
    assert parts.seen == pytest.approx((0, 0.25, 1, 0.75))


def test_moments_become_silence() -> None:
    [parts], value, _ = divided("audio", "sound", {"sound": made.sound(RNG, 0)}, sample_rate=8000, most=4)
    assert len(parts) == 4
    assert parts.places[0][0] == 0
    assert parts.places[-1][1] == pytest.approx(len(value) / 8000)
    hidden = np.asarray(parts.without([1, 2]))
    first, last = round(parts.places[1][0] * 8000), round(parts.places[2][1] * 8000)
    assert not hidden[first:last].any()
    assert (hidden[:first] == np.asarray(value)[:first]).all()


def test_cells_become_absent() -> None:
    columns = {"age": "number", "sex": "category", "seen": "date"}
    [parts], _, _ = divided("tabular", columns, {"age": "61", "sex": None, "seen": "2024-05-31"})
    assert parts.labels == ("age", "seen"), "an absent cell has nothing to hide"
    assert np.isnan(parts.without([0]).numbers[0])
    assert parts.without([0, 1]) is None


def test_steps_and_channels_become_gaps() -> None:
    steps, channels = divided("timeseries", "pulse", {"pulse": json.dumps([[i, -i] for i in range(10)])}, most=5)[0]
    assert (len(steps), len(channels)) == (5, 2)
    assert np.isnan(steps.without([1])[2:4]).all()
    assert np.isnan(channels.without([0])[:, 0]).all()
    assert not np.isnan(channels.without([0])[:, 1]).any()
    assert steps.without(range(5)) is None


def test_frames_items_and_pages() -> None:
    pytest.importorskip("av")
    [frames], clip, _ = divided("video", "clip", {"clip": made.clip(1, 3)}, size=16, frames=3)
    assert len(frames) == len(clip)
    assert (frames.without([0]).pixels[1] == clip.pixels[1]).all()
    assert len(np.unique(frames.without([0]).pixels[0].reshape(-1, 3), axis=0)) == 1
    [items], value, _ = divided("texts", "remarks", {"remarks": json.dumps(["one", "two"])}, several=3)
    assert (len(value), len(items.without([0])), items.without([0, 1])) == (2, 1, None)
    page = {"scan": made.picture(RNG, 0), "ocr": made.ocr(RNG, 0)}
    words, patches = divided("document", {"scan": "image", "ocr": "words"}, page, size=32, grid=2)[0]
    assert sorted(words.labels) == ["calm", "fever"]
    assert len(words.without([0, 1])) == 1, "the picture is left, and the token of the whole page"
    assert len(patches) == 4


def test_curves_know_the_right_order() -> None:
    parts = Parts("part", "left out", tuple("abcdef"), ((),) * 6, lambda hidden: frozenset(range(6)) - set(hidden))
    worth = np.array([0.4, 0.3, 0.2, 0.1, 0.0, 0.0])

    def score(values: list[Any]) -> np.ndarray:
        return np.array([worth[sorted(v)].sum() for v in values])

    right, wrong = range(6), range(5, -1, -1)
    assert deletion(parts, right, score).area < deletion(parts, wrong, score).area
    assert insertion(parts, right, score).area > insertion(parts, wrong, score).area
    curve = deletion(parts, right, score)
    assert (curve.quantity[0], curve.quantity[-1]) == pytest.approx((1.0, 0.0))
    assert deletion(parts, right, score, points=3).shares.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
