"""A video's frames, or the pictures of a set, beside each other as one small picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from fuseline.modalities.base import MediaRoot
from fuseline.modalities.several import Images, ImagesConfig
from fuseline.modalities.video import Video, VideoConfig

SIDE = 80
"""pixels of each"""
MOST = 6
MAX_PIXELS = 100_000_000


def strip_of(modality: str, cell: Any, column: str, media: MediaRoot) -> tuple[np.ndarray | None, str]:
    """(H, W, 3) uint8, or None where the cell holds nothing, and what is to be said of it.

    Raises FuselineError as the modality does.
    """
    if modality == "video":
        clip = Video(VideoConfig(size=SIDE, resize="pad", frames=MOST), column).parse({column: cell}, media)
        pictures = [] if clip is None else list(clip.pixels)
        said = "" if clip is None else f"{clip.facts['seconds']:.1f} s, {len(pictures)} frames shown"
    else:
        options = ImagesConfig(size=SIDE, resize="pad", several=MOST, max_pixels=MAX_PIXELS)
        items = Images.fit(options, {column: ""}, (), media).parse({column: cell}, media)
        pictures = [] if items is None else [np.asarray(p) for p in items]
        said = "" if items is None else f"{len(pictures)} of {len(pictures) + items.left_out} pictures shown"
    return (np.concatenate(pictures, axis=1) if pictures else None), said
