"""Low-rank multimodal fusion. Dimensions: B batch, M inputs, R rank, D model width, E = D + 1."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import PooledInputs, PoolingConfig, fused_vectors
from fuseline.lab.tokens import Fused, Tokens


class LowRankConfig(PoolingConfig):
    """Options of `low_rank`."""

    rank: int = Field(4, ge=1, le=64, description="R, the number of rank-one parts of the weight tensor")


class LowRankFusion(Fusion):
    """LMF (Liu et al. 2018). The outer product ⊗_m [x_m; 1] of all inputs times a weight tensor of rank R, without
    ever forming either:

        h = Σ_r w_r · Π_m (W_m^(r)·[x_m; 1]) + b        Π elementwise over D

    The weights of the appended 1 start at 1 and w_r at 1/R, so that a product of M factors neither vanishes nor
    explodes at the start (with Xavier weights alone, as published, it shrinks with every input). `pooled_BD` is h
    after dropout and a layer norm.
    """

    Config = LowRankConfig

    def __init__(self, config: LowRankConfig, *, names: tuple[str, ...], width: int) -> None:
        super().__init__(config, names=names, width=width)
        self.inputs = PooledInputs(config, names=names, width=width)
        factors_MRED = torch.empty(len(names), config.rank, width + 1, width)
        for factor_ED in factors_MRED.flatten(0, 1):
            nn.init.xavier_normal_(factor_ED)
        factors_MRED[:, :, -1] = 1.0
        self.factors_MRED = nn.Parameter(factors_MRED)
        self.weight_R = nn.Parameter(torch.full((config.rank,), 1 / config.rank))
        self.bias_D = nn.Parameter(torch.zeros(width))
        self.out = nn.Sequential(nn.Dropout(config.dropout), nn.LayerNorm(width))

    def product(self, x_BMD: Tensor) -> Tensor:
        """h of the formula (B, D)."""
        factors = []
        for m in range(self.factors_MRED.shape[0]):
            weight_RED = self.factors_MRED[m]
            # [x; 1]·W = x·W[:-1] + W[-1]
            factors.append(torch.einsum("bd,rde->bre", x_BMD[:, m], weight_RED[:, :-1]) + weight_RED[:, -1])
        product_BRD = factors[0]
        for factor_BRD in factors[1:]:
            product_BRD = product_BRD * factor_BRD
        return torch.einsum("brd,r->bd", product_BRD, self.weight_R) + self.bias_D

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        pooled = self.inputs(tokens, present_BM)
        return fused_vectors(self.out(self.product(pooled.values_BMD)), pooled)
