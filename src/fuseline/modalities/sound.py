"""Decoding one sound. Dimensions: S samples, N frames of the file, C channels.

The rules: channels are averaged; resampling is soxr's HQ; only the first `max_seconds` are decoded, whatever the header
claims. A file that holds less than its header says, and any NaN or infinite sample, is an error.
"""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from fuseline.errors import FuselineError
from fuseline.modalities.cells import bad_cell, shorten

_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF")
_MAX_RATE = 768_000
_MAX_CHANNELS = 64
_BLOCK = 1 << 18
_UNKNOWN_SIZES = (0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF)
"""what writers to a pipe put in a header whose sizes they cannot know"""


class Sound(NamedTuple):
    waveform: np.ndarray
    """(S,) float32"""
    cut: bool
    """whether the file goes on after what was decoded"""


def decode_sound(data: bytes, cell: Any, column: str, rate: int, max_seconds: float) -> Sound:
    """Bytes to float32 (S,) at `rate` samples per second. Raises FuselineError ``bad_cell``."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check(file, data, cell, column)
            limit = max(1, round(max_seconds * file.samplerate))
            claimed, source, kind = file.frames, file.samplerate, file.format
            try:
                mono_N = _read(file, limit + 1)
            except soundfile.LibsndfileError as error:
                raise _truncated(
                    cell, column, f"{claimed} samples are announced, reading stopped: {error.error_string}"
                ) from None
    except (soundfile.LibsndfileError, RuntimeError, ValueError, MemoryError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        hint = "known: WAV, FLAC, OGG, MP3, AIFF; the file is damaged, cut short, or no sound"
        raise bad_cell(column, f"cannot read the sound {shorten(cell)}: {str(reason)[:100]}", hint) from None
    if len(mono_N) == 0:
        raise bad_cell(column, f"the sound {shorten(cell)} has no samples")
    # An MP3 header's count may be off by the coder's delay, a frame or two.
    slack = 4608 if kind == "MP3" else 0
    if len(mono_N) + slack < min(claimed, limit):
        raise _truncated(cell, column, f"{claimed} samples are announced, {len(mono_N)} are there")
    if not np.isfinite(mono_N).all():
        raise bad_cell(column, f"the sound {shorten(cell)} holds NaN or infinite samples", "write it again as integers")
    cut = len(mono_N) > limit
    mono_N = mono_N[:limit]
    if source != rate:
        mono_N = soxr.resample(mono_N, source, rate, quality="HQ")
    return Sound(np.ascontiguousarray(mono_N, dtype=np.float32), cut)


def _check(file: soundfile.SoundFile, data: bytes, cell: Any, column: str) -> None:
    """What libsndfile forgives and we do not: absurd headers, and files shorter than they say."""
    if file.format not in _FORMATS:
        raise bad_cell(column, f"{shorten(cell)} is a sound of kind {file.format}", f"known: {', '.join(_FORMATS)}")
    if not 0 < file.samplerate <= _MAX_RATE or not 0 < file.channels <= _MAX_CHANNELS:
        what = f"{file.channels} channels at {file.samplerate} samples per second"
        raise bad_cell(column, f"the sound {shorten(cell)} claims {what}", "its header is damaged")
    if file.format in ("WAV", "WAVEX", "AIFF"):
        lacking = _chunk_lacks(data)
        if lacking:
            raise _truncated(cell, column, f"{lacking} bytes of samples are missing")
    elif file.format == "OGG" and _ogg_is_cut(data):
        raise _truncated(cell, column, "its last page is incomplete")


def _truncated(cell: Any, column: str, why: str) -> FuselineError:
    return bad_cell(
        column, f"the sound {shorten(cell)} is truncated or damaged: {why}", "replace the file, or leave the cell empty"
    )


def _read(file: soundfile.SoundFile, limit: int) -> np.ndarray:
    """The mean of the channels of at most `limit` frames, block by block: memory follows what is there, not claims."""
    parts: list[np.ndarray] = []
    left = limit
    while left > 0:
        block_NC = file.read(min(left, _BLOCK), dtype="float32", always_2d=True)
        if len(block_NC) == 0:
            break
        left -= len(block_NC)
        parts.append(block_NC[:, 0] if block_NC.shape[1] == 1 else block_NC.mean(axis=1, dtype=np.float32))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _chunk_lacks(data: bytes) -> int:
    """How many bytes the chunk of samples (WAV, AIFF) announces beyond the file's end; 0 where it tells nothing."""
    order = "<" if data[:4] == b"RIFF" else ">"
    at = 12
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(order + "I", data, at + 4)
        if data[at : at + 4] in (b"data", b"SSND"):
            return 0 if size in _UNKNOWN_SIZES else max(0, at + 8 + size - len(data))
        at += 8 + size + (size & 1)
    return 0


def _ogg_is_cut(data: bytes) -> bool:
    """Whether the last page ends beyond the file (RFC 3533: 27 bytes of header, a table of segments, the segments)."""
    at = data.rfind(b"OggS")
    if at + 27 > len(data):
        return True
    segments = data[at + 26]
    table = data[at + 27 : at + 27 + segments]
    return len(table) < segments or at + 27 + segments + sum(table) > len(data)
