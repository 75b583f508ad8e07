"""Videos: a picture encoder per frame and attention over time, or a video backbone from a folder or the hub.

Dimensions: B batch, N frames, H W pixels, T tokens of a frame, Q tokens that each frame keeps, D width.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.hub import Weights, cannot_load, load_backbone, load_config, locate
from fuseline.lab.encoders.image import random_view
from fuseline.lab.encoders.image_pretrained import Normalise, native_size, statistics
from fuseline.lab.encoders.layers import TransformerBlock
from fuseline.lab.encoders.several import encode_flat
from fuseline.lab.encoders.tuning import apply_tuning
from fuseline.lab.tokens import Tokens
from fuseline.modalities.image import Image, ImageConfig
from fuseline.modalities.video import Video
from fuseline.recipe import Component, Frozen, read_options

FASTEST, SLOWEST = 0.05, 1000.0
"""seconds: the periods of the sines that say when a frame stands"""


class FrameEncoder(Component):
    """Any picture encoder; every other key is its own."""

    kind: str = Field("small", description="small, efficientnet-lite0, vgg or hf; its keys stand here too")
    tune: Literal["auto", "frozen", "full"] = Field("auto", description="auto: frozen if pretrained")


class SmallVideoConfig(Frozen):
    frame: FrameEncoder = Field(FrameEncoder(), description="the picture encoder of each frame: {kind: small, ...}")
    width: int = Field(128, ge=8, description="D: width of every token")
    motion: int = Field(
        1, ge=0, le=4, description="layers that compare each place with itself a frame before and after"
    )
    queries: int = Field(2, ge=1, le=32, description="tokens that each frame is brought to")
    layers: int = Field(2, ge=1, le=12, description="Transformer layers over the tokens of all frames")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")
    augment: float = Field(
        1.0, ge=0, le=3, description="strength of random zoom, shift, brightness and contrast while training; 0: none"
    )
    mirror: bool = Field(False, description="mirror half of the videos while training; wrong where sides matter")

    @model_validator(mode="after")
    def _shapes(self) -> SmallVideoConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        return self


def _frame_class(config: SmallVideoConfig) -> tuple[type[Encoder], Any]:
    from fuseline.lab.encoders import encoder_class  # the table knows this file

    cls = encoder_class("image", config.frame.kind)
    options = read_options(cls.Config, config.frame.options, "encoder.frame")
    own = {key: value for key, value in (("augment", 0.0), ("mirror", False)) if hasattr(options, key)}
    # All frames of a clip are turned and lit alike, or it would jump: not the frame encoder's business.
    return cls, options.model_copy(update=own)


class Motion(nn.Module):
    """Each place of the frames compared with itself a frame before and after: `x + W (conv(norm(x)) * conv'(norm(x)))`,
    convolutions over time alone, as in the (2+1)D of Tran et al. 2018, "A closer look at spatiotemporal convolutions".

    A product of two moments is what a detector of motion takes (Reichardt 1961): its sign says the direction. What
    moves is seen here, where places are still apart; a mean over places has forgotten it.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, 2 * width, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)

    def forward(self, values_BNTD: Tensor, real_BN: Tensor) -> Tensor:
        # Frames that are not real look like the convolution's own padding.
        seen = torch.where(real_BN[:, :, None, None], self.norm(values_BNTD), 0.0)
        rows, frames, places, width = values_BNTD.shape
        seen = self.conv(seen.permute(0, 2, 3, 1).reshape(rows * places, width, frames))
        seen = seen.reshape(rows, places, 2 * width, frames).permute(0, 3, 1, 2)
        now, beside = seen.chunk(2, dim=-1)
        out: Tensor = values_BNTD + self.out(self.drop(now * beside))
        return out


