"""Pairwise cross-modal attention. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import AttentionPool, Block, Intake, PoolingConfig, check_heads, join, learned, mean_pool
from fuseline.lab.tokens import Fused, Tokens


class CrossAttentionConfig(PoolingConfig):
    """Options of `cross_attention`."""

    layers: int = Field(1, ge=1, le=8, description="blocks of each pair of inputs; there are M·(M-1) pairs")
    self_layers: int = Field(1, ge=0, le=8, description="self-attention blocks of each input after the pairs")
    heads: int = Field(4, ge=1, le=64, description="attention heads; must divide the width")
    expansion: int = Field(2, ge=1, le=8, description="width of the blocks' hidden layer, in model widths")


class Stream(nn.Module):
    """All that input i learns from the others: one stack of blocks a source j ≠ i, joined, then self-attention."""

    def __init__(self, config: CrossAttentionConfig, *, sources: int, width: int) -> None:
        super().__init__()

        def stack(layers: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, config.heads, config.expansion, config.dropout) for _ in range(layers))

        self.cross = nn.ModuleList(stack(config.layers) for _ in range(sources))
        self.mix = nn.Linear(sources * width, width) if sources else None
        self.alone = stack(config.self_layers)
        self.pool = AttentionPool(width) if config.pooling == "attention" else None

    def forward(self, own: Tokens, sources: list[Tokens]) -> Tokens:
        x_BTD = own.values_BTD
        if self.mix is not None:
            views = []
            for blocks, source in zip(self.cross, sources, strict=True):
                view_BTD = own.values_BTD
                for block in blocks:  # type: ignore[attr-defined]
                    view_BTD = block(view_BTD, source)
                views.append(view_BTD)
            x_BTD = self.mix(torch.cat(views, dim=-1))
        for block in self.alone:
            x_BTD = block(x_BTD, Tokens(x_BTD, own.mask_BT))
        return Tokens(x_BTD, own.mask_BT)

    def pooled(self, tokens: Tokens) -> Tensor:
        return mean_pool(tokens) if self.pool is None else self.pool(tokens)


class CrossAttentionFusion(Fusion):
    """MulT (Tsai et al. 2019): for every ordered pair (i, j) the tokens of input i attend to those of input j; what
    input i learned from all j is concatenated, passes self-attention, is pooled, and the M vectors are concatenated.

    Every input's tokens begin with a learned absent token, real only where the input is absent: no query is ever
    without a key. Unlike the paper: pre-norm, no convolution and no positions (the encoder's business), the
    concatenation over j is projected back to D, and the pool is a masked mean or attention instead of the last step.
    Grows with M²: prefer `attention` with many inputs. `tokens_BTD`: the fused vector, then all inputs' tokens.
    """

    Config = CrossAttentionConfig

    def __init__(self, config: CrossAttentionConfig, *, names: tuple[str, ...], width: int) -> None:
        super().__init__(config, names=names, width=width)
        check_heads(config.heads, width)
        self.intake = Intake(names, config.modality_dropout)
        self.absent_MD = nn.Parameter(torch.randn(len(names), width) * 0.02)
        self.streams = nn.ModuleList(Stream(config, sources=len(names) - 1, width=width) for _ in names)
        self.out = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(len(names) * width, width), nn.GELU(), nn.LayerNorm(width)
        )

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        taken = self.intake(tokens, present_BM)
        given = [
            join(learned(self.absent_MD[i : i + 1], ~taken.present_BM[:, i]), own) for i, own in enumerate(taken.tokens)
        ]
        seen, vectors = [], []
        for i, stream in enumerate(self.streams):
            own = stream(given[i], given[:i] + given[i + 1 :])
            seen.append(own)
            vectors.append(stream.pooled(own))  # type: ignore[operator]
        pooled_BD = self.out(torch.cat(vectors, dim=-1))
        fused = Tokens(pooled_BD[:, None], torch.ones_like(taken.present_BM[:, :1]))
        together = join(fused, *seen)
        return Fused(pooled_BD, together.values_BTD, together.mask_BT)
