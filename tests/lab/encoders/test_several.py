"""Sets of items: what one encoder gives of each, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.lab.encoders import encoder_class
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.several import several
from fuseline.lab.encoders.text import SmallText
from fuseline.lab.tokens import Tokens
from fuseline.modalities import MediaRoot
from fuseline.modalities.several import Images, ImagesConfig, Items, Texts, TextsConfig

NOTES = [["a mild fever", "no pain"], ["cough", "cough again", "a long note with many words"], None, ["clear"]]


@pytest.fixture
def texts() -> Texts:
    config = TextsConfig(max_length=12, vocab_size=300, several=3)
    return Texts.fit(config, {"n": ""}, [{"n": cell} for cell in NOTES], MediaRoot())


def built(modality: Any, **options: Any) -> Encoder:
    cls = encoder_class(modality.name, "small")
    return cls(cls.Config(**options), modality).eval()


def tensors(modality: Any, cells: list[Any]) -> dict[str, Tensor]:
    values = [modality.parse({modality.columns[0]: cell}, MediaRoot()) for cell in cells]
    return {k: torch.from_numpy(v) for k, v in modality.collate(values).items()}


def test_the_class_is_the_items_with_its_options() -> None:
    cls = several(SmallText)
    assert cls is several(SmallText) is encoder_class("texts", "small")
    assert cls.Config is SmallText.Config
    assert encoder_class("images", "efficientnet-lite0").pretrained
    assert encoder_class("images", "vgg").cell_options(encoder_class("images", "vgg").Config(size=64)) == {"size": 64}


def test_each_items_tokens_are_those_of_it_alone(texts: Texts) -> None:
    encoder = built(texts, width=16)
    with torch.no_grad():
        whole = encoder(**tensors(texts, NOTES))
        for row, cell in enumerate(NOTES):
            for place, note in enumerate(cell or []):
                value = texts.item.parse({"n": note}, MediaRoot())
                alone = encoder.item(**{k: torch.from_numpy(v) for k, v in texts.item.collate([value]).items()})
                longest = whole.values_BTD.shape[1] // 3
                at = slice(place * longest, place * longest + alone.values_BTD.shape[1])
                torch.testing.assert_close(whole.values_BTD[row, at], alone.values_BTD[0], atol=1e-5, rtol=0)
                assert whole.mask_BT[row, at].all()
    assert whole.mask_BT.sum(1).tolist() == [
        sum(len(texts.item.parse({"n": n}, MediaRoot())) for n in cell) if cell else 1 for cell in NOTES
    ]


def test_tokens_are_a_set(texts: Texts) -> None:
    """Another order of the items gives the same tokens in another order."""
    encoder = built(texts, width=16)
    with torch.no_grad():
        one, two = (encoder(**tensors(texts, [list(order)])) for order in (NOTES[1], NOTES[1][::-1]))
    rows = [t.values_BTD[0][t.mask_BT[0]] for t in (one, two)]
    gaps = torch.cdist(rows[0], rows[1])
    assert gaps.min(1).values.max() < 1e-4
    assert gaps.min(0).values.max() < 1e-4


class Named(torch.nn.Module):
    """The exporter wants arguments with names."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor, several: Tensor) -> Tokens:
        return self.encoder(ids=ids, mask=mask, several=several)


def test_texts_export_with_any_number_of_items_of_any_length(
    texts: Texts, export: Callable[..., Any], same_tokens: Callable[..., None]
) -> None:
    """At most 3 items: as many as the rows of the example, which an exporter may take for the same length."""
    encoder, limit = built(texts, width=16), 3
    count, length = torch.export.Dim("N", min=1, max=limit), torch.export.Dim("T", min=1, max=12)
    example = texts.collate([Items(tuple(np.ones(7, np.int64) for _ in range(limit)))] * 3)
    dims = {"ids": {1: count, 2: length}, "mask": {1: count, 2: length}, "several": {1: count}}
    run = export(Named(encoder), {k: torch.from_numpy(v) for k, v in example.items()}, dims)
    for cells in (NOTES[:1], [None], [["a"]], [NOTES[0], None]):
        given = tensors(texts, cells)
        with torch.no_grad():
            same_tokens(encoder(**given), run(given), 1e-4)


def test_pictures(same_tokens: Callable[..., None]) -> None:
    images = Images.fit(ImagesConfig(size=32, several=4), {"p": ""}, [], MediaRoot())
    encoder = built(images, channels=(8, 16))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        given = {k: torch.from_numpy(v) for k, v in images.collate([Items(tuple(pixels)), None]).items()}
        before = encoder(**given)
        assert before.mask_BT.sum(1).tolist() == [3 * 64, 64]
        given["pixels"][1, 1:] = 255
        same_tokens(before, encoder(**given), 1e-6)
