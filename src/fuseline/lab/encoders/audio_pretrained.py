"""Audio encoders with weights from outside. Dimensions: B batch, S samples, T tokens or frames, F mel bins, D width.

Three families: raw waveform (wav2vec 2.0, HuBERT, WavLM, UniSpeech), Whisper's encoder, and AST. What the library's
feature extractors do in numpy is done here in the graph.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.hub import Weights, cannot_load, load_backbone, load_config, locate, preprocessor
from fuseline.lab.encoders.text_pretrained import masked_mean
from fuseline.lab.encoders.tuning import batch_norms_eval
from fuseline.lab.tokens import Tokens
from fuseline.modalities.base import Modality
from fuseline.recipe import Frozen

RAW = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")
FAMILIES = (*RAW, "whisper", "audio-spectrogram-transformer")


def _real_samples(waveform_BS: Tensor, length_B: Tensor) -> Tensor:
    return torch.arange(waveform_BS.shape[1], device=waveform_BS.device)[None] < length_B[:, None]


def _first(count: int | Tensor, real_B: Tensor, like: Tensor) -> Tensor:
    """(B, count) mask of each row's first `real_B` positions."""
    return torch.arange(count, device=like.device)[None] < real_B[:, None]


class _Spectrum(nn.Module):
    """Windowed DFT as one convolution: (B, S) to power (B, T, bins), in frames of `basis`'s length."""

    basis: Tensor

    def __init__(self, frame_NK: np.ndarray, bins: int, fft: int, hop: int) -> None:
        """`frame_NK`: a linear map applied to each frame of N samples (window, pre-emphasis, ...), K = N outputs."""
        super().__init__()
        samples = frame_NK.shape[1]
        angle = 2 * np.pi * np.arange(bins)[:, None] * np.arange(samples)[None] / fft
        rows = np.concatenate([np.cos(angle), -np.sin(angle)]) @ frame_NK.T
        self.register_buffer("basis", torch.tensor(rows, dtype=torch.float32).unsqueeze(1), persistent=False)
        self.bins, self.hop = bins, hop

    def forward(self, wave_BS: Tensor) -> Tensor:
        parts = F.conv1d(wave_BS.unsqueeze(1), self.basis, stride=self.hop)
        power: Tensor = parts[:, : self.bins].square() + parts[:, self.bins :].square()
        return power.transpose(1, 2)


class WhisperMel(nn.Module):
    """Whisper's log-mel picture (Radford et al. 2022), always of the encoder's full length: (B, S) to (B, F, T).

    As WhisperFeatureExtractor: 30 s of silence-padded sound (longer is cut), Hann frames of 400 every 160 samples with
    reflected edges, slaney mel filters, log10, floor 8 below the row's maximum, (x + 4) / 4.
    """

    filters: Tensor

    def __init__(self, mels: int, frames: int, rate: int, fft: int, hop: int) -> None:
        super().__init__()
        self.samples, self.fft = frames * hop, fft
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft) / fft)
        self.spectrum = _Spectrum(np.diag(hann), fft // 2 + 1, fft, hop)
        filters = mel_filter_bank(fft // 2 + 1, mels, 0.0, 8000.0, rate, norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32), persistent=False)

    def forward(self, wave_BS: Tensor) -> Tensor:
        fixed = F.pad(wave_BS, (0, self.samples))[:, : self.samples]
        edge = self.fft // 2
        power = self.spectrum(F.pad(fixed.unsqueeze(1), (edge, edge), mode="reflect").squeeze(1))[:, :-1]
        log_BTF = torch.log10((power @ self.filters).clamp(min=1e-10))
        top_B11 = log_BTF.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log_BTF, top_B11 - 8.0).transpose(1, 2) + 4.0) / 4.0


