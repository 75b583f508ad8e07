"""The check itself: it tries what it says it tries, and sees a runner that is wrong at one shape only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.lab.export.parity_shapes import Case, cases, check_lengths, made_arrays
from fuseline.lab.export.samples import spread
from fuseline.modalities import Modality
from fuseline.modalities.audio import Audio, AudioConfig
from fuseline.modalities.image import Image, ImageConfig
from fuseline.modalities.several import Texts
from fuseline.modalities.text import Text, TextConfig, train_tokenizer

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Mapping[str, np.ndarray]]


@pytest.fixture(scope="module")
def modalities() -> dict[str, Modality]:
    return {
        "note": Text(TextConfig(max_length=20), "note", train_tokenizer(["some words"], 300)),
        "sound": Audio(AudioConfig(sample_rate=8000, max_seconds=0.5), "sound"),
        "picture": Image(ImageConfig(size=8), "picture"),
    }


def right(arrays: Arrays) -> dict[str, np.ndarray]:
    ids, wave = arrays["note.ids"] * arrays["note.mask"], arrays["sound.waveform"]
    pixels = arrays["picture.pixels"].astype(np.float32)
    columns = [ids.sum(axis=1) / 1e3, wave.sum(axis=1), pixels.mean(axis=(1, 2, 3)), arrays["present"].sum(axis=1)]
    return {"logits": np.stack(columns, axis=1).astype(np.float32)}


def wrong(when: Callable[[Arrays], bool]) -> Run:
    return lambda arrays: {k: 9 * v + 9 if when(arrays) else v for k, v in right(arrays).items()}


def test_it_tries_every_batch_size_both_ends_of_every_length_and_every_absence(
    modalities: dict[str, Modality],
) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(arrays: Arrays) -> dict[str, np.ndarray]:
        present = arrays["present"].any(axis=0).astype(int)
        seen.append((len(arrays["present"]), arrays["note.ids"].shape[1], arrays["sound.waveform"].shape[1], *present))
        return right(arrays)

    report = check_lengths(right, watched, modalities, tolerance=0.0)
    assert {s[0] for s in seen} == {1, 2, 3, 7, 64}
    assert {s[1] for s in seen} >= set(report["lengths"]["note.T"]) >= {1, 2, 3, 19, 20}
    assert {s[2] for s in seen} >= set(report["lengths"]["sound.S"]) >= {800, 960, 3840, 4000}
    assert {s[3:] for s in seen} == {(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 0)}
    assert report["cases"] == len(seen)
    assert report["max_abs_difference"] == 0


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (lambda a: a["note.ids"].shape[1] == 19, "note of length 19"),
        (lambda a: a["sound.waveform"].shape[1] == 4000, "sound of length 4000"),
        (lambda a: len(a["present"]) == 64, "64 rows"),
        (lambda a: len(a["present"]) == 1, "1 rows"),
        (lambda a: not a["present"][:, 2].any() and a["present"].any(), "picture absent"),
        (lambda a: not a["present"].any(), "note, sound, picture absent"),
    ],
)
def test_it_sees_what_is_wrong_at_one_shape(
    modalities: dict[str, Modality], when: Callable[[Arrays], bool], said: str
) -> None:
    with pytest.raises(FuselineError, match=said) as caught:
        check_lengths(right, wrong(when), modalities, tolerance=0.5)
    assert caught.value.code == "parity"


def test_a_failure_or_nonsense_at_one_shape_names_it(modalities: dict[str, Modality]) -> None:
    def fails(arrays: Arrays) -> dict[str, np.ndarray]:
        if arrays["note.ids"].shape[1] == 20:
            raise RuntimeError("Reshape: 7 is not 20")
        return right(arrays)

    with pytest.raises(FuselineError, match=r"note of length 20.*7 is not 20"):
        check_lengths(right, fails, modalities, tolerance=1.0)
    with pytest.raises(FuselineError, match="output logits"):
        check_lengths(right, lambda a: {"logits": right(a)["logits"] * np.nan}, modalities, tolerance=1.0)
    with pytest.raises(FuselineError, match="of shape"):
        check_lengths(right, lambda a: {"logits": right(a)["logits"][:, :1]}, modalities, tolerance=1.0)


def test_given_rows_are_compared_too(modalities: dict[str, Modality]) -> None:
    row = {"note": np.full(7, 299), "sound": None, "picture": None}
    with pytest.raises(FuselineError, match="given rows"):
        check_lengths(right, wrong(lambda a: bool((a["note.ids"] == 299).all())), modalities, tolerance=0.5, rows=[row])


def test_a_batch_of_many_long_rows_is_bounded(modalities: dict[str, Modality]) -> None:
    huge = {"sound": Audio(AudioConfig(sample_rate=48_000, max_seconds=60), "sound")}
    most = max(case.rows * case.lengths["sound"] for case in cases(huge, (1, 7, 64), 6))
    assert most == 7 * 60 * 48_000
    whole = made_arrays(modalities, Case(3, {"note": 20, "sound": 4000}), np.random.default_rng(0))
    assert whole["note.ids"].shape == (3, 20)
    assert whole["sound.waveform"].shape == (3, 4000)


@pytest.mark.parametrize(("low", "high", "step"), [(1, 256, 1), (1, 3, 1), (800, 160_000, 160), (5, 5, 1)])
def test_lengths_are_spread_over_the_whole(low: int, high: int, step: int) -> None:
    lengths = spread(low, high, step)
    assert lengths == sorted(set(lengths))
    assert (lengths[0], lengths[-1]) == (low, high)
    assert all((n - low) % step == 0 for n in lengths)
    assert len(lengths) <= 13
    if high - low > 12 * step:
        assert {(n // step) % 2 for n in lengths} == {0, 1}


def test_a_set_is_tried_at_every_number_of_items_and_every_length_of_them() -> None:
    item = Text(TextConfig(max_length=9), "notes", train_tokenizer(["some words"], 300))
    notes: dict[str, Modality] = {"notes": Texts(3, item)}
    rng, seen = np.random.default_rng(0), set()
    for case in cases(notes, (1, 3), 12):
        arrays = made_arrays(notes, case, rng)
        if not case.absent:
            assert arrays["notes.ids"].shape == (case.rows, case.lengths["notes"], case.lengths["notes.T"])
            seen.add(arrays["notes.ids"].shape[1:])
    assert {n for n, _ in seen} == {1, 2, 3}
    assert {t for _, t in seen} == set(range(1, 10))
    assert {(1, 1), (3, 9)} <= seen
