"""Tokens say where in the picture they are: what changes in a corner changes the tokens of that corner most."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fuseline.errors import FuselineError
from fuseline.lab.encoders import encoder_class
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.grid import NOWHERE
from fuseline.modalities.image import Image, ImageConfig
from fuseline.recipe import read_options

sys.path.insert(0, str(Path(__file__).parent))
from tiny import make_tiny

KINDS: dict[str, dict[str, Any]] = {
    "small": {"size": 48, "augment": 0.0, "channels": [16, 24, 32]},
    "vgg": {"size": 64, "depth": 11},
    "resnet": {"size": 128},
    "vit": {"size": 32},
    "swin": {"size": 32},
}


def made(name: str, folder: Path, **more: Any) -> Encoder:
    torch.manual_seed(0)
    options = {**KINDS[name], **more}
    kind = name if name in ("small", "vgg") else "hf"
    if kind == "hf":
        options["source"] = str(make_tiny(name, folder / name))
    cls = encoder_class("image", kind)
    config = read_options(cls.Config, options, "encoder")
    cells = cls.cell_options(config)
    assert cells["sides"] is True
    return cls(config, Image(ImageConfig(**cells), "x")).eval()


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_changed_corner_changes_the_tokens_that_say_they_are_there(name: str, tmp_path: Path) -> None:
    encoder = made(name, tmp_path, grid=True)
    size = KINDS[name]["size"]
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(100, 156, (1, size, size, 3), dtype=torch.uint8, generator=generator)
    sides = torch.tensor([[300.0, 200.0]])
    before = encoder(pixels=pixels, sides=sides)
    assert before.aside is not None
    assert torch.equal(before.aside["sides"], sides)
    place = before.aside["place"][0]
    assert len(place) == before.values_BTD.shape[1]
    assert ((place == NOWHERE).all(dim=1) | ((place > 0) & (place < 1)).all(dim=1)).all()
    quarter = size // 4
    for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        changed = pixels.clone()
        left, top = x * (size - quarter), y * (size - quarter)
        changed[:, top : top + quarter, left : left + quarter] = torch.randint(
            0, 256, (1, quarter, quarter, 3), dtype=torch.uint8, generator=generator
        )
        moved = (encoder(pixels=changed, sides=sides).values_BTD - before.values_BTD)[0].norm(dim=1)
        moved[place[:, 0] == NOWHERE] = 0
        at = place[int(moved.argmax())]
        assert ((at[0] > 0.5) == bool(x), (at[1] > 0.5) == bool(y)) == (True, True), f"corner {x}, {y}: {at}"


def test_one_token_for_the_whole_picture_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="one for the whole picture"):
        made("vgg", tmp_path, grid=True, tokens="pooled")
    with pytest.raises(FuselineError, match="would move the picture"):
        made("small", tmp_path, grid=True, augment=1.0)
