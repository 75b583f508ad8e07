"""What flows between encoders, fusion and head. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """One input's tokens. `mask_BT` is True where a token is real (False: padding)."""

    values_BTD: Tensor
    mask_BT: Tensor


class Fused(NamedTuple):
    """What a fusion gives: one vector a row, and the tokens behind it for heads that attend."""

    pooled_BD: Tensor
    tokens_BTD: Tensor
    mask_BT: Tensor
