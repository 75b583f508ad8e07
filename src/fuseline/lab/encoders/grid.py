"""Tokens that say where in the picture they are, for heads that answer with places. Dimensions: B batch, T tokens."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from fuseline.lab.tokens import Tokens

NOWHERE = -10.0
"""the place of a token that stands for the whole picture (a class token): far from every place"""


Config = TypeVar("Config")


def grid_of_all(config: Config) -> Config:
    """For a config's validator: one token for the whole picture has no place in it."""
    if config.grid and config.tokens != "all":  # type: ignore[attr-defined]
        raise ValueError("grid says where tokens are, and tokens: pooled leaves one for the whole picture")
    return config


def placed(tokens: Tokens, sides_B2: Tensor | None) -> Tokens:
    """The same tokens, in reading order over a square map, with what a head needs aside: `place` (B, T, 2), the middle
    of each token's cell as shares x, y of the square that the encoder saw; `sides` (B, 2), the picture's own width and
    height in pixels. Tokens in front of the map have no place."""
    assert sides_B2 is not None, "the image modality was not asked for sides"
    count = tokens.values_BTD.shape[1]
    side = math.isqrt(count)
    middle = (torch.arange(side, dtype=torch.float32, device=sides_B2.device) + 0.5) / side
    place_T2 = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), dim=-1).reshape(-1, 2)
    if count > side * side:
        front = torch.full((count - side * side, 2), NOWHERE, device=sides_B2.device)
        place_T2 = torch.cat([front, place_T2])
    place_BT2 = place_T2.expand(sides_B2.shape[0], -1, -1)
    return Tokens(tokens.values_BTD, tokens.mask_BT, {"place": place_BT2, "sides": sides_B2})
