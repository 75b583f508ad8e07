"""Numbers and categories as one token a feature.

Dimensions: B batch, N numbers, C categories, F features (N + C), K bins or frequencies, D width.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.layers import TransformerBlock
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen

LARGEST_SCORE = 8.0
"""Standardised numbers are cut here: one row with a typing error must not drive a layer."""


class SmallTabularConfig(Frozen):
    width: int = Field(64, ge=8, description="D: width of every token")
    layers: int = Field(1, ge=0, le=12, description="Transformer layers over the features")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")
    numbers: Literal["piecewise", "periodic", "linear"] = Field(
        "piecewise", description="how a number becomes a vector: by its quantile bins, by waves, or by one line"
    )
    bins: int = Field(16, ge=1, le=1024, description="piecewise: most bins of a number; periodic: frequencies")
    sigma: float = Field(0.3, gt=0, description="periodic: spread of the first frequencies")
    absent: Literal["token", "masked"] = Field(
        "token", description="an absent feature is a learned token of its own (absence may tell), or is left out"
    )
    feature_dropout: float = Field(
        0.05, ge=0, lt=1, description="share of features taken as absent or unseen while training"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> SmallTabularConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class Scaler(nn.Module):
    """`(x - median) / (IQR / 1.349)` cut to +-8, so that outliers in training do not set the scale.

    A number whose quartiles agree (mostly one value) falls back to its standard deviation.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, quantiles_NQ: np.ndarray, std_N: np.ndarray) -> None:
        super().__init__()
        quartile_3N = np.quantile(quantiles_NQ.astype(np.float64), [0.25, 0.5, 0.75], axis=1)
        robust_N = (quartile_3N[2] - quartile_3N[0]) / 1.349
        scale_N = np.where(robust_N > 0, robust_N, np.where(std_N > 0, std_N, 1.0))
        self.register_buffer("centre", torch.tensor(quartile_3N[1], dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale_N, dtype=torch.float32).clamp_min(1e-30))

    def forward(self, numbers_BN: Tensor) -> Tensor:
        # Cut before the division. Next to each other, a subtraction and a division by constants become one product and
        # one sum in OpenVINO, x / s - c / s, which leaves nothing right of a date's 9,000 days or a count's millions.
        most_N = LARGEST_SCORE * self.scale
        return torch.maximum(torch.minimum(numbers_BN - self.centre, most_N), -most_N) / self.scale


class Piecewise(nn.Module):
    """Piecewise-linear encoding: bin k of a number holds `clip((x - b_k) / (b_k+1 - b_k), 0, 1)`.

    Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning", section 3.1, with quantile
    bins. What lies outside of them counts as the first or last edge.
    """

    edges: Tensor
    widths: Tensor

    def __init__(self, quantiles_NQ: np.ndarray, bins: int) -> None:
        super().__init__()
        picked = np.linspace(0, quantiles_NQ.shape[1] - 1, min(bins + 1, quantiles_NQ.shape[1])).round().astype(int)
        edges_NK = torch.tensor(quantiles_NQ[:, picked], dtype=torch.float32)
        self.register_buffer("edges", edges_NK[:, :-1])
        self.register_buffer("widths", edges_NK[:, 1:] - edges_NK[:, :-1])
        self.size = len(picked) - 1

    def forward(self, numbers_BN: Tensor) -> Tensor:
        # Several quantiles of a much repeated value are one edge: the empty bins between them stay 0.
        real_NK = self.widths > 0
        above_BNK = (numbers_BN[:, :, None] - self.edges).clamp_min(0.0)  # before the division: see Scaler
        share_BNK = above_BNK / torch.where(real_NK, self.widths, 1.0)
        return torch.where(real_NK, share_BNK.clamp_max(1.0), 0.0)


class Periodic(nn.Module):
    """`[sin(2 pi c_k x), cos(2 pi c_k x)]` of the scaled number, c learned (Gorishniy et al. 2022, section 3.3)."""

    def __init__(self, scaler: Scaler, features: int, frequencies: int, sigma: float) -> None:
        super().__init__()
        self.scaler = scaler
        self.coefficients_NK = nn.Parameter(torch.randn(features, frequencies) * sigma)
        self.size = 2 * frequencies

    def forward(self, numbers_BN: Tensor) -> Tensor:
        angles_BNK = 2 * math.pi * self.coefficients_NK * self.scaler(numbers_BN)[:, :, None]
        return torch.cat([angles_BNK.sin(), angles_BNK.cos()], dim=2)


class Linear(nn.Module):
    """The scaled number itself: the FT-Transformer's own tokens."""

    def __init__(self, scaler: Scaler) -> None:
        super().__init__()
        self.scaler = scaler
        self.size = 1

    def forward(self, numbers_BN: Tensor) -> Tensor:
        out: Tensor = self.scaler(numbers_BN)[:, :, None]
        return out


