"""Audio encoders with weights from outside. Dimensions: B batch, S samples, T tokens or frames, D width.

Three families: raw waveform (wav2vec 2.0, HuBERT, WavLM, UniSpeech), Whisper's encoder, and AST. What the library's
feature extractors do in numpy is done in the graph.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.hub import Weights, cannot_load, load_backbone, load_config, locate, preprocessor
from fuseline.lab.encoders.spectrograms import KaldiMel, WhisperMel, first, real_samples
from fuseline.lab.encoders.text_pretrained import masked_mean
from fuseline.lab.encoders.tuning import batch_norms_eval
from fuseline.lab.tokens import Tokens
from fuseline.modalities.audio import Audio
from fuseline.recipe import Frozen

RAW = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")
FAMILIES = (*RAW, "whisper", "audio-spectrogram-transformer")


class _Raw(nn.Module):
    """wav2vec 2.0 (Baevski et al. 2020) and its kin: a row's tokens equal the library's on the row alone, unpadded.

    Sounds shorter than the first token's receptive field count as that long.
    """

    def __init__(self, model: Any, config: Any, prep: dict[str, Any]) -> None:
        super().__init__()
        if getattr(config, "add_adapter", False):
            raise cannot_load("models with a length adapter are not supported", "choose one without (add_adapter)")
        if getattr(config, "conv_pos_batch_norm", False):
            raise cannot_load("models with a positional batch norm are not supported", "choose one with weight norm")
        self.convs: nn.ModuleList = model.feature_extractor.conv_layers
        self.project: nn.Module = model.feature_projection
        self.encoder: nn.Module = model.encoder
        self.group = config.feat_extract_norm == "group"
        self.sizes = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.standardise = bool(prep.get("do_normalize", True))
        field, step = 1, 1
        for kernel, stride in self.sizes:
            field, step = field + (kernel - 1) * step, step * stride
        self.field = field

    def forward(self, waveform: Tensor, length: Tensor) -> Tokens:
        length = length.clamp(min=1)
        real_BS = real_samples(waveform, length)
        wave_BS = torch.where(real_BS, waveform, 0.0)
        if self.standardise:
            count_B1 = length.unsqueeze(1).to(wave_BS.dtype)
            mean_B1 = wave_BS.sum(1, keepdim=True) / count_B1
            apart_BS = torch.where(real_BS, wave_BS - mean_B1, 0.0)
            wave_BS = apart_BS / torch.sqrt(apart_BS.square().sum(1, keepdim=True) / count_B1 + 1e-7)
        # As many zeros as make the shortest sound one token; they add no real token to a longer one.
        x_BDT = F.pad(wave_BS, (0, self.field - 1)).unsqueeze(1)
        count_B = length.clamp(min=self.field)
        for index, (layer, (kernel, stride)) in enumerate(zip(list[Any](self.convs), self.sizes, strict=True)):
            count_B = torch.div(count_B - kernel, stride, rounding_mode="floor") + 1
            if self.group and index == 0:
                x_BDT = layer.activation(_masked_group_norm(layer.conv(x_BDT), count_B, layer.layer_norm))
            else:
                x_BDT = layer(x_BDT)
        projected = self.project(x_BDT.transpose(1, 2))
        hidden_BTD: Tensor = projected[0] if isinstance(projected, tuple) else projected
        real_BT = first(hidden_BTD.shape[1], count_B, hidden_BTD)
        with warnings.catch_warnings():
            # WavLM's attention gives torch a bool mask beside a float one, which is right but deprecated there.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            return Tokens(self.encoder(hidden_BTD, attention_mask=real_BT).last_hidden_state, real_BT)


def _masked_group_norm(x_BDT: Tensor, count_B: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm of one channel a group over each row's first `count_B` frames: the library's own counts padding in."""
    real_B1T = first(x_BDT.shape[2], count_B, x_BDT).unsqueeze(1)
    count_B11 = count_B.to(x_BDT.dtype).view(-1, 1, 1)
    mean_BD1 = torch.where(real_B1T, x_BDT, 0.0).sum(2, keepdim=True) / count_B11
    apart_BDT = torch.where(real_B1T, x_BDT - mean_BD1, 0.0)
    scale_BD1 = torch.rsqrt(apart_BDT.square().sum(2, keepdim=True) / count_B11 + norm.eps)
    return apart_BDT * scale_BD1 * norm.weight[:, None] + norm.bias[:, None]