class KaldiMel(nn.Module):
    """AST's log-mel frames (Gong et al. 2021), always of the model's full length: (B, S), (B,) to (B, T, F), (B,).

    As ASTFeatureExtractor's numpy path: frames of 25 ms every 10 ms without padding, mean of each frame removed,
    pre-emphasis 0.97, symmetric Hann, DFT of 512, kaldi mel filters from 20 Hz, natural log, frames past the end zero,
    then (x - mean) / (2 std). The second result counts each row's frames.
    """

    filters: Tensor
    FRAME, HOP, FFT = 400, 160, 512

    def __init__(self, mels: int, frames: int, rate: int, mean: float, std: float) -> None:
        super().__init__()
        n = self.FRAME
        self.frames, self.mean, self.scale = frames, mean, 2 * std
        self.samples = (frames - 1) * self.HOP + n
        # All that happens to a frame before the power is linear, so that it is one matrix, made in double precision.
        remove_mean = np.eye(n) - 1.0 / n
        emphasis = np.eye(n) - 0.97 * np.eye(n, k=-1)
        emphasis[0, 0] = 1 - 0.97
        hann = np.diag(np.hanning(n))
        self.spectrum = _Spectrum((hann @ emphasis @ remove_mean).T, self.FFT // 2 + 1, self.FFT, self.HOP)
        filters = mel_filter_bank(
            self.FFT // 2 + 1,
            mels,
            20.0,
            rate // 2,
            rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32), persistent=False)

    def forward(self, wave_BS: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        fixed = F.pad(wave_BS, (0, self.samples))[:, : self.samples]
        log_BTF = torch.log((self.spectrum(fixed) @ self.filters).clamp(min=1.192092955078125e-07))
        # A sound shorter than one frame counts as one.
        count_B = (torch.div(length_B - self.FRAME, self.HOP, rounding_mode="floor") + 1).clamp(1, self.frames)
        real_BT1 = _first(self.frames, count_B, log_BTF).unsqueeze(-1)
        return (torch.where(real_BT1, log_BTF, 0.0) - self.mean) / self.scale, count_B


class _Raw(nn.Module):
    """wav2vec 2.0 (Baevski et al. 2020) and its kin: a row's tokens equal the library's on the row alone, unpadded.

    Sounds shorter than the first token's receptive field count as that long.
    """

    def __init__(self, model: nn.Module, config: Any, prep: dict[str, Any]) -> None:
        super().__init__()
        if getattr(config, "add_adapter", False):
            raise cannot_load("models with a length adapter are not supported", "choose one without (add_adapter)")
        if getattr(config, "conv_pos_batch_norm", False):
            raise cannot_load("models with a positional batch norm are not supported", "choose one with weight norm")
        self.model = model
        self.group = config.feat_extract_norm == "group"
        self.convs = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
        self.standardise = bool(prep.get("do_normalize", True))
        self.wavlm = config.model_type == "wavlm"
        field, step = 1, 1
        for kernel, stride in self.convs:
            field, step = field + (kernel - 1) * step, step * stride
        self.field = field

    def forward(self, waveform: Tensor, length: Tensor) -> Tokens:
        length = length.clamp(min=1)
        real_BS = _real_samples(waveform, length)
        wave_BS = torch.where(real_BS, waveform, 0.0)
        if self.standardise:
            count_B1 = length.unsqueeze(1).to(wave_BS.dtype)
            mean_B1 = wave_BS.sum(1, keepdim=True) / count_B1
            apart_BS = torch.where(real_BS, wave_BS - mean_B1, 0.0)
            wave_BS = apart_BS / torch.sqrt(apart_BS.square().sum(1, keepdim=True) / count_B1 + 1e-7)
        x_BDT = F.pad(wave_BS, (0, self.field - 1)).unsqueeze(1)
        count_B = length.clamp(min=self.field)
        for index, (layer, (kernel, stride)) in enumerate(
            zip(self.model.feature_extractor.conv_layers, self.convs, strict=True)  # type: ignore[union-attr, arg-type]
        ):
            count_B = torch.div(count_B - kernel, stride, rounding_mode="floor") + 1
            if self.group and index == 0:
                x_BDT = layer.activation(_masked_group_norm(layer.conv(x_BDT), count_B, layer.layer_norm))
            else:
                x_BDT = layer(x_BDT)
        projected = self.model.feature_projection(x_BDT.transpose(1, 2))  # type: ignore[operator]
        hidden_BTD = projected[0] if isinstance(projected, tuple) else projected
        real_BT = _first(hidden_BTD.shape[1], count_B, hidden_BTD)
        if not self.wavlm:
            return Tokens(self.model.encoder(hidden_BTD, attention_mask=real_BT).last_hidden_state, real_BT)  # type: ignore[operator]
        with warnings.catch_warnings():
            # Its attention gives torch a bool mask beside a float one, which is right but deprecated there.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            return Tokens(self.model.encoder(hidden_BTD, attention_mask=real_BT).last_hidden_state, real_BT)  # type: ignore[operator]


def _masked_group_norm(x_BDT: Tensor, count_B: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm of one channel a group over each row's first `count_B` frames: the library's own counts padding in."""
    real_B1T = _first(x_BDT.shape[2], count_B, x_BDT).unsqueeze(1)
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
        features = self.mel(torch.where(_real_samples(waveform, length), waveform, 0.0))
        values_BTD: Tensor = self.model(features).last_hidden_state
        count_B = torch.div(length + (self.step - 1), self.step, rounding_mode="floor").clamp(min=1)
        return Tokens(values_BTD, _first(self.count, count_B, values_BTD))


class _AST(nn.Module):
    """Audio spectrogram transformer. Two class tokens, then patches, low frequencies first; silence past the end is masked."""

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
        wave_BS = torch.where(_real_samples(waveform, length), waveform, 0.0)
        features_BTF, frames_B = self.mel(wave_BS, length)
        values_BTD: Tensor = self.model(features_BTF).last_hidden_state
        patches_B = torch.div(frames_B + (self.step - 1), self.step, rounding_mode="floor")
        real_BT = _first(self.columns, patches_B, values_BTD).repeat(1, self.rows)
        return Tokens(
            values_BTD, torch.cat([torch.ones_like(real_BT[:, :1]), torch.ones_like(real_BT[:, :1]), real_BT], 1)
        )


def _rate(prep: dict[str, Any]) -> int:
    return int(prep.get("sampling_rate", 16_000))


class HFAudio(Encoder):
    """A pretrained sound encoder of transformers: wav2vec 2.0, HuBERT, WavLM, UniSpeech, Whisper's encoder, or AST.

    waveform (B, S) float32 in [-1, 1] and length (B,) in samples to tokens (B, T, D). ``tokens: pooled`` gives one: the mean of
    the real tokens, and for AST the mean of its two class tokens as the paper does. T is static for Whisper and AST, which see
    at most their own window (usually 30 s and 10 s).
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

    def __init__(self, config: Config, modality: Modality) -> None:
        super().__init__(config, modality)
        loaded = load_backbone(config.source, revision=config.revision, weights=config.weights)
        prep = preprocessor(loaded.folder)
        rate = getattr(modality, "sample_rate", _rate(prep))
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
        return masked_mean(*tokens)


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