class SmallTabular(Encoder):
    """Feature tokens and a light Transformer (FT-Transformer: Gorishniy et al. 2021, "Revisiting Deep Learning Models
    for Tabular Data").

    In: `numbers` float32 (B, N), `numbers_present` bool (B, N), `categories` int64 (B, C) with 0 absent, 1 unseen;
    arrays without features are left out. Out: tokens (B, N + C, D), numbers first. With `absent: token` every token is
    real, and an absent feature's is learned.
    """

    Config: ClassVar[type[Frozen]] = SmallTabularConfig
    starts: Tensor

    def __init__(self, config: SmallTabularConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.config = config
        self.width = config.width
        self.numbers: Piecewise | Periodic | Linear | None = None
        self.categories: nn.Embedding | None = None
        features = len(modality.number_names)
        if features:
            self.numbers = _number_parts(config, modality)
            size = self.numbers.size
            self.weight_NKD = nn.Parameter(torch.empty(features, size, config.width))
            nn.init.uniform_(self.weight_NKD, -(size**-0.5), size**-0.5)
            self.bias_ND = nn.Parameter(torch.empty(features, config.width).uniform_(-0.3, 0.3))
            self.absent_ND = nn.Parameter(torch.empty(features, config.width).uniform_(-0.3, 0.3))
        if modality.category_names:
            starts = np.concatenate([[0], np.cumsum(modality.cardinalities)[:-1]])
            self.register_buffer("starts", torch.tensor(starts, dtype=torch.int64))
            self.categories = nn.Embedding(sum(modality.cardinalities), config.width)
            nn.init.uniform_(self.categories.weight, -(config.width**-0.5), config.width**-0.5)
            with torch.no_grad():  # a value never met in training adds nothing to its column's own vector
                self.categories.weight[self.starts + 1] = 0.0
            self.column_CD = nn.Parameter(torch.empty(len(starts), config.width).uniform_(-0.3, 0.3))
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )

    def lookups(self) -> tuple[nn.Embedding, ...]:
        return () if self.categories is None else (self.categories,)

    def forward(  # type: ignore[override]
        self, numbers: Tensor | None = None, numbers_present: Tensor | None = None, categories: Tensor | None = None
    ) -> Tokens:
        values: list[Tensor] = []
        here: list[Tensor] = []
        if self.numbers is not None:
            assert numbers is not None
            assert numbers_present is not None
            present_BN = numbers_present & ~self._dropped(numbers_present)
            # An absent number may be NaN, which no product with a mask would remove.
            parts_BNK = self.numbers(torch.where(present_BN, numbers, 0.0))
            tokens_BND = torch.einsum("bnk,nkd->bnd", parts_BNK, self.weight_NKD) + self.bias_ND
            values.append(torch.where(present_BN[:, :, None], tokens_BND, self.absent_ND))
            here.append(present_BN)
        if self.categories is not None:
            assert categories is not None
            # Dropped at random to "absent" or "unseen", so that both vectors are trained even where neither occurs.
            either_BC = torch.minimum(categories, torch.randint_like(categories, 2)) if self.training else categories
            index_BC = torch.where(self._dropped(categories), either_BC, categories)
            values.append(self.categories(index_BC + self.starts) + self.column_CD)
            here.append(index_BC != 0)
        values_BFD, present_BF = torch.cat(values, dim=1), torch.cat(here, dim=1)
        if self.config.absent == "token":
            mask_BF = torch.ones_like(present_BF)
        else:  # the dummy of an absent row has no feature at all, and attention needs one
            mask_BF = present_BF | ~present_BF.any(dim=1, keepdim=True)
        for block in self.blocks:
            values_BFD = block(values_BFD, mask_BF)
        return Tokens(values_BFD, mask_BF)

    def _dropped(self, like: Tensor) -> Tensor:
        if not self.training or self.config.feature_dropout == 0:
            return torch.zeros_like(like, dtype=torch.bool)
        return torch.rand(like.shape, device=like.device) < self.config.feature_dropout


def _number_parts(config: SmallTabularConfig, modality: Any) -> Piecewise | Periodic | Linear:
    quantiles_NQ = np.asarray(modality.quantiles)
    match config.numbers:
        case "piecewise":
            return Piecewise(quantiles_NQ, config.bins)
        case "periodic":
            scaler = Scaler(quantiles_NQ, np.asarray(modality.std))
            return Periodic(scaler, len(quantiles_NQ), config.bins, config.sigma)
        case "linear":
            return Linear(Scaler(quantiles_NQ, np.asarray(modality.std)))