class _Whisper(nn.Module):
    """Whisper's encoder. It always runs on its full window (30 s); tokens past a row's end are masked after it."""

    def __init__(self, model: nn.Module, config: Any, prep: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        hop = int(prep.get("hop_length", 160))
        self.count = int(config.max_source_positions)
        self.step = 2 * hop
        self.mel = WhisperMel(config.num_mel_bins, 2 * self.count, _rate(prep), int(prep.get("n_fft", 400)), hop)

    def forward(self, waveform: Tensor, length: Tensor) -> Tokens:
        features = self.mel(torch.where(real_samples(waveform, length), waveform, 0.0))
        values_BTD: Tensor = self.model(features).last_hidden_state
        count_B = torch.div(length + (self.step - 1), self.step, rounding_mode="floor").clamp(min=1)
        return Tokens(values_BTD, first(self.count, count_B, values_BTD))


class _AST(nn.Module):
    """Audio spectrogram transformer: two class tokens, then patches, low frequencies first; past the end is masked."""

    def __init__(self, model: nn.Module, config: Any, prep: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        mean, std = float(prep.get("mean", -4.2677393)), float(prep.get("std", 4.5689974))
        if prep.get("do_normalize") is False:
            mean, std = 0.0, 0.5
        self.mel = KaldiMel(config.num_mel_bins, config.max_length, _rate(prep), mean, std)
        self.rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        self.columns = (config.max_length - config.patch_size) // config.time_stride + 1
        self.step = config.time_stride

    def forward(self, waveform: Tensor, length: Tensor) -> Tokens:
        wave_BS = torch.where(real_samples(waveform, length), waveform, 0.0)
        features_BTF, frames_B = self.mel(wave_BS, length)
        values_BTD: Tensor = self.model(features_BTF).last_hidden_state
        patches_B = torch.div(frames_B + (self.step - 1), self.step, rounding_mode="floor")
        real_BT = first(self.columns, patches_B, values_BTD).repeat(1, self.rows)
        return Tokens(
            values_BTD, torch.cat([torch.ones_like(real_BT[:, :1]), torch.ones_like(real_BT[:, :1]), real_BT], 1)
        )


def _rate(prep: dict[str, Any]) -> int:
    return int(prep.get("sampling_rate", 16_000))


class HFAudio(Encoder):
    """A pretrained sound encoder of transformers: wav2vec 2.0, HuBERT, WavLM, UniSpeech, Whisper's encoder, or AST.

    waveform (B, S) float32 in [-1, 1] and length (B,) in samples to tokens (B, T, D). ``tokens: pooled`` gives one: the
    mean of the real tokens, and for AST the mean of its two class tokens as the paper does. T is static for Whisper and
    AST, which see at most their own window (usually 30 s and 10 s). Of wav2vec2-like models the mask embedding of
    pre-training is left out.
    """

    class Config(Frozen):
        source: str = Field(description="local folder or hub id")
        revision: str | None = Field(None, description="branch, tag or commit on the hub")
        weights: Weights = Field("pretrained", description="random: the architecture alone")
        tokens: Literal["all", "pooled"] = Field("all", description="one token a frame, or one in all")
        max_seconds: float | None = Field(None, gt=0, description="longer sounds are cut; default: the model's window")

        @property
        def pretrained(self) -> bool:
            return self.weights == "pretrained"

    pretrained: ClassVar[bool] = True

    def __init__(self, config: Config, modality: Audio) -> None:
        super().__init__(config, modality)
        loaded = load_backbone(config.source, revision=config.revision, weights=config.weights)
        prep = preprocessor(loaded.folder)
        rate = modality.config.sample_rate
        if rate != _rate(prep):
            raise FuselineError(
                "bad_recipe",
                f"{config.source} hears {_rate(prep)} samples a second, the input gives {rate}",
                f"sample_rate: {_rate(prep)}, or leave it out",
            )
        family = _family(config.source, loaded.config)
        self.backbone = family(loaded.model, loaded.config, prep)
        self.width = int(loaded.config.hidden_size)
        self.pooled = config.tokens == "pooled"
        self.class_tokens = family is _AST

    @classmethod
    def cell_options(cls, config: Config) -> dict[str, Any]:
        folder = locate(config.source, revision=config.revision, config_only=True)
        own, prep = load_config(folder), preprocessor(folder)
        family = _family(config.source, own)
        options: dict[str, Any] = {"sample_rate": _rate(prep)}
        window: float | None = None
        if family is _Whisper:
            window = 2 * own.max_source_positions * int(prep.get("hop_length", 160)) / _rate(prep)
        elif family is _AST:
            window = ((own.max_length - 1) * KaldiMel.HOP + KaldiMel.FRAME) / _rate(prep)
        if config.max_seconds is not None and window is not None and config.max_seconds > window:
            raise FuselineError(
                "bad_recipe", f"{config.source} hears at most {window:g} s, not {config.max_seconds:g}", "leave it out"
            )
        seconds = config.max_seconds or window
        return options if seconds is None else {**options, "max_seconds": seconds}

    def train(self, mode: bool = True) -> HFAudio:
        super().train(mode)
        batch_norms_eval(self)
        return self

    def forward(self, waveform: Tensor, length: Tensor) -> Tokens:  # type: ignore[override]
        tokens: Tokens = self.backbone(waveform, length)
        if not self.pooled:
            return tokens
        if self.class_tokens:
            return Tokens(tokens.values_BTD[:, :2].mean(1, keepdim=True), tokens.mask_BT[:, :1])
        return masked_mean(tokens.values_BTD, tokens.mask_BT)


def _family(source: str, config: Any) -> type[_Raw] | type[_Whisper] | type[_AST]:
    match config.model_type:
        case "whisper":
            return _Whisper
        case "audio-spectrogram-transformer":
            return _AST
        case kind if kind in RAW:
            return _Raw
        case kind:
            raise cannot_load(
                f"{source}: sound models of type {kind!r} are not supported", f"known: {', '.join(FAMILIES)}"
            )
