"""Sounds from scratch.

Dimensions: B batch, S samples, N frames of 10 ms, F mel bands, C channels, T tokens of 160 ms, D width.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.layers import ConvResidual, StandardisedConv2d, TransformerBlock, sinusoids
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen

FLOOR = 1e-6
"""Added to every band's power (samples are within +-1): what is quieter is silence."""


class SmallAudioConfig(Frozen):
    width: int = Field(128, ge=8, description="D: width of every token")
    channels: tuple[int, ...] = Field(
        (16, 32, 48, 64), min_length=1, max_length=6, description="channels of each stage; each halves time and pitch"
    )
    blocks: int = Field(1, ge=1, le=6, description="residual blocks of each stage after the first")
    layers: int = Field(0, ge=0, le=12, description="Transformer layers over the tokens")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    bands: int = Field(64, ge=8, le=256, description="mel bands")
    lowest: float = Field(40.0, ge=0, lt=400, description="lowest frequency heard, in hertz")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout around the projection to tokens")
    augment: float = Field(
        1.0, ge=0, le=2, description="strength of random speed, pitch and masks while training; 0: none"
    )
    crop_seconds: float = Field(
        2.0, ge=0, description="while training, longer sounds give a random part of this length; 0: the whole"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> SmallAudioConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        return self


class LogMel(nn.Module):
    """`log(power in mel bands)` of Hann windows of 25 ms, one every 10 ms, the first centred on the first sample.

    The Fourier transform is a convolution with its windowed basis: every runtime has that.
    A sound of S samples has `1 + S // hop` frames. Mel scale: 2595 log10(1 + f / 700) (O'Shaughnessy 1987).
    """

    hann: Tensor
    basis: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, bands: int, lowest: float) -> None:
        super().__init__()
        self.hop = max(1, round(0.01 * sample_rate))
        self.window = 2 * max(1, round(0.0125 * sample_rate))
        points = 1 << (self.window - 1).bit_length()
        filters_KF = _mel_filters(sample_rate, points, bands, lowest)
        while not (filters_KF > 0).any(axis=0).all():  # at a low rate bands are narrower than the transform's lines
            points *= 2
            filters_KF = _mel_filters(sample_rate, points, bands, lowest)
        heard_K = np.flatnonzero(filters_KF.any(axis=1))
        self.points, self.used = points, (int(heard_K[0]), int(heard_K[-1]))
        used_K = np.arange(heard_K[0], heard_K[-1] + 1)
        steps_W = np.arange(self.window)
        hann_W = 0.5 - 0.5 * np.cos(2 * np.pi * steps_W / self.window)
        angles_KW = 2 * np.pi * used_K[:, None] * steps_W / points
        basis = np.concatenate([np.cos(angles_KW) * hann_W, np.sin(angles_KW) * hann_W])
        # Not in the weights: they follow from the options.
        self.register_buffer("hann", torch.tensor(hann_W, dtype=torch.float32), persistent=False)
        self.register_buffer("basis", torch.tensor(basis, dtype=torch.float32), persistent=False)
        self.register_buffer("filters", torch.tensor(filters_KF[used_K], dtype=torch.float32), persistent=False)

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """(B, N, F)"""
        if torch.is_autocast_enabled(waveform_BS.device.type):  # powers of a transform in half precision are noise
            with torch.autocast(waveform_BS.device.type, enabled=False):
                return self._bands(waveform_BS.float())
        return self._bands(waveform_BS)

    def _bands(self, waveform_BS: Tensor) -> Tensor:
        if self.training:  # the same powers in less than half the time
            power_BNK = self._fast_powers(waveform_BS)
        else:
            lines = F.conv1d(waveform_BS[:, None], self.basis[:, None], stride=self.hop, padding=self.window // 2)
            real_BKN, imaginary_BKN = lines.chunk(2, dim=1)
            power_BNK = (real_BKN.square() + imaginary_BKN.square()).transpose(1, 2)
        return (power_BNK @ self.filters + FLOOR).log()

    def _fast_powers(self, waveform_BS: Tensor) -> Tensor:
        frames_BNW = F.pad(waveform_BS, (self.window // 2, self.window // 2)).unfold(1, self.window, self.hop)
        first, last = self.used
        lines_BNK = torch.fft.rfft(frames_BNW * self.hann, n=self.points)[:, :, first : last + 1]
        power_BNK: Tensor = lines_BNK.real.square() + lines_BNK.imag.square()
        return power_BNK


def _mel_filters(sample_rate: int, points: int, bands: int, lowest: float) -> np.ndarray:
    """(K, F) triangles, even on the mel scale from `lowest` hertz to 95 % of half the rate."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (lowest, 0.475 * sample_rate))
    edges = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    lines_K1 = np.arange(points // 2 + 1)[:, None] * sample_rate / points
    rising = (lines_K1 - edges[None, :-2]) / np.diff(edges)[None, :-1]
    falling = (edges[None, 2:] - lines_K1) / np.diff(edges)[None, 1:]
    return np.maximum(0.0, np.minimum(rising, falling))


def normalise(bands_BNF: Tensor, real_BN: Tensor) -> Tensor:
    """One mean and deviation a sound, over its own frames; 0 after its end. Silence is 0 throughout."""
    real_BN1 = real_BN[:, :, None].to(bands_BNF.dtype)
    count_B11 = real_BN1.sum(dim=1, keepdim=True) * bands_BNF.shape[2]
    centred = (bands_BNF - (bands_BNF * real_BN1).sum(dim=(1, 2), keepdim=True) / count_B11) * real_BN1
    variance_B11 = centred.square().sum(dim=(1, 2), keepdim=True) / count_B11
    return centred * torch.rsqrt(variance_B11 + 1e-3)


class SmallAudio(Encoder):
    """Log-mel picture, a residual network without norms over it, one token for each 160 ms.

    In: `waveform` float32 (B, S), `length` int64 (B,) in samples. Out: tokens (B, T, D), T = ceil(frames / 16).
    Whatever follows a sound's end is set to 0 after every layer that mixes time. In training, each sound is heard a
    little faster or slower, higher or lower, in part, and with gaps (see :func:`perturb` and :func:`with_gaps`).
    """

    Config: ClassVar[type[Frozen]] = SmallAudioConfig

    def __init__(self, config: SmallAudioConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.config = config
        self.width = config.width
        self.bands = LogMel(modality.config.sample_rate, config.bands, config.lowest)
        first, *rest = config.channels
        self.stem = StandardisedConv2d(1, first, 5, stride=2)
        stages: list[ConvResidual] = []
        height, inputs = (config.bands + 1) // 2, first
        for outputs in rest:
            stages += [ConvResidual(inputs, outputs, stride=2)]
            stages += [ConvResidual(outputs, outputs, stride=1) for _ in range(config.blocks - 1)]
            height, inputs = (height + 1) // 2, outputs
        self.stages = nn.ModuleList(stages)
        self.project = nn.Linear(inputs * height, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )

    def traced_from(self, dimension: str, least: int) -> int:
        tokens_2: int = self.bands.hop * 2 ** len(self.config.channels)
        return max(least, tokens_2)

    def forward(self, waveform: Tensor, length: Tensor) -> Tokens:  # type: ignore[override]
        bands_BNF = self.bands(waveform)
        frames_B = 1 + length // self.bands.hop
        if self.training:
            bands_BNF, frames_B = perturb(
                bands_BNF, frames_B, self.config.augment, round(self.config.crop_seconds * 100)
            )
        real_BN = torch.arange(bands_BNF.shape[1], device=length.device)[None, :] < frames_B[:, None]
        bands_BNF = normalise(bands_BNF, real_BN)
        if self.training:
            bands_BNF = with_gaps(bands_BNF, frames_B, self.config.augment)
        # Seen as (B, 1, F, N) with channels last in memory, for which the first layers run several times faster.
        picture = bands_BNF.transpose(1, 2)[:, :, :, None].contiguous().permute(0, 3, 1, 2)
        mask = real_BN[:, None, None, ::2].to(picture.dtype)
        picture = self.stem(picture) * mask
        for stage in self.stages:
            picture = stage(picture, mask)
            mask = mask[..., :: stage.stride]
        mask_BT = mask[:, 0, 0] > 0
        values_BTD = self.drop(F.relu(picture).flatten(1, 2).transpose(1, 2))
        values_BTD = self.drop(self.norm(self.project(values_BTD)))
        if self.blocks:
            values_BTD = values_BTD + sinusoids(values_BTD.shape[1], self.width, values_BTD)
        for block in self.blocks:
            values_BTD = block(values_BTD, mask_BT)
        return Tokens(values_BTD, mask_BT)


def perturb(bands_BNF: Tensor, frames_B: Tensor, strength: float, crop: int) -> tuple[Tensor, Tensor]:
    """Speed by up to 15 %, pitch by up to 4 of 64 bands (Jaitly and Hinton 2013, "Vocal tract length perturbation"),
    and a random part of `crop` frames where the batch is longer. Gives the bands and the new lengths in frames."""
    batch, frames, bands = bands_BNF.shape
    device = bands_BNF.device
    speed_B = torch.exp((torch.rand(batch, device=device) * 2 - 1) * 0.15 * strength)
    shift_B = (torch.rand(batch, device=device) * 2 - 1) * 4 * strength * bands / 64
    length_B = ((frames_B - 1) / speed_B).long() + 1
    kept = min(frames, crop) if crop else frames
    start_B = torch.rand(batch, device=device) * (length_B - kept).clamp_min(0)
    time_BN = (torch.arange(kept, device=device) + start_B[:, None]) * speed_B[:, None]
    time_BN = torch.minimum(time_BN, frames_B[:, None] - 1.0)
    pitch_BF = torch.arange(bands, device=device) + shift_B[:, None]
    grid = torch.stack(
        [
            (pitch_BF * (2 / (bands - 1)) - 1)[:, None, :].expand(-1, kept, -1),
            (time_BN * (2 / max(1, frames - 1)) - 1)[:, :, None].expand(-1, -1, bands),
        ],
        dim=3,
    )
    moved = F.grid_sample(bands_BNF[:, None], grid, padding_mode="border", align_corners=True)
    return moved[:, 0], length_B.clamp_max(kept)


def with_gaps(bands_BNF: Tensor, frames_B: Tensor, strength: float) -> Tensor:
    """Two gaps in time (each up to 15 % of the sound) and two in pitch (up to 1/8 of the bands), set to the mean, 0
    (Park et al. 2019, "SpecAugment")."""
    batch, frames, bands = bands_BNF.shape
    device = bands_BNF.device

    def kept(size: int, whole_B1: Tensor, share: float) -> Tensor:
        width_B1 = torch.rand(batch, 1, device=device) * share * strength * whole_B1
        start_B1 = torch.rand(batch, 1, device=device) * (whole_B1 - width_B1)
        steps = torch.arange(size, device=device)[None, :]
        return (steps < start_B1) | (steps >= start_B1 + width_B1)

    all_bands_B1 = torch.full((batch, 1), float(bands), device=device)
    for _ in range(2):
        bands_BNF = bands_BNF * kept(frames, frames_B[:, None], 0.15)[:, :, None]
        bands_BNF = bands_BNF * kept(bands, all_bands_B1, 0.125)[:, None, :]
    return bands_BNF
