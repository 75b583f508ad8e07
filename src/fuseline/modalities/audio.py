"""Sounds to float32 waveforms of one rate. Dimensions: B batch, S samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import Noted, is_absent, noted, only_column, sha256
from fuseline.modalities.media import read_media
from fuseline.modalities.sound import decode_sound
from fuseline.recipe import Frozen

HOP = 160
"""Batches are as long as their longest sound, rounded up to this many samples: fewer shapes to compile and cache."""


class AudioConfig(Frozen):
    sample_rate: int = Field(16_000, ge=1_000, le=192_000, description="samples per second after resampling")
    max_seconds: float = Field(10.0, gt=0, le=3600, description="only the first so many seconds are heard")
    min_seconds: float = Field(0.1, gt=0, description="shorter sounds are followed by silence up to this")
    max_bytes: int = Field(256 * 2**20, ge=1, description="largest file")

    @model_validator(mode="after")
    def _ordered(self) -> AudioConfig:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds:g} is above max_seconds {self.max_seconds:g}")
        return self


class Audio:
    """WAV, FLAC, OGG, MP3 or AIFF to one channel at one rate. The rules of decoding are in `sound.py`.

    A value is a float32 (S,) :class:`Noted` array, at least `min_seconds` and at most `max_seconds` long; its fact
    `cut` is 1 where the sound went on. An absent sound is the shortest silence.
    """

    Config: ClassVar[type[Frozen]] = AudioConfig
    file: ClassVar[bool] = True

    def __init__(self, config: AudioConfig, column: str) -> None:
        self.name = "audio"
        self.config = config
        self.columns: tuple[str, ...] = (column,)
        self.notes: tuple[str, ...] = ()
        self.min_samples = max(1, round(config.min_seconds * config.sample_rate))
        self.max_samples = max(self.min_samples, round(config.max_seconds * config.sample_rate))
        self.lengths = {"S": (_round_up(self.min_samples), _round_up(self.max_samples))}

    @classmethod
    def fit(
        cls,
        config: AudioConfig,
        columns: Mapping[str, str],
        cells: Iterable[Cells],
        media: MediaRoot,
    ) -> Audio:
        """Reads no cell: the statistics of spectra belong to the encoder."""
        return cls(config, only_column(columns))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Audio:
        return cls(AudioConfig.model_validate(state["config"]), state["column"])

    def state(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json"), "column": self.columns[0]}

    def parse(self, cells: Cells, media: MediaRoot) -> Noted | None:
        """(S,) float32, or None. Raises FuselineError ``bad_cell`` or ``unsafe_path``."""
        column, rate = self.columns[0], self.config.sample_rate
        cell = cells.get(column)
        if is_absent(cell):
            return None
        data = read_media(cell, column, media, max_bytes=self.config.max_bytes)
        sound = decode_sound(data, cell, column, rate, self.config.max_seconds)
        waveform_S = sound.waveform[: self.max_samples]
        if len(waveform_S) < self.min_samples:
            waveform_S = np.pad(waveform_S, (0, self.min_samples - len(waveform_S)))
        return noted(waveform_S, cut=float(sound.cut))

    def collate(self, values: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """`waveform` (B, S) float32, silent after each sound's end; `length` (B,) int64 in samples."""
        length_B = np.array([self.min_samples if v is None else len(v) for v in values], dtype=np.int64)
        longest = int(length_B.max(initial=self.min_samples))
        waveform_BS = np.zeros((len(values), _round_up(longest)), dtype=np.float32)
        for i, value in enumerate(values):
            if value is not None:
                waveform_BS[i, : len(value)] = value
        return {"waveform": waveform_BS, "length": length_B}

    def arrays(self) -> dict[str, ArraySpec]:
        return {"waveform": ArraySpec("float32", ("B", "S")), "length": ArraySpec("int64", ("B",))}

    def digest(self, value: np.ndarray) -> bytes:
        return sha256(value)

    def size(self, value: np.ndarray) -> float:
        """Seconds."""
        return len(value) / self.config.sample_rate

    def summary(self, value: np.ndarray) -> dict[str, float | str]:
        """Seconds, loudness (root mean square in dB of full scale, at least -120), peak, and whether it was cut."""
        plain = np.asarray(value, dtype=np.float64)
        power = float(np.mean(plain**2))
        return {
            "seconds": self.size(value),
            "loudness": 10 * float(np.log10(max(power, 1e-12))),
            "peak": float(np.abs(plain).max()),
            "cut": float(getattr(value, "facts", {}).get("cut", 0.0)),
        }


def _round_up(samples: int) -> int:
    return -(-samples // HOP) * HOP
