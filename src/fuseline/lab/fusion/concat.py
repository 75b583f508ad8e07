"""Concatenation and a multilayer perceptron. Dimensions: B batch, M inputs, D model width."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import PooledInputs, PoolingConfig, fused_vectors
from fuseline.lab.tokens import Fused, Tokens


class ConcatConfig(PoolingConfig):
    """Options of `concat`."""

    expansion: int = Field(2, ge=1, le=8, description="width of the hidden layer, in model widths")


class ConcatFusion(Fusion):
    """norm(W_2·dropout(GELU(W_1·[x_1; …; x_M]))), x_m the pooled vector of input m or its learned absent vector."""

    Config = ConcatConfig

    def __init__(self, config: ConcatConfig, *, names: tuple[str, ...], width: int) -> None:
        super().__init__(config, names=names, width=width)
        self.inputs = PooledInputs(config, names=names, width=width)
        self.mlp = nn.Sequential(
            nn.Linear(len(names) * width, config.expansion * width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.expansion * width, width),
            nn.LayerNorm(width),
        )

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        pooled = self.inputs(tokens, present_BM)
        return fused_vectors(self.mlp(pooled.values_BMD.flatten(1)), pooled)
