"""Series as tokens: patches of steps, or one token a channel on a graph of channels.

Dimensions: B batch, L steps, C channels, P patches, S steps of a patch, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from fuseline.data.matrix import read_matrix
from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.layers import TransformerBlock
from fuseline.lab.series import Normalise
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen

PATCHES = 8
MOST_TOKENS = 1024


class SmallTimeSeriesConfig(Frozen):
    width: int = Field(64, ge=8, description="D: width of every token")
    layers: int = Field(2, ge=0, le=12, description="Transformer layers over the patches")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    patch: int | None = Field(None, ge=1, description=f"steps of a patch; default: about {PATCHES} patches a series")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> SmallTimeSeriesConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class SmallTimeSeries(Encoder):
    """Patches of each channel, then a Transformer over all of them (PatchTST: Nie et al. 2023, "A Time Series is Worth
    64 Words"; here channels see each other).

    In: `values` float32 (B, L, C), `known` bool (B, L, C). Out: tokens (B, C·P, D), a channel's patches together in
    their order; every token is real: a patch of gaps is one that says so.
    """

    Config: ClassVar[type[Frozen]] = SmallTimeSeriesConfig

    def __init__(self, config: SmallTimeSeriesConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.width = config.width
        self.patch = config.patch or max(1, round(modality.length / PATCHES))
        self.patches = -(-modality.length // self.patch)
        if modality.size_C * self.patches > MOST_TOKENS:
            raise FuselineError(
                "bad_recipe",
                f"{modality.columns[0]}: {modality.size_C} channels of {self.patches} patches are too many tokens",
                f"at most {MOST_TOKENS}: set a larger encoder.patch, or encoder.kind: sensors",
                column=modality.columns[0],
            )
        self.lead = self.patches * self.patch - modality.length
        self.normalise = Normalise(modality)
        self.embed = nn.Linear(3 * self.patch, config.width)
        self.place_CPD = nn.Parameter(torch.randn(modality.size_C, self.patches, config.width) * 0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )

    def forward(self, values: Tensor, known: Tensor) -> Tokens:  # type: ignore[override]
        series = self.normalise(values, known)
        parts = (series.own_BLC, series.table_BLC.clamp(-8.0, 8.0), series.known_BLC.to(values.dtype))
        stacked_BCL3 = torch.stack(parts, dim=-1).transpose(1, 2)
        stacked_BCL3 = F.pad(stacked_BCL3, (0, 0, self.lead, 0))  # the first patch is short, never the last
        patched_BCPS = stacked_BCL3.reshape(*stacked_BCL3.shape[:2], self.patches, 3 * self.patch)
        tokens_BTD = (self.embed(patched_BCPS) + self.place_CPD).flatten(1, 2)
        mask_BT = torch.ones_like(tokens_BTD[..., 0], dtype=torch.bool)
        for block in self.blocks:
            tokens_BTD = block(tokens_BTD, mask_BT)
        return Tokens(tokens_BTD, mask_BT, series.aside())


class SensorsConfig(Frozen):
    width: int = Field(64, ge=8, description="D: width of every token")
    layers: int = Field(3, ge=1, le=12, description="graph layers")
    adjacency: str | None = Field(
        None,
        description="a file of C × C weights (CSV or .npy), relative to the working folder; default: none",
    )
    learned: int = Field(
        16, ge=0, le=256, description="size of the vectors that a learned adjacency is made of; 0: none"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")


class Sensors(Encoder):
    """One token a channel; layers that mix each channel's neighbours by a given adjacency, in both directions, and by a
    learned one (Graph WaveNet: Wu et al. 2019, "Graph WaveNet for Deep Spatial-Temporal Graph Modeling", eq. 5-7).

    In: `values` float32 (B, L, C), `known` bool (B, L, C). Out: tokens (B, C, D). The adjacency is a buffer: it is in
    the exported graph, and the file is not needed again.
    """

    Config: ClassVar[type[Frozen]] = SensorsConfig

    def __init__(self, config: SensorsConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.width = config.width
        channels = modality.size_C
        self.normalise = Normalise(modality)
        given = None if config.adjacency is None else read_adjacency(Path(config.adjacency), channels)
        steps = np.zeros((2, channels, channels)) if given is None else _both_ways(given)
        self.register_buffer("steps_KCC", torch.tensor(steps, dtype=torch.float32))
        self.from_CR = nn.Parameter(torch.randn(channels, config.learned)) if config.learned else None
        self.to_RC = nn.Parameter(torch.randn(config.learned, channels)) if config.learned else None
        self.embed = nn.Linear(3 * modality.length, config.width)
        self.place_CD = nn.Parameter(torch.randn(channels, config.width) * 0.1)
        kinds = 2 + bool(config.learned)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.layers))
        self.mixes = nn.ModuleList(
            nn.Linear((1 + 2 * kinds) * config.width, config.width) for _ in range(config.layers)
        )
        self.outs = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.layers))
        self.dropout = config.dropout

    def forward(self, values: Tensor, known: Tensor) -> Tokens:  # type: ignore[override]
        series = self.normalise(values, known)
        parts = (series.own_BLC, series.table_BLC.clamp(-8.0, 8.0), series.known_BLC.to(values.dtype))
        x_BCD = self.embed(torch.cat(parts, dim=1).transpose(1, 2)) + self.place_CD
        steps = [*self.steps_KCC.unbind(0)]  # type: ignore[operator]
        if self.from_CR is not None and self.to_RC is not None:
            steps.append(F.relu(self.from_CR @ self.to_RC).softmax(dim=1))
        for norm, mix, out in zip(self.norms, self.mixes, self.outs, strict=True):
            own_BCD = norm(x_BCD)
            seen = [own_BCD]
            for step_CC in steps:
                once_BCD = step_CC @ own_BCD
                seen += [once_BCD, step_CC @ once_BCD]
            hidden_BCD = F.dropout(F.gelu(mix(torch.cat(seen, dim=-1))), self.dropout, self.training)
            x_BCD = x_BCD + out(hidden_BCD)
        return Tokens(x_BCD, torch.ones_like(x_BCD[..., 0], dtype=torch.bool), series.aside())


def read_adjacency(path: Path, channels: int) -> np.ndarray:
    """(C, C) float64 of weights of at least 0. Raises FuselineError ``no_such_file`` or ``bad_recipe``."""
    weights_CC = read_matrix(path)
    if weights_CC.shape != (channels, channels):
        raise FuselineError(
            "bad_recipe",
            f"{path.name} holds {' × '.join(map(str, weights_CC.shape))} weights for {channels} channels",
            "one row and one column a channel, in the channels' order, no header",
        )
    if not np.isfinite(weights_CC).all() or (weights_CC < 0).any():
        raise FuselineError("bad_recipe", f"{path.name}: a weight is not a number of at least 0", "")
    return weights_CC


def _both_ways(weights_CC: np.ndarray) -> np.ndarray:
    """(2, C, C): each row's weights as shares of their sum, with the edges as they are and turned round (Li et al.
    2018, DCRNN, eq. 2)."""
    out = []
    for way_CC in (weights_CC, weights_CC.T):
        total_C1 = way_CC.sum(axis=1, keepdims=True)
        out.append(np.divide(way_CC, total_C1, out=np.zeros_like(way_CC), where=total_C1 > 0))
    return np.stack(out)
