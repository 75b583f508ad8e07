"""What a media cell is, by its first bytes; and where the file that it names lies."""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from typing import Any, Literal

Media = Literal["image", "audio", "video"]
MEDIA: tuple[Media, ...] = ("image", "audio", "video")


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGE_ENDINGS = word_set(".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .dcm .dicom")
AUDIO_ENDINGS = word_set(".wav .flac .ogg .oga .opus .mp3 .aif .aiff")
VIDEO_ENDINGS = word_set(".mp4 .m4v .mov .3gp .mkv .webm .avi .mpg .mpeg .m2ts .mts .ogv .flv .wmv .asf")
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
    if head[:4] == b"RIFF" and head[8:12] != b"AVI ":
        return "image" if head[8:12] == b"WEBP" else "audio" if head[8:12] == b"WAVE" else None
    if head[:4] == b"FORM":
        return "audio" if head[8:12] in (b"AIFF", b"AIFC") else None
    if head[128:132] == b"DICM":
        return "image"
    if container_of(head) not in (None, "gif"):
        return "video"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:  # an MPEG layer III frame without a tag
        return "audio"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


_NO_VIDEOS = (b"M4A ", b"M4B ", b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")
"""kinds of MP4 file that are a sound or a picture"""
_CONTAINERS: tuple[tuple[bytes, str], ...] = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"\0\0\x01\xba", "mpeg"),
    (b"\0\0\x01\xb3", "mpegvideo"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)


def container_of(head: bytes) -> str | None:
    """FFmpeg's name of the container of moving pictures that begins so (at least 256 bytes of it)."""
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _NO_VIDEOS else "mov"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free") and head[:2] == b"\0\0":  # QuickTime before brands
        return "mov"
    if head[:4] == b"RIFF":
        return "avi" if head[8:12] == b"AVI " else None
    if head[:4] == b"OggS":
        return "ogg" if b"\x80theora" in head[:64] else None
    if head[:1] == b"G" and head[188:189] == b"G" and head[:4] != b"GIF8":
        return "mpegts"
    if head[4:5] == b"G" and head[196:197] == b"G":  # with a time stamp before each packet
        return "mpegts"
    return next((kind for magic, kind in _CONTAINERS if head.startswith(magic)), None)


def kind_of_ending(text: str) -> Media | None:
    """By the name of a file."""
    ending = os.path.splitext(text)[1].lower()
    kinds: tuple[tuple[frozenset[str], Media], ...] = (
        (IMAGE_ENDINGS, "image"),
        (AUDIO_ENDINGS, "audio"),
        (VIDEO_ENDINGS, "video"),
    )
    return next((kind for endings, kind in kinds if ending in endings), None)


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
