"""Pages: words, where they stand, and the picture behind them. Dimensions: B batch, T words, P patches, D width."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.layers import TransformerBlock, sinusoids
from fuseline.lab.tokens import Tokens
from fuseline.modalities.document import GRID, Document
from fuseline.recipe import Frozen

OCTAVES = 7
"""the finest sine has a period of 2 / 2^6 of the page: a line of small print"""


class SmallDocumentConfig(Frozen):
    width: int = Field(128, ge=8, description="D: width of every token")
    layers: int = Field(2, ge=1, le=12, description="Transformer layers over words and patches")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    patch: int = Field(32, ge=4, description="side of a patch of the page in pixels; must divide the modality's size")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")
    token_dropout: float = Field(0.1, ge=0, lt=1, description="share of whole words' tokens dropped while training")

    @model_validator(mode="after")
    def _shapes(self) -> SmallDocumentConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        return self


class SmallDocument(Encoder):
    """Word tokens, patches of the page, one Transformer over both, after LayoutLMv3 (Huang et al. 2022).

    In: `ids` (B, T), `boxes` (B, T, 4) in thousandths, `mask` (B, T) bool, `pixels` uint8 (B, H, W, 3), `pictured` (B,)
    bool. Out: tokens (B, T + P, D). A box is told by sines of its edges, width and height (Mildenhall et al. 2020) and
    not by a table of a thousand places, most of which a small table of pages never shows; words and patches share it,
    so that a word finds the ink under it.
    """

    Config: ClassVar[type[Frozen]] = SmallDocumentConfig
    grid_P4: Tensor

    def __init__(self, config: SmallDocumentConfig, modality: Document) -> None:
        super().__init__(config, modality)
        self.config = config
        self.width = config.width
        size = modality.config.size
        if size % config.patch:
            message = f"a page of {size} pixels has no whole patches of {config.patch}"
            raise FuselineError("bad_recipe", message, "let patch divide the input's size")
        self.embed = nn.Embedding(modality.vocab_size, config.width)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.order_scale = nn.Parameter(torch.tensor(0.1))
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.kind_D = nn.Parameter(torch.randn(config.width) * 0.1)
        self.place = nn.Linear(6 * 2 * OCTAVES, config.width)
        side = size // config.patch
        edges = torch.arange(side) * (GRID / side)
        y, x = (g.flatten() for g in torch.meshgrid(edges, edges, indexing="ij"))
        grid_P4 = torch.stack([x, y, x + GRID / side, y + GRID / side], dim=1)
        self.register_buffer("grid_P4", grid_P4, persistent=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )

    def lookups(self) -> tuple[nn.Embedding, ...]:
        return (self.embed,)

    def forward(  # type: ignore[override]
        self, ids: Tensor, boxes: Tensor, mask: Tensor, pixels: Tensor, pictured: Tensor
    ) -> Tokens:
        words_BTD = self.embed(ids)
        if self.training and self.config.token_dropout > 0:
            kept_BT = torch.rand(ids.shape, device=ids.device) >= self.config.token_dropout
            words_BTD = words_BTD * kept_BT[:, :, None]
        words_BTD = words_BTD + self.order_scale * sinusoids(ids.shape[1], self.width, words_BTD)
        words_BTD = words_BTD + self.place(_waves(boxes.to(words_BTD.dtype)))
        picture = pixels.permute(0, 3, 1, 2).to(words_BTD.dtype) / 127.5 - 1.0
        ink_BPD = self.patches(picture).flatten(2).transpose(1, 2) + self.kind_D + self.place(_waves(self.grid_P4))
        values_BTD = F.dropout(torch.cat([words_BTD, ink_BPD], dim=1), self.config.dropout, self.training)
        mask_BT = torch.cat([mask, pictured[:, None].expand(-1, ink_BPD.shape[1])], dim=1)
        for block in self.blocks:
            values_BTD = block(values_BTD, mask_BT)
        return Tokens(values_BTD, mask_BT)


def _waves(boxes_X4: Tensor) -> Tensor:
    """Edges, width and height of boxes (..., 4) as sines and cosines of 7 octaves (..., 84)."""
    x0, y0, x1, y1 = (boxes_X4 / GRID).unbind(-1)
    told = torch.stack([x0, y0, x1, y1, x1 - x0, y1 - y0], dim=-1)
    rates = math.pi * 2.0 ** torch.arange(OCTAVES, device=told.device, dtype=told.dtype)
    angles = (told[..., None] * rates).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
