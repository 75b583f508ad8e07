"""Pictures from scratch. Dimensions: B batch, H height, W width, C channels, T tokens (cells of a map), D width."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.grid import placed
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen


class SmallImageConfig(Frozen):
    size: int = Field(96, ge=8, le=1024, description="height and width in pixels")
    channels: tuple[int, ...] = Field(
        (32, 64, 96, 128), min_length=1, max_length=6, description="channels of each stage; each halves the size"
    )
    blocks: int = Field(1, ge=1, le=6, description="residual blocks of each stage after the first")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the last map's channels dropped while training")
    augment: float = Field(
        1.0, ge=0, le=3, description="strength of random zoom, shift, brightness and contrast while training; 0: none"
    )
    mirror: bool = Field(False, description="mirror half of the pictures while training; wrong where sides matter")
    grid: bool = Field(False, description="tokens say where they are, for detection; needs augment: 0 and no mirror")

    @model_validator(mode="after")
    def _places_stay(self) -> SmallImageConfig:
        if self.grid and (self.augment or self.mirror):
            raise ValueError("augment and mirror would move the picture under its places: augment: 0, mirror: false")
        return self


class Residual(nn.Module):
    """`skip(x) + conv(relu(norm(conv(relu(norm(x))))))` (He et al. 2016, "Identity mappings"), with group norms (Wu and
    He 2018): a batch norm would learn from absent rows' black pictures. Halves the map where `stride` is 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_groups(inputs), inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm_out = nn.GroupNorm(_groups(outputs), outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False))
        for conv in (self.conv_in, self.conv_out):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, map_BCHW: Tensor) -> Tensor:
        hidden = self.conv_in(F.relu(self.norm_in(map_BCHW)))
        hidden = self.conv_out(F.relu(self.norm_out(hidden)))
        out: Tensor = self.skip(map_BCHW) + hidden
        return out


class SmallImage(Encoder):
    """A compact residual network, with random views of the pictures while training.

    In: `pixels` uint8 (B, H, W, 3), with `grid` also `sides` (B, 2). Out: the last map's cells, row by row, as tokens
    (B, T, D), all real.
    """

    Config: ClassVar[type[Frozen]] = SmallImageConfig

    def __init__(self, config: SmallImageConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.config = config
        first, *rest = config.channels
        self.width = config.channels[-1]
        self.stem = nn.Conv2d(3, first, 5, stride=2, padding=2)
        stages: list[nn.Module] = []
        side, inputs = (modality.config.size + 1) // 2, first
        for outputs in rest:
            stages += [Residual(inputs, outputs, stride=2)]
            stages += [Residual(outputs, outputs, stride=1) for _ in range(config.blocks - 1)]
            side, inputs = (side + 1) // 2, outputs
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(_groups(self.width), self.width)
        self.place_TD = nn.Parameter(torch.randn(side * side, self.width) * 0.02)

    @classmethod
    def cell_options(cls, config: Any) -> dict[str, Any]:
        return {"size": config.size, **({"sides": True} if config.grid else {})}

    def forward(self, pixels: Tensor, sides: Tensor | None = None) -> Tokens:  # type: ignore[override]
        picture_BCHW = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        if self.training:
            picture_BCHW = random_view(picture_BCHW, self.config.augment, self.config.mirror)
        map_BDHW = F.relu(self.norm(self.stages(self.stem(picture_BCHW))))
        map_BDHW = F.dropout2d(map_BDHW, self.config.dropout, self.training)
        values_BTD = map_BDHW.flatten(2).transpose(1, 2) + self.place_TD
        tokens = Tokens(values_BTD, torch.ones_like(values_BTD[:, :, 0], dtype=torch.bool))
        return placed(tokens, sides) if self.config.grid else tokens


def _groups(channels: int) -> int:
    """Groups of 8 channels or more, each of as many."""
    return next(groups for groups in range(max(1, channels // 8), 0, -1) if channels % groups == 0)


def random_view(picture_BCHW: Tensor, strength: float, mirror: bool) -> Tensor:
    """Zoom and shift by up to 10 %, turn by up to 6 degrees, brightness and contrast by up to 20 % (times strength)."""
    batch, device = picture_BCHW.shape[0], picture_BCHW.device

    def spread(size: float) -> Tensor:
        return (torch.rand(batch, device=device) * 2 - 1) * size * strength

    if strength > 0 or mirror:
        zoom, turn = 1 + spread(0.1), spread(0.1)
        flip = torch.where(torch.rand(batch, device=device) < 0.5, -1.0, 1.0) if mirror else torch.ones_like(zoom)
        across = torch.stack([zoom * turn.cos() * flip, -zoom * turn.sin(), spread(0.1)], dim=1)
        down = torch.stack([zoom * turn.sin() * flip, zoom * turn.cos(), spread(0.1)], dim=1)
        grid = F.affine_grid(torch.stack([across, down], dim=1), list(picture_BCHW.shape), align_corners=False)
        picture_BCHW = F.grid_sample(picture_BCHW, grid, padding_mode="border", align_corners=False)
    if strength > 0:
        contrast, brightness = 1 + spread(0.2), spread(0.2)
        picture_BCHW = picture_BCHW * contrast[:, None, None, None] + brightness[:, None, None, None]
    return picture_BCHW
