"""Videos to frames of one size at even times. Dimensions: B batch, N frames, H height, W width (H == W == size)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fuseline.data.items import items_of
from fuseline.errors import FuselineError
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import bad_cell, is_absent, only_column
from fuseline.modalities.clip import Limits, decode_clip
from fuseline.modalities.media import read_media
from fuseline.modalities.picture import decode_picture
from fuseline.recipe import Frozen


class VideoConfig(Frozen):
    frames: int = Field(8, ge=1, le=256, description="frames that are looked at, at even times over the clip")
    seconds: float = Field(30.0, gt=0, le=3600, description="only the first so many seconds are seen")
    size: int = Field(112, ge=8, le=1024, description="height and width in pixels that every frame is brought to")
    resize: Literal["stretch", "crop", "pad"] = Field(
        "stretch", description="stretch to the square, crop its middle, or pad the short side with black"
    )
    rate: float = Field(1.0, gt=0, le=1000, description="frames a second where a cell is a list of pictures")
    max_pixels: int = Field(40_000_000, ge=1, description="largest width x height that is decoded at all")
    max_frames: int = Field(20_000, ge=1, description="most frames that are decoded of one video")
    max_bytes: int = Field(512 * 2**20, ge=1, description="largest file")


@dataclass(frozen=True)
class Clip:
    """What is seen of one video: at most `frames` pictures."""

    pixels: np.ndarray
    """(n, H, W, 3) uint8"""
    seconds: np.ndarray
    """(n,) float32: when each stands, from the start"""
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.seconds.nbytes

    def __len__(self) -> int:
        return len(self.pixels)


class Video:
    """MP4, MOV, MKV, WebM, AVI, MPEG, OGV, FLV, WMV or an animated GIF, or a list of pictures, to frames.

    A cell is a file like a picture's (path, bytes, base64, data URI), or a list of pictures: a list column, a JSON
    list, or paths with `;` between them. The rules of decoding are in `clip.py`. An absent video is black.
    """

    Config: ClassVar[type[Frozen]] = VideoConfig
    file: ClassVar[bool] = True

    def __init__(self, config: VideoConfig, column: str) -> None:
        self.name = "video"
        self.config = config
        self.columns: tuple[str, ...] = (column,)
        self.lengths: dict[str, tuple[int, int]] = {}
        self.notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        config: VideoConfig,
        columns: Mapping[str, str],
        cells: Iterable[Cells],
        media: MediaRoot,
    ) -> Video:
        """Reads no cell: the statistics of pixels belong to the encoder."""
        return cls(config, only_column(columns))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Video:
        return cls(VideoConfig.model_validate(state["config"]), state["column"])

    def state(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json"), "column": self.columns[0]}

    def parse(self, cells: Cells, media: MediaRoot) -> Clip | None:
        """A clip, or None. Raises FuselineError ``bad_cell``, ``unsafe_path`` or ``missing_extra``."""
        column, config = self.columns[0], self.config
        cell = cells.get(column)
        if is_absent(cell):
            return None
        items = items_of(cell, files=True, nothing=lambda item: False)
        if len(items) != 1 or items[0] is not cell:
            return self._pictures(items, column, media)
        data = read_media(cell, column, media, max_bytes=config.max_bytes)
        limits = Limits(config.frames, config.seconds, config.max_pixels, config.max_frames)
        found = decode_clip(data, cell, column, config.size, config.resize, limits)
        return Clip(found.pixels, found.seconds, {"seconds": found.length, "cut": float(found.cut)})

    def _pictures(self, items: Sequence[Any], column: str, media: MediaRoot) -> Clip | None:
        """Evenly spaced ones of a list; where one is absent, its moment is."""
        config = self.config
        there = [
            place for place, item in enumerate(items) if not is_absent(item) and place / config.rate < config.seconds
        ]
        if not there:
            return None
        step = max(1.0, len(there) / config.frames)
        chosen = [there[int((i + 0.5) * step)] for i in range(min(config.frames, len(there)))]
        pixels = []
        for place in chosen:
            item = items[place]
            try:
                data = read_media(item, column, media, max_bytes=config.max_bytes)
                found = decode_picture(data, item, column, config.size, config.resize, config.max_pixels)
            except FuselineError as error:
                if error.code != "bad_cell":
                    raise
                raise bad_cell(column, f"frame {place + 1} of {len(items)}: {error.message}", error.hint) from None
            pixels.append(found.pixels)
        length = min(len(items) / config.rate, config.seconds)
        cut = float(len(items) / config.rate > config.seconds)
        seconds = np.array(chosen, dtype=np.float32) / np.float32(config.rate)
        return Clip(np.stack(pixels), seconds, {"seconds": length, "cut": cut})

    def blank(self) -> Clip:
        """A black clip of as many frames as one has, to measure with."""
        count, size = self.config.frames, self.config.size
        pixels = np.zeros((count, size, size, 3), dtype=np.uint8)
        return Clip(pixels, np.linspace(0, self.config.seconds, count, dtype=np.float32))

    def collate(self, values: Sequence[Clip | None]) -> dict[str, np.ndarray]:
        """`frames` (B, N, H, W, 3) uint8; `seconds` (B, N) float32; `real` (B, N) bool. A clip of fewer than N frames
        is followed by its last one, not real. An absent one is black, its first frame real."""
        count, size = self.config.frames, self.config.size
        frames = np.zeros((len(values), count, size, size, 3), dtype=np.uint8)
        seconds_BN = np.zeros((len(values), count), dtype=np.float32)
        real_BN = np.zeros((len(values), count), dtype=bool)
        real_BN[:, 0] = True
        for i, clip in enumerate(values):
            if clip is None:
                continue
            n = len(clip)
            frames[i, :n], frames[i, n:] = clip.pixels, clip.pixels[-1]
            seconds_BN[i, :n], seconds_BN[i, n:] = clip.seconds, clip.seconds[-1]
            real_BN[i, :n] = True
        return {"frames": frames, "seconds": seconds_BN, "real": real_BN}

    def arrays(self) -> dict[str, ArraySpec]:
        count, size = self.config.frames, self.config.size
        return {
            "frames": ArraySpec("uint8", ("B", count, size, size, 3)),
            "seconds": ArraySpec("float32", ("B", count)),
            "real": ArraySpec("bool", ("B", count)),
        }

    def digest(self, value: Clip) -> bytes:
        head = f"{value.pixels.shape}".encode()
        return hashlib.sha256(head + value.pixels.tobytes() + value.seconds.tobytes()).digest()

    def size(self, value: Clip) -> float:
        """Pixels of all frames."""
        return float(value.pixels[..., 0].size)

    def summary(self, value: Clip) -> dict[str, float | str]:
        """Seconds, frames, whether it was cut; brightness, contrast, and mean change from frame to frame, of 0 to 1."""
        plain = value.pixels.astype(np.float32) / 255
        motion = float(np.abs(np.diff(plain, axis=0)).mean()) if len(value) > 1 else 0.0
        return {
            "frames": float(len(value)),
            "brightness": float(plain.mean()),
            "contrast": float(plain.std()),
            "motion": motion,
            **value.facts,
        }
