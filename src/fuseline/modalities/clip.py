"""Decoding one video: the frames that stand at evenly spaced times. Dimensions: N frames, H W pixels (H == W).

The rules: a clip is its first `max_seconds`; it is divided into as many equal spans as frames are wanted, and each
gives the frame that stands in its middle, so that a slower camera shows the same moments. A clip of fewer frames gives
each once. A phone's rotation is applied. What a header says of lengths is not believed: the packets are counted.

The demuxer is chosen by the file's first bytes and may open nothing else: playlists, which name other files and
addresses, are no video here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow

from fuseline.data.media import container_of
from fuseline.errors import FuselineError
from fuseline.modalities.cells import bad_cell, shorten
from fuseline.modalities.picture import scale

_TURNS = {90: Pillow.Transpose.ROTATE_90, 180: Pillow.Transpose.ROTATE_180, 270: Pillow.Transpose.ROTATE_270}
_DAMAGED = "the file is damaged or cut short; replace it, or leave the cell empty"


class Limits(NamedTuple):
    frames: int
    """frames wanted"""
    seconds: float
    max_pixels: int
    max_frames: int


class Sampled(NamedTuple):
    pixels: np.ndarray
    """(N, size, size, 3) uint8, at most as many as were wanted"""
    seconds: np.ndarray
    """(N,) float32: when each stands, from the clip's start"""
    length: float
    """seconds of the clip, as far as it was looked at"""
    cut: bool
    """whether the file goes on after that"""


class _Index(NamedTuple):
    """What the packets say, before any is decoded."""

    times: np.ndarray
    """(P,) seconds of every frame from the first one's, in order"""
    start: float
    """seconds that the first frame's own clock shows"""
    length: float
    cut: bool


def decode_clip(data: bytes, cell: Any, column: str, size: int, resize: str, limits: Limits) -> Sampled:
    """Bytes of a video to frames. Raises FuselineError ``bad_cell``, or ``missing_extra`` without PyAV."""
    av = _pyav(column)
    kind = container_of(data[:512])
    if kind is None:
        raise bad_cell(
            column,
            f"{shorten(cell)} is no video that is known here",
            "known: MP4, MOV, MKV, WebM, AVI, MPEG, OGV, FLV, WMV, GIF",
        )
    try:
        with _opened(av, data, kind) as file:
            index = _index(file, _stream(av, file, cell, column, limits.max_pixels), data, kind, limits)
        span = index.length / limits.frames
        wanted = [(i + 0.5) * span for i in range(limits.frames)]
        with _opened(av, data, kind) as file:
            stream = _stream(av, file, cell, column, limits.max_pixels)
            found = list(_frames(file, stream, index, wanted, limits, size, resize))
    except _UnreadableError as error:
        raise bad_cell(column, f"the video {shorten(cell)} {error}", error.hint) from None
    except FuselineError:
        raise
    except Exception as error:  # PyAV raises an own kind for each of FFmpeg's numbers, and more on hostile bytes
        reason = (str(getattr(error, "strerror", "")) or str(error) or type(error).__name__).splitlines()[0][:100]
        raise bad_cell(column, f"cannot read the video {shorten(cell)}: {reason}", _DAMAGED) from None
    if not found:
        raise bad_cell(column, f"the video {shorten(cell)} has no frame that can be decoded", _DAMAGED)
    times, pixels = zip(*found, strict=True)
    return Sampled(np.stack(pixels), np.array(times, dtype=np.float32), index.length, index.cut)


class _UnreadableError(Exception):
    def __init__(self, what: str, hint: str = _DAMAGED) -> None:
        super().__init__(what)
        self.hint = hint


def _pyav(column: str) -> Any:
    try:
        import av
    except ImportError:
        raise FuselineError(
            "missing_extra", "videos need PyAV", "pip install 'fuseline[video]'", column=column
        ) from None
    return av


def _refuse(url: str, flags: int, options: Any) -> Any:
    raise PermissionError(f"a video may not open {url!r}")


def _opened(av: Any, data: bytes, kind: str) -> Any:
    return av.open(io.BytesIO(data), format=kind, io_open=_refuse, metadata_errors="replace")


def _stream(av: Any, file: Any, cell: Any, column: str, max_pixels: int) -> Any:
    """The first stream of moving pictures; an album's cover is none."""
    cover = av.stream.Disposition.attached_pic
    stream = next((s for s in file.streams.video if not s.disposition & cover), None)
    if stream is None:
        raise _UnreadableError("holds no stream of pictures", "a sound belongs into a column of modality audio")
    context = stream.codec_context
    if context.width * context.height > max_pixels:
        hint = "raise the input's max_pixels if this is what the video should be"
        raise _UnreadableError(f"is {context.width} x {context.height} pixels, more than {max_pixels:,}", hint)
    # A later frame may be larger than the header says: the decoder itself refuses it before it takes memory.
    context.options = {"max_pixels": str(max_pixels)}
    context.thread_count = 1  # rows are read in parallel already
    return stream


