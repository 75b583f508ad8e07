"""Pictures of sound in the graph. Dimensions: B batch, S samples, T frames, F mel bins, N K frame samples in, out."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank


def real_samples(waveform_BS: Tensor, length_B: Tensor) -> Tensor:
    """(B, S) mask of each row's own samples."""
    return first(waveform_BS.shape[1], length_B, waveform_BS)


def first(count: int, real_B: Tensor, like: Tensor) -> Tensor:
    """(B, count) mask of each row's first `real_B` positions, on `like`'s device."""
    return torch.arange(count, device=like.device)[None] < real_B[:, None]


class Spectrum(nn.Module):
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
        self.spectrum = Spectrum(np.diag(hann), fft // 2 + 1, fft, hop)
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
        self.spectrum = Spectrum((hann @ emphasis @ remove_mean).T, self.FFT // 2 + 1, self.FFT, self.HOP)
        with warnings.catch_warnings():
            # 128 kaldi filters over 257 bins leave the lowest one empty, in the published models too.
            warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
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
        real_BT1 = first(self.frames, count_B, log_BTF).unsqueeze(-1)
        return (torch.where(real_BT1, log_BTF, 0.0) - self.mean) / self.scale, count_B
