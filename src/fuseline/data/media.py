"""What a media cell is, by its first bytes; and where the file that it names lies."""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from typing import Any, Literal

Media = Literal["image", "audio"]
MEDIA: tuple[Media, ...] = ("image", "audio")


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGE_ENDINGS = word_set(".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .dcm .dicom")
AUDIO_ENDINGS = word_set(".wav .flac .ogg .oga .opus .mp3 .aif .aiff")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_MAGIC: tuple[tuple[bytes, Media], ...] = (
    (b"\xff\xd8\xff", "image"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"BM", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"fLaC", "audio"),
    (b"OggS", "audio"),
    (b"ID3", "audio"),
)


def kind_of_bytes(head: bytes) -> Media | None:
    """By the first bytes (at least 132 of them for DICOM)."""
    if head[:4] == b"RIFF":
        return "image" if head[8:12] == b"WEBP" else "audio" if head[8:12] == b"WAVE" else None
    if head[:4] == b"FORM":
        return "audio" if head[8:12] in (b"AIFF", b"AIFC") else None
    if head[128:132] == b"DICM":
        return "image"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:  # an MPEG layer III frame without a tag
        return "audio"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def kind_of_ending(text: str) -> Media | None:
    """By the name of a file."""
    ending = os.path.splitext(text)[1].lower()
    return "image" if ending in IMAGE_ENDINGS else "audio" if ending in AUDIO_ENDINGS else None


def is_url(text: str) -> bool:
    return bool(_URL.match(text))


def embedded_bytes(text: str) -> bytes | None:
    """The content of a data URI, or of base64 text that decodes to a known kind of media; None for anything else."""
    if text[:5].lower() == "data:":
        head, comma, body = text.partition(",")
        return _decoded(body) if comma and head.lower().endswith(";base64") else None
    if len(text) < 24 or "." in text[:64]:
        return None
    first = _decoded(text[:24])
    if first is None or (kind_of_bytes(first) is None and any(first)):  # DICOM begins with 128 zeros
        return None
    data = _decoded(text)
    return data if data is not None and kind_of_bytes(data[:256]) else None


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def find_file(text: str, root: Path | None) -> Path | None:
    """The file that a cell names: inside `root` (a real path), a regular file; None for anything else."""
    if root is None or len(text) > 1024 or "\0" in text or is_url(text):
        return None
    try:
        path = (root / text.strip().replace("\\", "/")).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None
    except (OSError, RuntimeError):  # a name too long, a loop of links
        return None


def read_head(cell: Any, root: Path | None) -> bytes | None:
    """The first bytes of a media cell, or None where it has none."""
    if isinstance(cell, bytes):
        return cell[:256]
    if not isinstance(cell, str):
        return None
    inside = embedded_bytes(cell)
    if inside is not None:
        return inside[:256]
    path = find_file(cell, root)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return file.read(256)
    except OSError:
        return None
