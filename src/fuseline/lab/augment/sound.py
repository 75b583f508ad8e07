"""Sounds heard otherwise. Dimensions: B batch, S samples, K lines of a spectrum."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fuseline.lab.augment.base import Arrays, Augment, Draw
from fuseline.modalities import Modality
from fuseline.recipe import Frozen


class SoundConfig(Frozen):
    speed: float = Field(0.1, ge=0, le=0.5, description="faster or slower by up to this share, the pitch along with it")
    gain: float = Field(6.0, ge=0, le=40, description="louder or softer by up to so many decibels")
    noise: float = Field(0.02, ge=0, le=1, description="white noise, in shares of the sound's own loudness")
    time_mask: float = Field(0.1, ge=0, le=0.5, description="two gaps, each up to this share of the sound")
    frequency_mask: float = Field(0.1, ge=0, le=0.5, description="one band silenced, up to this share of the mel scale")


class AugmentSound(Augment):
    """On the waveform, so that every encoder hears it: speed by resampling (Ko et al. 2015), gain, white noise, and
    SpecAugment's masks (Park et al. 2019): gaps in time, and one band taken out of the whole sound's spectrum.

    `waveform` float32 (B, S) within ±1, `length` int64 (B,): both may change.
    """

    Config = SoundConfig
    strong = MappingProxyType({"speed": 0.2, "gain": 12.0, "noise": 0.1, "time_mask": 0.2, "frequency_mask": 0.2})

    def __init__(self, config: SoundConfig, modality: Modality) -> None:
        super().__init__(config, modality)
        options: Any = modality.config  # type: ignore[attr-defined]
        self.rate: int = options.sample_rate
        self.shortest, self.longest = modality.lengths["S"]

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        config: SoundConfig = self.config
        waveform_BS, length_B = arrays["waveform"], arrays["length"]
        rows = len(waveform_BS)
        if config.speed:
            waveform_BS, length_B = self._resampled(waveform_BS, length_B, draw)
        real_BS = torch.arange(waveform_BS.shape[1], device=length_B.device) < length_B[:, None]
        if config.gain:
            waveform_BS = waveform_BS * 10 ** (draw.spread(config.gain, rows, 1) / 20)
        if config.noise:
            loud_B1 = loudness(waveform_BS, real_BS)
            waveform_BS = waveform_BS + config.noise * loud_B1 * draw.normal(*waveform_BS.shape)
        if config.frequency_mask:
            waveform_BS = self._without_a_band(waveform_BS, draw)
        for _ in range(2 if config.time_mask else 0):
            width_B = draw.uniform(rows, high=config.time_mask) * length_B
            start_B = draw.uniform(rows) * (length_B - width_B)
            at_S = torch.arange(waveform_BS.shape[1], device=length_B.device)
            gap_BS = (at_S >= start_B[:, None]) & (at_S < (start_B + width_B)[:, None])
            waveform_BS = torch.where(gap_BS, 0.0, waveform_BS)
        waveform_BS = torch.where(real_BS, waveform_BS, 0.0).clamp(-1.0, 1.0)
        return {**arrays, "waveform": waveform_BS, "length": length_B}

    def _resampled(self, waveform_BS: Tensor, length_B: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """By a line between neighbours; a sound never grows beyond what its modality allows."""
        speed_B = torch.exp(draw.spread(math.log1p(self.config.speed), len(length_B)))
        new_B = (length_B / speed_B).round().long().clamp(1, self.longest)
        kept = max(int(new_B.max()), self.shortest)
        at_BS = torch.arange(kept, device=length_B.device)[None] * speed_B[:, None]
        at_BS = torch.minimum(at_BS, (length_B - 1).clamp_min(0)[:, None].to(at_BS.dtype))
        low_BS = at_BS.floor().long()
        high_BS = torch.minimum(low_BS + 1, (length_B - 1).clamp_min(0)[:, None])
        part_BS = at_BS - low_BS
        heard_BS = waveform_BS.gather(1, low_BS) * (1 - part_BS) + waveform_BS.gather(1, high_BS) * part_BS
        return heard_BS, new_B

    def _without_a_band(self, waveform_BS: Tensor, draw: Draw) -> Tensor:
        rows, samples = waveform_BS.shape
        lines_BK = torch.fft.rfft(waveform_BS)
        hertz_K = torch.arange(lines_BK.shape[1], device=waveform_BS.device) * (self.rate / max(1, samples))
        mel_K = 2595 * torch.log10(1 + hertz_K / 700)
        top = 2595 * math.log10(1 + self.rate / 2 / 700)
        width_B1 = draw.uniform(rows, 1, high=self.config.frequency_mask) * top
        start_B1 = draw.uniform(rows, 1) * (top - width_B1)
        kept_BK = (mel_K < start_B1) | (mel_K >= start_B1 + width_B1)
        out_BS: Tensor = torch.fft.irfft(lines_BK * kept_BK, n=samples)
        return out_BS


def loudness(waveform_BS: Tensor, real_BS: Tensor) -> Tensor:
    """Root mean square over a sound's own samples, (B, 1)."""
    power_B1 = torch.where(real_BS, waveform_BS, 0.0).square().sum(dim=1, keepdim=True)
    return (power_B1 / real_BS.sum(dim=1, keepdim=True).clamp_min(1)).sqrt()
