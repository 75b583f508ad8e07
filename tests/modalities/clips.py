"""Videos made for tests: frames that say which they are, as files of any kind."""

from __future__ import annotations

import io

import av
import numpy as np

KINDS = {
    "mp4": ("mpeg4", "yuv420p"),
    "mov": ("mjpeg", "yuvj420p"),
    "matroska": ("mpeg4", "yuv420p"),
    "avi": ("mjpeg", "yuvj420p"),
    "webm": ("libvpx", "yuv420p"),
    "mpegts": ("mpeg2video", "yuv420p"),
    "mpeg": ("mpeg1video", "yuv420p"),
    "flv": ("flv", "yuv420p"),
    "gif": ("gif", "rgb8"),
    "asf": ("wmv2", "yuv420p"),
}


def ramp(count: int, width: int = 64, height: int = 48) -> np.ndarray:
    """(N, H, W, 3) grey frames, frame i of grey level 20 + 10 i."""
    level_N = 20 + 10 * np.arange(count)
    return np.broadcast_to(level_N[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def numbers(pixels_NHW3: np.ndarray) -> list[int]:
    """Which frames of a `ramp` these are."""
    return [int(n) for n in np.rint((pixels_NHW3.reshape(len(pixels_NHW3), -1).mean(1) - 20) / 10)]


def encoded(frames_NHW3: np.ndarray, rate: int = 10, kind: str = "mp4", **options: str) -> bytes:
    codec, pixels = KINDS[kind]
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=options) as out:
        stream = out.add_stream(codec, rate=rate, options={"b": "2000000"})
        stream.width, stream.height, stream.pix_fmt = frames_NHW3.shape[2], frames_NHW3.shape[1], pixels
        for frame in frames_NHW3:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return file.getvalue()


def sound_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()