class SmallVideo(Encoder):
    """A picture encoder on every frame, convolutions over time at each place, learned queries that keep a few tokens of
    each frame, a Transformer over all frames' tokens.

    In: `frames` uint8 (B, N, H, W, 3), `seconds` float32 (B, N), `real` bool (B, N). Out: tokens (B, N * Q, D).
    The queries read the frame's tokens with a learned place added, so that they keep where something stands; the
    Transformer's tokens carry when it does, in seconds, as sines (Vaswani et al. 2017): a late frame and a slow camera
    are told apart. Time after space, as in Arnab et al. 2021, "ViViT", model 2.
    """

    Config: ClassVar[type[Frozen]] = SmallVideoConfig

    def __init__(self, config: SmallVideoConfig, modality: Video) -> None:
        super().__init__(config, modality)
        self.config = config
        self.width = config.width
        size = modality.config.size
        cls, options = _frame_class(config)
        self.frame = cls(options, Image(ImageConfig(size=size), modality.columns[0]))
        pretrained = bool(getattr(options, "pretrained", cls.pretrained))
        self.frozen = config.frame.tune == "frozen" or (config.frame.tune == "auto" and pretrained)
        apply_tuning(self.frame, "frozen" if self.frozen else "full")
        places = _count(self.frame, size)
        self.norm = nn.LayerNorm(self.frame.width)
        self.project = nn.Linear(self.frame.width, config.width)
        self.place_TD = nn.Parameter(torch.randn(places, config.width) * 0.1)
        self.motion = nn.ModuleList(Motion(config.width, config.dropout) for _ in range(config.motion))
        self.query_QD = nn.Parameter(torch.randn(config.queries, config.width))
        self.norm_kept = nn.LayerNorm(config.width)
        # A mean over many places is small: times of their full size would drown it.
        self.when_scale = nn.Parameter(torch.tensor(0.1))
        self.read = nn.Linear(config.width, 2 * config.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )

    @classmethod
    def cell_options(cls, config: SmallVideoConfig) -> dict[str, Any]:
        if config.frame.kind == "small" and "size" not in config.frame.options:
            return {}  # the modality's own default: its many frames are smaller than a picture
        frame, options = _frame_class(config)
        return {k: v for k, v in frame.cell_options(options).items() if k == "size"}

    def requires_grad_(self, requires_grad: bool = True) -> SmallVideo:
        """A frozen frame encoder stays so where the rest is to train."""
        super().requires_grad_(requires_grad)
        if self.frozen:
            self.frame.requires_grad_(False)
        return self

    def forward(self, frames: Tensor, seconds: Tensor, real: Tensor) -> Tokens:  # type: ignore[override]
        if self.training:
            frames = self._seen_anew(frames)
        each = encode_flat(self.frame, {"pixels": frames})
        values_BNTD = self.project(self.norm(each.values_BTD)) + self.place_TD
        for layer in self.motion:
            values_BNTD = layer(values_BNTD, real)
        kept_BNQD = self.norm_kept(self._kept(values_BNTD))
        values_BNQD = kept_BNQD + self.when_scale * when(seconds, self.width)[:, :, None, :]
        values_BTD = values_BNQD.flatten(1, 2)
        mask_BT = real[:, :, None].expand(-1, -1, self.config.queries).flatten(1, 2)
        values_BTD = F.dropout(values_BTD, self.config.dropout, self.training)
        for block in self.blocks:
            values_BTD = block(values_BTD, mask_BT)
        return Tokens(values_BTD, mask_BT)

    def _seen_anew(self, frames: Tensor) -> Tensor:
        """A random view of each clip, the same for all of its frames."""
        if not (self.config.augment or self.config.mirror):
            return frames
        shape = frames.shape
        clip_BCHW = frames.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 127.5 - 1.0
        clip_BCHW = random_view(clip_BCHW, self.config.augment, self.config.mirror)
        turned = clip_BCHW.view(*shape[:2], 3, *shape[2:4]).permute(0, 1, 3, 4, 2)
        turned = (turned + 1.0) * 127.5
        # An attack's frames are numbers that gradients must reach.
        return turned if frames.is_floating_point() else turned.round().clamp(0, 255).to(torch.uint8)

    def _kept(self, values_BNTD: Tensor) -> Tensor:
        """Each query's weighted mean of a frame's tokens, several heads a query."""
        split = (self.config.heads, self.width // self.config.heads)
        keys, values = (part.reshape(*part.shape[:-1], *split) for part in self.read(values_BNTD).chunk(2, dim=-1))
        queries_QHd = self.query_QD.reshape(-1, *split)
        scores = torch.einsum("qhd,bnthd->bnhqt", queries_QHd, keys) / math.sqrt(split[1])
        return torch.einsum("bnhqt,bnthd->bnqhd", scores.softmax(-1), values).flatten(-2)


def when(seconds_BN: Tensor, width: int) -> Tensor:
    """Times in seconds as sines and cosines of periods from 0.05 s to 1,000 s, (B, N, D)."""
    half = width // 2
    steps = torch.arange(half, device=seconds_BN.device, dtype=torch.float32) / max(1, half - 1)
    rates = (2 * math.pi / FASTEST) * torch.exp(steps * math.log(FASTEST / SLOWEST))
    angles = seconds_BN[:, :, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@torch.no_grad()
def _count(frame: Encoder, size: int) -> int:
    """How many tokens a frame of this size has."""
    before = frame.training
    frame.eval()
    count = int(frame(pixels=torch.zeros(1, size, size, 3, dtype=torch.uint8)).values_BTD.shape[1])
    frame.train(before)
    return count


class HFVideo(Encoder):
    """Any `AutoModel` video backbone that reads frames as (B, N, 3, H, W): VideoMAE, TimeSformer, ViViT.

    Frames and size are the model's own. A clip of fewer frames is followed by its last one. Mean and std come from the
    folder's preprocessor_config.json, else they are ImageNet's.
    """

    class Config(Frozen):
        source: str = Field(description="local folder or hub id")
        revision: str | None = Field(None, description="branch, tag or commit on the hub")
        weights: Weights = Field("pretrained", description="random: the architecture alone")
        tokens: Literal["all", "pooled"] = Field("pooled", description="all of the model's, or their mean as one")

        @property
        def pretrained(self) -> bool:
            return self.weights == "pretrained"

    pretrained: ClassVar[bool] = True

    def __init__(self, config: Config, modality: Video) -> None:
        super().__init__(config, modality)
        loaded = load_backbone(config.source, revision=config.revision, weights=config.weights)
        self.pooled = config.tokens == "pooled"
        self.normalise = Normalise(*statistics(loaded.folder))
        self.model = loaded.model
        count, size = modality.config.frames, modality.config.size
        self.eval()
        try:
            with torch.no_grad():
                frames = torch.zeros(1, count, size, size, 3, dtype=torch.uint8)
                real = torch.ones(1, count, dtype=torch.bool)
                self.width = int(self(frames, torch.zeros(1, count), real).values_BTD.shape[-1])
        except (ValueError, RuntimeError, AttributeError, TypeError, AssertionError) as error:
            raise cannot_load(
                f"{config.source}: does not take {count} frames of {size} x {size} ({error})",
                "a video model of transformers (VideoMAE, TimeSformer, ViViT), at its own size and number of frames",
            ) from error

    @classmethod
    def cell_options(cls, config: Config) -> dict[str, Any]:
        folder = locate(config.source, revision=config.revision, config_only=True)
        frames = getattr(load_config(folder), "num_frames", None)
        return {"size": native_size(folder), **({"frames": int(frames)} if frames else {})}

    def forward(self, frames: Tensor, seconds: Tensor, real: Tensor) -> Tokens:  # type: ignore[override]
        pixels = self.normalise(frames.flatten(0, 1))
        pixels = pixels.view(*frames.shape[:2], *pixels.shape[1:])
        values_BTD: Tensor = self.model(pixel_values=pixels).last_hidden_state
        if self.pooled:
            values_BTD = values_BTD.mean(1, keepdim=True)
        return Tokens(values_BTD, torch.ones_like(values_BTD[:, :, 0], dtype=torch.bool))
