"""Decoding one picture: the same bytes give the same pixels, and hostile bytes give an error, never a crash.

The rules:
- Orientation: EXIF's is applied. First frame of several. Colour profiles are ignored.
- Transparency is laid on white (drawings and scans are mostly dark on nothing).
- Deep grey pictures (16-bit, 32-bit, float, DICOM) are scaled linearly from the smallest to the largest finite value
  of the picture itself to 0..255, since what the full range means is not stored; a constant one is black; values that
  are not finite count as the smallest. 16-bit colour keeps its high byte.
- Scaling is bilinear with antialiasing. A JPEG of at least four times the wanted size is decoded at 1/2, 1/4 or 1/8
  by its own transform first, never below twice the wanted size: not bit-equal to a full decode, but always the same.
"""

from __future__ import annotations

import io
import struct
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as Pillow

from fuseline.errors import FuselineError
from fuseline.modalities.cells import bad_cell, shorten

_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_BILINEAR = Pillow.Resampling.BILINEAR
_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

_LYING = (5, 6, 7, 8)
"""turns after which width and height have changed places"""


class Picture(NamedTuple):
    pixels: np.ndarray
    """(size, size, 3) uint8"""
    width: int
    """in pixels, before it was scaled; as it is seen: its EXIF orientation is applied"""
    height: int


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Without the look for a resolution in EXIF, which no one needs here and which warns where EXIF is broken."""

    def _read_dpi_from_exif(self) -> None:
        return


def decode_picture(data: bytes, cell: Any, column: str, size: int, resize: str, max_pixels: int) -> Picture:
    """Bytes to (size, size, 3) uint8. Raises FuselineError ``bad_cell``, or ``missing_extra`` for DICOM."""
    if data[128:132] == b"DICM":
        from fuseline.modalities.dicom import decode_dicom

        grey = decode_dicom(data, cell, column, max_pixels)
        image: Pillow.Image = Pillow.fromarray(grey)
        return Picture(scale(image, size, resize, 1), image.width, image.height)
    with _quiet(data):
        try:
            image = _open(data, cell, column)
            width, height = image.size
            if width * height > max_pixels:
                hint = "raise the input's max_pixels if this is what the picture should be"
                raise bad_cell(column, f"{shorten(cell)} is {width} x {height} pixels, more than {max_pixels:,}", hint)
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                image.draft(None, (2 * size, 2 * size))
            image.load()
            turn = _orientation(image)
            if turn in _LYING:
                width, height = height, width
            return Picture(scale(_rgb(image), size, resize, turn), width, height)
        except FuselineError:
            raise
        except Exception as error:  # decoders raise nearly every kind on hostile bytes
            reason = str(error).strip().splitlines()[0][:100] if str(error).strip() else type(error).__name__
            raise bad_cell(
                column,
                f"cannot read the picture {shorten(cell)}: {reason}",
                "the file is damaged or cut short; replace it, or leave the cell empty",
            ) from None


def _open(data: bytes, cell: Any, column: str) -> ImageFile.ImageFile:
    # The classes are called by hand, not through Pillow's `open`: it would try a hundred formats, and warn about
    # large pictures (or refuse them) by a process-wide limit that is not ours to change.
    stream = io.BytesIO(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _Jpeg(stream)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(stream)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(stream)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile(stream)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImagePlugin.TiffImageFile(stream)
    if data.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(stream)
    raise bad_cell(
        column,
        f"{shorten(cell)} is no picture; it {_looks_like(data)}",
        "known: JPEG, PNG, WebP, BMP, GIF, TIFF, DICOM",
    )


def _looks_like(data: bytes) -> str:
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "holds a web page or XML (a failed download?)"
    if all(32 <= b < 127 or b in b"\t\r\n" for b in data[:256]):
        return f"holds text: {shorten(data[:40].decode('ascii'))}"
    return f"starts with the bytes {data[:8].hex(' ')}"


def _quiet(data: bytes) -> AbstractContextManager[Any]:
    """Silence Pillow's remarks on odd tags where the format can cause them.

    Not for every picture: entering `catch_warnings` makes Python forget which warnings it has shown already.
    """
    if data.startswith((b"GIF8", b"II", b"MM")) or b"acTL" in data[:256]:
        return warnings.catch_warnings(action="ignore", category=Warning)
    return nullcontext()


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF tag 274, 1 (as stored) where it is absent or nonsense. By hand: Pillow's reader warns on broken EXIF."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        value = image.tag_v2.get(274, 1)
        return value if isinstance(value, int) else 1
    exif = image.info.get("exif")
    if not isinstance(exif, bytes):
        return 1
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for i in range(min(count, 512)):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * i)
            if tag == 274 and kind == 3:
                return int(value)
    except struct.error:
        pass
    return 1


def _rgb(image: Pillow.Image) -> Pillow.Image:
    if image.mode in _DEEP:
        return Pillow.fromarray(to_bytes(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        drawn = image.convert("RGBA")
        white = Pillow.new("RGBA", drawn.size, (255, 255, 255, 255))
        return Pillow.alpha_composite(white, drawn).convert("RGB")
    if image.mode in ("RGB", "L"):
        return image
    return image.convert("RGB")


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Deep values to uint8 by the rule at the head of this file. Raises ValueError where none is finite."""
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no pixel is a finite number")
    low, high = float(values[finite].min()), float(values[finite].max())
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    # Halved first: the span of two huge floats may not be finite.
    scaled = (np.where(finite, values, low) / 2 - low / 2) / (high / 2 - low / 2)
    return np.asarray(np.rint(scaled * 255), dtype=np.uint8)


def scale(image: Pillow.Image, size: int, resize: str, turn: int = 1) -> np.ndarray:
    """(size, size, 3) uint8; `turn` is EXIF's number."""
    width, height = image.size
    box, target = (0.0, 0.0, float(width), float(height)), (size, size)
    if resize == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    elif resize == "pad":
        side = max(width, height)
        target = (max(1, round(width * size / side)), max(1, round(height * size / side)))
    scaled = image.resize(target, _BILINEAR, box=box)
    if turn in _TURNS:  # after scaling, where there is less to turn
        scaled = scaled.transpose(_TURNS[turn])
    pixels = np.asarray(scaled.convert("RGB"))
    if pixels.shape[:2] == (size, size):
        return pixels
    out = np.zeros((size, size, 3), dtype=np.uint8)
    top, left = (size - pixels.shape[0]) // 2, (size - pixels.shape[1]) // 2
    out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return out


def seen(width: float, height: float, size: int, resize: str) -> tuple[float, float, float, float]:
    """Which part of a picture :func:`scale` shows: left, top, right, bottom as shares of the picture's own sides.

    (0, 0, 1, 1) is all of it; within that a part was cropped; below 0 or above 1 black was added. `width` and `height`
    in pixels: of the picture as it is seen, its EXIF orientation applied.
    """
    if resize == "crop":
        side = min(width, height)
        left, top = (1 - side / width) / 2, (1 - side / height) / 2
        return left, top, 1 - left, 1 - top
    if resize == "pad":
        side = max(width, height)
        wide, high = max(1, round(width * size / side)), max(1, round(height * size / side))
        before, above = (size - wide) // 2, (size - high) // 2
        return -before / wide, -above / high, (size - before) / wide, (size - above) / high
    return 0.0, 0.0, 1.0, 1.0
