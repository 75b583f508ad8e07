"""Pictures to uint8 pixels of one size. Dimensions: B batch, H height, W width (H == W == size)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import Noted, is_absent, noted, only_column, sha256
from fuseline.modalities.media import read_media
from fuseline.modalities.picture import decode_picture, seen
from fuseline.recipe import Frozen


class ImageConfig(Frozen):
    size: int = Field(224, ge=8, le=4096, description="height and width in pixels that every picture is brought to")
    resize: Literal["stretch", "crop", "pad"] = Field(
        "stretch", description="stretch to the square, crop its middle, or pad the short side with black"
    )
    channels: Literal[3] = Field(3, description="always RGB; grey pictures are repeated")
    max_pixels: int = Field(100_000_000, ge=1, description="largest width x height that is decoded at all")
    max_bytes: int = Field(64 * 2**20, ge=1, description="largest file")
    sides: bool = Field(False, description="also hand over each picture's own width and height (detection needs them)")


class Image:
    """JPEG, PNG, WebP, BMP, GIF, TIFF or DICOM to (H, W, 3) uint8. The rules of decoding are in `picture.py`.

    A value is a :class:`Noted` array; its facts are the picture's own width and height, as it is seen: EXIF's
    orientation is applied. An absent picture is black, and its own sides are `size`.
    """

    Config: ClassVar[type[Frozen]] = ImageConfig
    file: ClassVar[bool] = True

    def __init__(self, config: ImageConfig, column: str) -> None:
        self.name = "image"
        self.config = config
        self.columns: tuple[str, ...] = (column,)
        self.lengths: dict[str, tuple[int, int]] = {}
        self.notes: tuple[str, ...] = ()
        self.size_px = config.size

    @classmethod
    def fit(
        cls,
        config: ImageConfig,
        columns: Mapping[str, str],
        cells: Iterable[Cells],
        media: MediaRoot,
    ) -> Image:
        """Reads no cell: the statistics of pixels belong to the encoder."""
        return cls(config, only_column(columns))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Image:
        return cls(ImageConfig.model_validate(state["config"]), state["column"])

    def state(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json"), "column": self.columns[0]}

    def parse(self, cells: Cells, media: MediaRoot) -> Noted | None:
        """(size, size, 3) uint8, or None. Raises FuselineError ``bad_cell``, ``unsafe_path`` or ``missing_extra``."""
        column, config = self.columns[0], self.config
        cell = cells.get(column)
        if is_absent(cell):
            return None
        data = read_media(cell, column, media, max_bytes=config.max_bytes)
        picture = decode_picture(data, cell, column, config.size, config.resize, config.max_pixels)
        return noted(picture.pixels, width=float(picture.width), height=float(picture.height))

    def collate(self, values: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """`pixels` (B, H, W, 3) uint8; with `sides` also `sides` (B, 2) float32: own width and height in pixels."""
        pixels_BHW3 = np.zeros((len(values), self.config.size, self.config.size, 3), dtype=np.uint8)
        for i, value in enumerate(values):
            if value is not None:
                pixels_BHW3[i] = value
        if not self.config.sides:
            return {"pixels": pixels_BHW3}
        return {"pixels": pixels_BHW3, "sides": np.array([self._sides(v) for v in values], np.float32).reshape(-1, 2)}

    def _sides(self, value: np.ndarray | None) -> tuple[float, float]:
        facts: dict[str, float] = getattr(value, "facts", {})
        return facts.get("width", float(self.config.size)), facts.get("height", float(self.config.size))

    def seen(self, value: np.ndarray) -> tuple[float, float, float, float] | None:
        """Which part of the original picture a value shows, as `seen` of `picture.py`; None: its sides are unknown."""
        facts: dict[str, float] = getattr(value, "facts", {})
        if not (facts.get("width", 0.0) > 0 and facts.get("height", 0.0) > 0):
            return None
        return seen(facts["width"], facts["height"], self.config.size, self.config.resize)

    def arrays(self) -> dict[str, ArraySpec]:
        pixels = ArraySpec("uint8", ("B", self.config.size, self.config.size, 3))
        return {"pixels": pixels, "sides": ArraySpec("float32", ("B", 2))} if self.config.sides else {"pixels": pixels}

    def digest(self, value: np.ndarray) -> bytes:
        own = repr(self._sides(value)).encode() if self.config.sides else b""
        return sha256(value) + own

    def size(self, value: np.ndarray) -> float:
        """Pixels."""
        return float(value.shape[0] * value.shape[1])

    def summary(self, value: np.ndarray) -> dict[str, float | str]:
        """Mean and spread of the pixels on a scale of 0 to 1, and the picture's own width and height in pixels."""
        facts: dict[str, float] = getattr(value, "facts", {})
        plain = np.asarray(value)
        return {"brightness": float(plain.mean()) / 255, "contrast": float(plain.std()) / 255, **facts}
