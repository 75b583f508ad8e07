"""The article's additive stack. Dimensions: B batch, M inputs, D model width."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import PooledInputs, PoolingConfig, fused_vectors
from fuseline.lab.tokens import Fused, Tokens


class SumConfig(PoolingConfig):
    """Options of `sum`."""

    layers: int | None = Field(
        None, ge=2, le=16, description="L, the number of functions F_1 … F_L; default: one an input, at least 2"
    )


class SumFusion(Fusion):
    """Z = F_M(F_{M-1}(… F_1(X_1)+…+F_1(X_M) …)) + F_{M-1}(… F_1(X_1)+…+F_1(X_M) …), read as

        h_1 = Σ_m F_1(X_m)             one F_1, shared by all inputs
        h_l = F_l(h_{l-1})             l = 2 … L-1
        Z   = F_L(h_{L-1}) + h_{L-1}   the second term is the first one's argument: a residual

    X_m is the pooled vector of input m (the learned absent vector where it is absent) plus an embedding of m, without
    which a shared F_1 could not tell the inputs apart. F_l(x) = dropout(GELU(W_l·norm(x) + b_l)). L is M unless
    `layers` says otherwise, and at least 2. `pooled_BD` is Z after a layer norm.
    """

    Config = SumConfig

    def __init__(self, config: SumConfig, *, names: tuple[str, ...], width: int) -> None:
        super().__init__(config, names=names, width=width)
        layers = config.layers or max(2, len(names))
        self.inputs = PooledInputs(config, names=names, width=width)
        self.modality_embedding = nn.Embedding(len(names), width)
        nn.init.normal_(self.modality_embedding.weight, std=0.02)
        self.functions = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(config.dropout))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        pooled = self.inputs(tokens, present_BM)
        first, *middle, last = self.functions
        h_BD = first(pooled.values_BMD + self.modality_embedding.weight).sum(dim=1)
        for function in middle:
            h_BD = function(h_BD)
        return fused_vectors(self.norm(last(h_BD) + h_BD), pooled)
