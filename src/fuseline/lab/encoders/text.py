"""Texts from scratch. Dimensions: B batch, T tokens, D width."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.layers import ConvBlock, TransformerBlock, sinusoids
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen


class SmallTextConfig(Frozen):
    width: int = Field(128, ge=8, description="D: width of every token")
    layers: int = Field(1, ge=0, le=12, description="Transformer layers")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    kernel: int = Field(5, ge=1, le=31, description="tokens that one convolution sees; odd")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")
    token_dropout: float = Field(0.15, ge=0, lt=1, description="share of whole tokens dropped while training")

    @model_validator(mode="after")
    def _shapes(self) -> SmallTextConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        return self


class SmallText(Encoder):
    """Embedding, one depthwise convolution (word order nearby), a few Transformer layers (the whole text).

    In: `ids`, `mask` int64 (B, T). Out: tokens (B, T, D), mask True where `mask` is not 0.
    Made for hundreds to thousands of short texts: few weights besides the embedding, and whole tokens are dropped in
    training (Gal and Ghahramani 2016, "A Theoretically Grounded Application of Dropout"), so that no word suffices.
    """

    Config: ClassVar[type[Frozen]] = SmallTextConfig

    def __init__(self, config: SmallTextConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.config = config
        self.width = config.width
        self.embed = nn.Embedding(modality.vocab_size, config.width)
        # As large as the positions' sines would drown rare words, as small as 0.02 would be drowned by them.
        nn.init.normal_(self.embed.weight, std=0.3)
        self.position_scale = nn.Parameter(torch.tensor(0.1))
        self.conv = ConvBlock(config.width, config.kernel, config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )

    def lookups(self) -> tuple[nn.Embedding, ...]:
        return (self.embed,)

    def forward(self, ids: Tensor, mask: Tensor) -> Tokens:  # type: ignore[override]
        mask_BT = mask != 0
        values_BTD = self.embed(ids)
        if self.training and self.config.token_dropout > 0:
            kept_BT = torch.rand(ids.shape, device=ids.device) >= self.config.token_dropout
            values_BTD = values_BTD * kept_BT[:, :, None]
        values_BTD = values_BTD + self.position_scale * sinusoids(ids.shape[1], self.width, values_BTD)
        values_BTD = F.dropout(values_BTD, self.config.dropout, self.training)
        values_BTD = self.conv(values_BTD, mask_BT)
        for block in self.blocks:
            values_BTD = block(values_BTD, mask_BT)
        return Tokens(values_BTD, mask_BT)