def _index(file: Any, stream: Any, data: bytes, kind: str, limits: Limits) -> _Index:
    base = float(stream.time_base)
    pause = 1 / float(stream.average_rate) if stream.average_rate else 0.0
    stamps: list[float] = []
    end, last, cut, count = 0.0, 0.0, False, 0
    for packet in file.demux():
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.stream is not stream:
            if stamp is not None and packet.time_base:
                end = max(end, float(stamp * packet.time_base))
            continue
        if not packet.size:  # the end of the stream
            continue
        count += 1
        if count > limits.max_frames:
            hint = "raise the input's max_frames, or lower its seconds"
            raise _UnreadableError(f"has more than {limits.max_frames:,} frames in {limits.seconds:g} seconds", hint)
        time = stamp * base if stamp is not None else len(stamps) * pause
        last = float(packet.duration * base) if packet.duration else pause
        stamps.append(time)
        # Packets come in the order of decoding: by that clock nothing earlier can follow.
        clock = packet.dts * base if packet.dts is not None else time
        if clock - min(stamps) >= limits.seconds:
            cut = True
            break
    if not stamps:
        raise _UnreadableError("has no frames")
    times = np.sort(np.array(stamps, dtype=np.float64))
    start = float(times[0])
    times -= start
    cut = cut or bool(times[-1] >= limits.seconds)
    if not cut:
        _whole(file, data, kind, pause, max(end, start + float(times[-1]) + last))
    times = times[times < limits.seconds]
    return _Index(times, start, float(min(times[-1] + max(last, 1e-3), limits.seconds)), cut)


def _whole(file: Any, data: bytes, kind: str, pause: float, end: float) -> None:
    """Raises where a file says that it is larger or longer than what is there."""
    claimed = (file.duration or 0) / 1e6
    if kind == "matroska" and end < 0.98 * claimed - max(pause, 0.02):
        raise _UnreadableError(f"announces {claimed:.3g} seconds, {end:.3g} are there")
    size = _announced(data, kind)
    if size > len(data):
        raise _UnreadableError(f"announces {size:,} bytes, {len(data):,} are there")
    if kind == "gif" and not data.rstrip(b"\0\r\n").endswith(b";"):
        raise _UnreadableError("ends before its end mark")


def _announced(data: bytes, kind: str) -> int:
    """Bytes that the outermost boxes of the file add up to; 0 where they do not say."""
    if kind == "avi":
        (size,) = struct.unpack_from("<I", data, 4)
        return 8 + size if 0 < size < 0xFFFFFFF0 else 0
    if kind != "mov":
        return 0
    at = 0
    while at + 16 <= len(data):
        size, large = struct.unpack_from(">I4xQ", data, at)
        size = large if size == 1 else len(data) - at if size == 0 else size
        if size < 8:
            return 0
        at += size
    return at


def _frames(
    file: Any, stream: Any, index: _Index, wanted: list[float], limits: Limits, size: int, resize: str
) -> Iterator[tuple[float, np.ndarray]]:
    """The frame that stands at each wanted time, each once. Stops decoding after the last."""
    before: tuple[float, Any] | None = None
    pause = 1 / float(stream.average_rate) if stream.average_rate else 0.0
    given, left = -1.0, list(wanted)
    for count, frame in enumerate(file.decode(stream)):
        if count > limits.max_frames + 64:
            raise _UnreadableError(f"decodes to more than {limits.max_frames:,} frames")
        if frame.is_corrupt:
            raise _UnreadableError("has a frame that is damaged")
        time = float(frame.time) - index.start if frame.time is not None else count * pause
        while left and before is not None and time > left[0]:
            left.pop(0)
            if before[0] != given:
                given = before[0]
                yield given, _pixels(before[1], size, resize)
        if not left:
            return
        before = (max(0.0, time), frame)
    if left and before is not None and before[0] != given:
        yield before[0], _pixels(before[1], size, resize)


def _pixels(frame: Any, size: int, resize: str) -> np.ndarray:
    image: Pillow.Image = frame.to_image()
    turn = _TURNS.get(int(frame.rotation) % 360)
    return scale(image if turn is None else image.transpose(turn), size, resize)
