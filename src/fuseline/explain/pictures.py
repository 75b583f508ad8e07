"""Heat over pictures, spectrograms and series, drawn without a plotting library: a server has none.

Dimensions: H height, W width, S samples, F frequencies, T frames, L steps, C channels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

FOR, AGAINST = (214, 90, 24), (36, 102, 178)
"""colours of what speaks for and against the answer; told apart by those who do not see red and green, too"""
SIDE = 320
_DARK_TO_BRIGHT = np.array([(8, 10, 30), (60, 24, 98), (150, 44, 100), (226, 100, 60), (250, 188, 80), (252, 253, 200)])
_WINDOW = 512


def data_uri(pixels: np.ndarray, kind: str = "JPEG") -> str:
    """(H, W, 3) uint8 as an image's source."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, kind, quality=88)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def sized(pixels: np.ndarray, aspect: float = 1.0) -> np.ndarray:
    """As large as it is shown. `aspect`: width over height of the picture before it was stretched."""
    aspect = min(max(aspect, 0.25), 4.0)
    size = (SIDE, max(1, round(SIDE / aspect))) if aspect >= 1 else (max(1, round(SIDE * aspect)), SIDE)
    return np.asarray(Image.fromarray(np.asarray(pixels)).resize(size, Image.Resampling.BICUBIC))


def heat(
    pixels: np.ndarray, places: Sequence[Sequence[float]], values: Sequence[float], most: float, aspect: float = 1.0
) -> np.ndarray:
    """The picture in grey with each box (shares of the sides) tinted by its value, fully where it is `most`."""
    shown = sized(pixels, aspect).astype(np.float64)
    grey = np.repeat(shown.mean(axis=2, keepdims=True), 3, axis=2)
    height, width = grey.shape[:2]
    for (left, top, right, bottom), value in zip(places, values, strict=True):
        rows = slice(round(top * height), round(bottom * height))
        columns = slice(round(left * width), round(right * width))
        alpha = 0.75 * abs(value) / most
        colour = np.array(FOR if value > 0 else AGAINST, dtype=np.float64)
        grey[rows, columns] = (1 - alpha) * grey[rows, columns] + alpha * colour
    return np.asarray(grey.round(), dtype=np.uint8)


def spectrogram(wave_S: np.ndarray, width: int = 720, height: int = 150) -> np.ndarray:
    """Log power of a Hann-windowed short-time Fourier transform, low frequencies at the bottom, (H, W, 3) uint8."""
    wave = np.asarray(wave_S, dtype=np.float64)
    window = min(_WINDOW, max(16, len(wave)))
    wave = np.pad(wave, (window // 2, window))
    starts = np.linspace(0, len(wave) - window - window // 2, min(width, max(2, len(wave) // 64))).astype(int)
    frames_TW = np.stack([wave[s : s + window] for s in starts]) * np.hanning(window)
    power_TF = np.log10(np.abs(np.fft.rfft(frames_TW, axis=1)) ** 2 + 1e-10)
    top = float(power_TF.max())
    level_FT = np.clip((power_TF.T[::-1] - (top - 6)) / 6, 0, 1)  # 60 dB
    grey = Image.fromarray((level_FT * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    at = np.asarray(grey, dtype=np.float64) / 255 * (len(_DARK_TO_BRIGHT) - 1)
    low = np.minimum(at.astype(int), len(_DARK_TO_BRIGHT) - 2)
    share = (at - low)[..., None]
    return np.asarray(((1 - share) * _DARK_TO_BRIGHT[low] + share * _DARK_TO_BRIGHT[low + 1]).round(), dtype=np.uint8)


def strip(spans: Sequence[Sequence[float]], values: Sequence[float], most: float, end: float, height: int = 56) -> str:
    """Bars up (for) and down (against) over [0, end], of full height where a value is `most`: SVG as wide as its
    place."""
    middle = height / 2
    bars = []
    for (start, stop), value in zip(spans, values, strict=True):
        size = abs(value) / most * (middle - 2)
        top = middle - size if value > 0 else middle
        kind = "for" if value > 0 else "against"
        x, wide = 1000 * start / end, max(1.0, 1000 * (stop - start) / end - 2)
        bars.append(f'<rect class="{kind}" x="{x:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{size:.1f}"/>')
    line = f'<line x1="0" x2="1000" y1="{middle}" y2="{middle}"/>'
    return f'<svg class="strip" viewBox="0 0 1000 {height}" preserveAspectRatio="none">{"".join(bars)}{line}</svg>'


def lines(series_LC: np.ndarray, height: int = 120, most: int = 8) -> str:
    """The first channels of a series, each on a scale of its own, gaps left open, as SVG."""
    paths = []
    for channel in np.asarray(series_LC, dtype=np.float64).T[:most]:
        known = channel[~np.isnan(channel)]
        if not len(known):
            continue
        low, span = float(known.min()), float(np.ptp(known)) or 1.0
        drawn, pen = [], False
        for i, number in enumerate(channel):
            if np.isnan(number):
                pen = False
                continue
            x, y = 1000 * (i + 0.5) / len(channel), height - 6 - (height - 12) * (number - low) / span
            drawn.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}")
            pen = True
        paths.append(f'<path d="{" ".join(drawn)}"/>')
    return f'<svg class="lines" viewBox="0 0 1000 {height}" preserveAspectRatio="none">{"".join(paths)}</svg>'
