"""Videos, sets and documents where no table is at hand: words for a port, made rows, the dearest row, profiles."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fuseline.deploy.heaviest import heaviest_row
from fuseline.lab.export.describe import describe
from fuseline.lab.export.samples import made_cells, made_value
from fuseline.modalities import MediaRoot, Modality
from fuseline.modalities.document import Document, DocumentConfig
from fuseline.modalities.several import Images, ImagesConfig, Texts, TextsConfig
from fuseline.modalities.video import Video, VideoConfig
from fuseline.runtime.samples import _made

MEDIA = MediaRoot()
PAGE = DocumentConfig(size=32, max_length=64)
KINDS: dict[str, Modality] = {
    "video": Video(VideoConfig(size=16), "x"),
    "images": Images.fit(ImagesConfig(size=16), {"x": ""}, [], MEDIA),
    "texts": Texts.fit(TextsConfig(max_length=64), {"x": ""}, [{"x": ["some words"]}], MEDIA),
    "document": Document.fit(PAGE, {"x": "words", "y": "image"}, [], MEDIA),
    "document without pictures": Document.fit(PAGE.model_copy(update={"boxes": "share"}), {"x": "words"}, [], MEDIA),
}
every_kind = pytest.mark.parametrize("modality", KINDS.values(), ids=KINDS)


@every_kind
def test_every_array_has_words(modality: Modality) -> None:
    told = describe(modality, "tokenizers/x.json")
    assert set(told["arrays"]) == set(modality.arrays())
    assert json.dumps(told["prepare"])


@every_kind
def test_made_cells_are_read_and_made_values_collated(modality: Modality) -> None:
    rng = np.random.default_rng(0)
    value = modality.parse(made_cells(modality, rng), MEDIA)
    assert value is not None
    shapes = {k: v.shape[0] for k, v in modality.collate([value, None, made_value(modality, 3, rng, {"T": 5})]).items()}
    assert set(shapes.values()) == {3}


@every_kind
def test_the_dearest_row_is_as_long_as_rows_get(modality: Modality) -> None:
    row = heaviest_row(cast(Any, SimpleNamespace(modalities={"x": modality})))
    value = modality.parse(row, MEDIA)
    assert value is not None
    for key, array in modality.collate([value]).items():
        for size, letter in zip(array.shape[1:], modality.arrays()[key].shape[1:], strict=True):
            assert size == (modality.lengths[letter][1] if isinstance(letter, str) else letter)


@every_kind
def test_a_row_to_profile_with_is_taken(modality: Modality) -> None:
    assert modality.collate([_made(modality)] * 2).keys() == modality.arrays().keys()
