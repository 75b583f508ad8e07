"""Gated multimodal units. Dimensions: B batch, M inputs, D model width."""

from __future__ import annotations

from torch import Tensor, nn

from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import PooledInputs, PoolingConfig, fused_vectors
from fuseline.lab.tokens import Fused, Tokens


class GatedConfig(PoolingConfig):
    """Options of `gated`."""


class GatedFusion(Fusion):
    """GMU (Arevalo et al. 2017), generalised from two inputs to M:

        h_m = tanh(W_m·x_m)
        z   = softmax over m of U·[x_1; …; x_M]   (M, D): every dimension has gates of its own
        h   = Σ_m z_m ⊙ h_m

    With M = 2 the softmax is the paper's sigmoid of the difference of two rows of U. An absent input takes part with
    its learned absent vector. `pooled_BD` is h after dropout and a layer norm.
    """

    Config = GatedConfig

    def __init__(self, config: GatedConfig, *, names: tuple[str, ...], width: int) -> None:
        super().__init__(config, names=names, width=width)
        self.inputs = PooledInputs(config, names=names, width=width)
        self.transforms = nn.ModuleList(nn.Linear(width, width) for _ in names)
        self.gates = nn.Linear(len(names) * width, len(names) * width)
        self.out = nn.Sequential(nn.Dropout(config.dropout), nn.LayerNorm(width))

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        pooled = self.inputs(tokens, present_BM)
        gate_BMD = self.gates(pooled.values_BMD.flatten(1)).unflatten(1, (len(self.transforms), -1)).softmax(dim=1)
        h_BD = gate_BMD[:, 0] * self.transforms[0](pooled.values_BMD[:, 0]).tanh()
        for m in range(1, len(self.transforms)):
            h_BD = h_BD + gate_BMD[:, m] * self.transforms[m](pooled.values_BMD[:, m]).tanh()
        return fused_vectors(self.out(h_BD), pooled)
