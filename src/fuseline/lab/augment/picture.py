"""Pictures seen otherwise. Dimensions: B batch, N items or frames, H height, W width, C channels."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fuseline.lab.augment.base import Arrays, Augment, Draw, per_item
from fuseline.modalities.several import SEVERAL
from fuseline.recipe import Frozen

GREY = (0.299, 0.587, 0.114)
"""weights of red, green and blue in a grey picture (ITU-R BT.601)"""


class PictureConfig(Frozen):
    rotate: float = Field(6.0, ge=0, le=180, description="turned by up to so many degrees")
    scale: float = Field(0.1, ge=0, le=0.9, description="larger or smaller by up to this share")
    shift: float = Field(0.1, ge=0, le=0.9, description="moved by up to this share of its sides")
    crop: float = Field(0.0, ge=0, le=0.9, description="up to this share of the area cut away, the rest enlarged")
    mirror: bool = Field(False, description="mirror half of them; wrong where sides matter")
    light: float = Field(0.2, ge=0, le=1, description="brightness and contrast changed by up to this share")
    colour: float = Field(0.2, ge=0, le=1, description="saturation and the channels' balance changed by up to this")
    noise: float = Field(0.02, ge=0, le=1, description="deviation of noise on each pixel, in shares of the range")


GEOMETRY = ("rotate", "scale", "shift", "crop", "mirror")
"""options that move what is in the picture: never under boxes that stay"""


def see_anew(pixels_BHWC: Tensor, config: PictureConfig, draw: Draw) -> Tensor:
    """uint8 (B, H, W, C) seen anew; C may hold several frames of three channels, which are all seen alike."""
    picture_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float()
    if any(getattr(config, name) for name in GEOMETRY):
        matrix_B23 = _way_back(picture_BCHW.shape[0], config, draw)
        grid = F.affine_grid(matrix_B23, list(picture_BCHW.shape), align_corners=False)
        picture_BCHW = F.grid_sample(picture_BCHW, grid, padding_mode="reflection", align_corners=False)
    if config.light:
        # The draws come in this order whatever the strengths, so that one option does not change the other's.
        contrast, brightness = (draw.spread(config.light, len(picture_BCHW), 1, 1, 1) for _ in range(2))
        picture_BCHW = (picture_BCHW - 127.5) * (1 + contrast) + 127.5 * (1 + brightness)
    if config.colour:
        picture_BCHW = _tint(picture_BCHW, config.colour, draw)
    if config.noise:
        picture_BCHW = picture_BCHW + 255 * config.noise * draw.normal(*picture_BCHW.shape)
    return picture_BCHW.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _way_back(batch: int, config: PictureConfig, draw: Draw) -> Tensor:
    """(B, 2, 3): from the new picture's places to the old one's, on -1 to 1."""
    angle_B = draw.spread(math.radians(config.rotate), batch)
    zoom_B = torch.exp(draw.spread(math.log1p(config.scale), batch))
    side_B = (1 - draw.uniform(batch, high=config.crop)).sqrt()  # of what a crop keeps
    middle_B2 = draw.spread(1.0, batch, 2) * (1 - side_B)[:, None]
    move_B2 = 2 * draw.spread(config.shift, batch, 2)
    flip_B = torch.where(draw.chance(0.5, batch), -1.0, 1.0) if config.mirror else torch.ones_like(angle_B)
    size_B = side_B / zoom_B
    across = torch.stack([size_B * angle_B.cos() * flip_B, -size_B * angle_B.sin()], dim=1)
    down = torch.stack([size_B * angle_B.sin() * flip_B, size_B * angle_B.cos()], dim=1)
    return torch.cat([torch.stack([across, down], dim=1), (middle_B2 + move_B2)[:, :, None]], dim=2)


def _tint(picture_BCHW: Tensor, strength: float, draw: Draw) -> Tensor:
    rows, _, *sides = picture_BCHW.shape
    frames = picture_BCHW.reshape(rows, -1, 3, *sides)
    weights = torch.tensor(GREY, device=frames.device)[None, None, :, None, None]
    grey = (frames * weights).sum(dim=2, keepdim=True)
    saturation = 1 + draw.spread(strength, rows, 1, 1, 1, 1)
    # A grey picture (an X-ray) has no balance to lose: only what has colour is given another.
    colourful = (frames - grey).abs().amax(dim=(1, 2, 3, 4), keepdim=True) > 1
    balance = 1 + torch.where(colourful, draw.spread(strength / 2, rows, 1, 3, 1, 1), 0.0)
    tinted: Tensor = (grey + (frames - grey) * saturation) * balance
    return tinted.flatten(1, 2)


class AugmentPicture(Augment):
    """Turned, scaled, shifted, cropped, mirrored (one resampling), lit and tinted otherwise, with noise. What moves in
    from outside mirrors what is at the edge: a repeated edge draws stripes that no camera sees."""

    Config = PictureConfig
    strong = MappingProxyType(
        {"rotate": 15.0, "scale": 0.25, "shift": 0.15, "crop": 0.4, "light": 0.4, "colour": 0.4, "noise": 0.05}
    )

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        if SEVERAL in arrays:
            return per_item(lambda own: self._one(own, draw), arrays, SEVERAL)
        return self._one(arrays, draw)

    def _one(self, arrays: Arrays, draw: Draw) -> Arrays:
        return {**arrays, "pixels": see_anew(arrays["pixels"], self.config, draw)}


class AugmentClip(Augment):
    """All frames of a clip alike, or it would jump."""

    Config = PictureConfig
    strong = AugmentPicture.strong

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        frames_BNHWC = arrays["frames"]
        stacked = frames_BNHWC.permute(0, 2, 3, 1, 4).flatten(3, 4)
        seen = see_anew(stacked, self.config, draw)
        frames = seen.reshape(*seen.shape[:3], -1, 3).permute(0, 3, 1, 2, 4)
        return {**arrays, "frames": frames.contiguous()}
