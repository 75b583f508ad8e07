"""What flows between encoders, fusion and head. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """One input's tokens. `mask_BT` is True where a token is real (False: padding)."""

    values_BTD: Tensor
    mask_BT: Tensor
    aside: Mapping[str, Tensor] | None = None
    """what the encoder hands to the head beside its tokens, e.g. a series' own mean and last value"""


class Fused(NamedTuple):
    """What a fusion gives: one vector a row, and the tokens behind it for heads that attend."""

    pooled_BD: Tensor
    tokens_BTD: Tensor
    mask_BT: Tensor


class View(NamedTuple):
    """What a head may look at beside the fused tokens."""

    tokens: Mapping[str, Tokens]
    """each input's own tokens, D wide"""
    present_BM: Tensor
    fuse: Callable[[Tensor], Fused]
    """the same tokens fused again under another presence (B, M), e.g. of one side of a pair"""
