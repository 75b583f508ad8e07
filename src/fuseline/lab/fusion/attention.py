"""One Transformer over all inputs' tokens. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import Block, FusionConfig, Intake, check_heads, join, learned
from fuseline.lab.tokens import Fused, Tokens


class AttentionConfig(FusionConfig):
    """Options of `attention`."""

    layers: int = Field(2, ge=1, le=24, description="Transformer blocks")
    heads: int = Field(4, ge=1, le=64, description="attention heads; must divide the width")
    expansion: int = Field(2, ge=1, le=8, description="width of the blocks' hidden layer, in model widths")
    bottleneck: int = Field(
        0, ge=0, le=64, description="tokens through which alone the inputs exchange (MBT); 0: every token sees all"
    )


class AttentionFusion(Fusion):
    """Pre-norm Transformer over [CLS; tokens of input 1; …; tokens of input M], each with its input's embedding.

    Absent inputs are masked; CLS always is a key, so that a row with nothing present still has a (learned) answer.
    Tokens carry no position here: their encoder gave them one where order means something.

    With `bottleneck` N (Nagrani et al. 2021, MBT) a token of input m sees only input m and N bottleneck tokens; these
    and CLS see everything; nobody else sees CLS. Unlike the paper, the inputs share their blocks and the bottleneck is
    updated once a layer rather than averaged over one update an input; cost grows with Σ T_m², not (Σ T_m)².

    `pooled_BD` is CLS after a layer norm; `tokens_BTD` are CLS, bottleneck and inputs' tokens in this order.
    """

    Config = AttentionConfig

    def __init__(self, config: AttentionConfig, *, names: tuple[str, ...], width: int) -> None:
        super().__init__(config, names=names, width=width)
        check_heads(config.heads, width)
        self.intake = Intake(names, config.modality_dropout)
        self.modality_embedding = nn.Embedding(len(names), width)
        nn.init.normal_(self.modality_embedding.weight, std=0.02)
        self.cls_1D = nn.Parameter(torch.randn(1, width) * 0.02)
        # That a value is absent can itself say much (nobody measures the oxygen of the healthy), and masked tokens
        # cannot say it: CLS carries one learned vector for each input that the row lacks.
        self.absent_MD = nn.Parameter(torch.zeros(len(names), width))
        self.bottleneck_TD = nn.Parameter(torch.randn(config.bottleneck, width) * 0.02) if config.bottleneck else None
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.expansion, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        taken = self.intake(tokens, present_BM)
        own = [Tokens(t.values_BTD + self.modality_embedding.weight[i], t.mask_BT) for i, t in enumerate(taken.tokens)]
        always_B = torch.ones_like(taken.present_BM[:, 0])
        cls = learned(self.cls_1D, always_B)
        lacks_BM = (~taken.present_BM).to(self.absent_MD.dtype)
        cls = Tokens(cls.values_BTD + (lacks_BM @ self.absent_MD)[:, None], cls.mask_BT)
        if self.bottleneck_TD is None:
            out = self._joint(join(cls, *own))
        else:
            out = self._through_bottleneck(cls, learned(self.bottleneck_TD, always_B), own)
        values_BTD = self.norm(out.values_BTD)
        return Fused(values_BTD[:, 0], values_BTD, out.mask_BT)

    def _joint(self, x: Tokens) -> Tokens:
        for block in self.blocks:
            x = Tokens(block(x.values_BTD, x), x.mask_BT)
        return x

    def _through_bottleneck(self, cls: Tokens, neck: Tokens, own: list[Tokens]) -> Tokens:
        for block in self.blocks:
            everything = join(neck, *own)
            # CLS must not be a key of the bottleneck: all that passes between inputs passes through `neck` alone.
            new_cls = block(cls.values_BTD, join(cls, everything))
            new_neck = block(neck.values_BTD, everything)
            own = [Tokens(block(t.values_BTD, join(neck, t)), t.mask_BT) for t in own]
            cls, neck = Tokens(new_cls, cls.mask_BT), Tokens(new_neck, neck.mask_BT)
        return join(cls, neck, *own)
