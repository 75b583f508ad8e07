"""One cell as the page shows it: a thumbnail, a sound, a shortened text, the numbers."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from fuseline.data.items import items_of
from fuseline.data.series import read_series
from fuseline.data.words import read_words
from fuseline.errors import FuselineError
from fuseline.lab.report import boxed
from fuseline.lab.report.read import number
from fuseline.lab.report.strip import strip_of
from fuseline.lab.report.words import clean, fmt, percent
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.media import read_media
from fuseline.modalities.picture import decode_picture

THUMBNAIL = 160
"""pixels of the longer side"""
TEXT = 400
"""characters of a text that are shown"""
COLUMNS = 16
"""columns of one input that are shown"""
LARGEST_SOUND = 300_000
"""bytes of a sound that is put into the page"""
ALL_MEDIA = 2_500_000
"""bytes of media in the whole page; base64 makes a third more of it"""
LARGEST_FILE = 64 * 2**20
MAX_PIXELS = 100_000_000
WAVE = 120
"""bars of a drawn sound"""
STEPS = 6
"""numbers of a forecast that are written out"""


@dataclass
class CellView:
    """One cell, ready for the page. `alt` is what a picture or sound is called for those who cannot see or hear it."""

    name: str
    text: str = ""
    note: str = ""
    absent: bool = False
    image: str = ""
    width: int = 0
    height: int = 0
    audio: str = ""
    wave: list[float] = field(default_factory=list)
    alt: str = ""


@dataclass
class Budget:
    left: int = ALL_MEDIA

    def take(self, octets: int) -> bool:
        if octets > self.left:
            return False
        self.left -= octets
        return True


def view_of(
    name: str,
    modality: str,
    cells: dict[str, Any],
    columns: int,
    media: MediaRoot,
    budget: Budget,
    found: boxed.Boxed | None,
) -> CellView:
    view = CellView(clean(name, 60))
    column, cell = next(iter(cells.items()))
    try:
        if modality == "image":
            _picture(view, cell, column, media, budget, found)
        elif modality in ("video", "images"):
            _strip(view, modality, cell, column, media, budget)
        elif modality == "document":
            _page(view, cells, media, budget)
        elif modality == "texts":
            items = items_of(cell, files=False)
            view.text = clean(" · ".join(map(str, items)), TEXT)
            view.note = f"{len(items)} texts"
        elif modality == "audio":
            _sound(view, cell, column, media, budget)
        elif modality == "timeseries":
            _series(view, cell, column)
        elif modality == "text" or (columns == 1 and column == name):
            view.text = clean(cell, TEXT)
        else:
            pairs = [f"{clean(k, 40)} {written(v)}" for k, v in list(cells.items())[:COLUMNS]]
            more = len(cells) - len(pairs)
            view.text = " · ".join(pairs) + (f" · and {more} more" if more else "")
            view.note = f"{columns - len(cells)} of {columns} columns absent" if columns > len(cells) else ""
    except FuselineError as error:
        view.note = clean(error.message, 160)
    return view


def _series(view: CellView, cell: Any, column: str) -> None:
    series_LC = read_series(cell, column, None)
    if series_LC is None:
        view.absent = True
        return
    known = series_LC[~np.isnan(series_LC)]
    channels = f" of {series_LC.shape[1]} channels" if series_LC.shape[1] > 1 else ""
    view.text = (
        f"{len(series_LC)} steps{channels}, from {fmt(known.min())} to {fmt(known.max())}, last {fmt(known[-1])}"
    )
    view.note = f"{percent(1 - len(known) / series_LC.size)} gaps" if len(known) < series_LC.size else ""


def _picture(
    view: CellView, cell: Any, column: str, media: MediaRoot, budget: Budget, found: boxed.Boxed | None
) -> None:
    data = read_media(cell, column, media, max_bytes=LARGEST_FILE)
    side = boxed.THUMBNAIL if found else THUMBNAIL
    picture = decode_picture(data, cell, column, side, "pad", MAX_PIXELS)
    image = Image.fromarray(_unpadded(picture.pixels, picture.width, picture.height))
    view.note = f"{picture.width} × {picture.height} pixels"
    if found:
        image = boxed.drawn(image, picture.width, picture.height, found)
        view.note += f" · {boxed.LEGEND}"
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82)
    if not budget.take(out.tell()):
        view.note += ", not shown: the page is full"
        return
    view.image = _uri("image/jpeg", out.getvalue())
    view.width, view.height = image.size
    view.alt = f"The picture of input {clean(view.name, 60)}"


def _page(view: CellView, cells: dict[str, Any], media: MediaRoot, budget: Budget) -> None:
    for column, cell in cells.items():
        try:
            words, _ = read_words(cell, column)
        except FuselineError:  # the other of its two columns
            _picture(view, cell, column, media, budget, None)
        else:
            view.text = clean(" ".join(word.text for word in words), TEXT)


def _strip(view: CellView, modality: str, cell: Any, column: str, media: MediaRoot, budget: Budget) -> None:
    strip_HW3, view.note = strip_of(modality, cell, column, media)
    if strip_HW3 is None:
        return
    out = io.BytesIO()
    Image.fromarray(strip_HW3).save(out, "JPEG", quality=82)
    if not budget.take(out.tell()):
        view.note += ", not shown: the page is full"
        return
    view.image = _uri("image/jpeg", out.getvalue())
    view.height, view.width = strip_HW3.shape[:2]
    view.alt = f"The {'video' if modality == 'video' else 'pictures'} of input {clean(view.name, 60)}"


def _unpadded(pixels_HW3: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cut the black padding away."""
    whole, side = len(pixels_HW3), max(width, height)
    w, h = (max(1, round(x * whole / side)) for x in (width, height))
    top, left = (whole - h) // 2, (whole - w) // 2
    return np.ascontiguousarray(pixels_HW3[top : top + h, left : left + w])


def _sound(view: CellView, cell: Any, column: str, media: MediaRoot, budget: Budget) -> None:
    data = read_media(cell, column, media, max_bytes=LARGEST_FILE)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            length, kind = file.frames / file.samplerate, file.format
            view.wave = _wave(file)
    except (RuntimeError, ValueError):
        view.note = "the sound cannot be read"
        return
    view.note, view.alt = f"{length:.1f} s", f"The sound of input {clean(view.name, 60)}, {length:.1f} seconds"
    if len(data) > LARGEST_SOUND or not budget.take(len(data)):
        view.note += f", {len(data) / 1e3:.0f} kB: too large for this page"
        return
    mime = {"WAV": "audio/wav", "WAVEX": "audio/wav", "FLAC": "audio/flac", "OGG": "audio/ogg", "MP3": "audio/mpeg"}
    if kind in mime:
        view.audio = _uri(mime[kind], data)


def _wave(file: soundfile.SoundFile) -> list[float]:
    """Half heights of the bars, 0.3 to 19: the loudest sample in each of 120 spans, read block by block."""
    span = max(1, -(-file.frames // WAVE))
    peaks = [float(np.abs(block).max(initial=0.0)) for block in file.blocks(span, dtype="float32")][:WAVE]
    loudest = max((p for p in peaks if np.isfinite(p)), default=0.0) or 1.0
    return [round(max(0.3, 19 * p / loudest), 1) if np.isfinite(p) else 0.3 for p in peaks]


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def read_json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def written(value: Any, *, numeric: bool = False) -> str:
    """An answer or a target: predictions.parquet holds them as text, numbers and lists of labels as JSON."""
    read = read_json(value) if numeric or (isinstance(value, str) and value.startswith("[")) else value
    if isinstance(read, dict) and any(isinstance(v, list) for v in read.values()):
        return clean(" · ".join(f"{k} {written(v)}" for k, v in list(read.items())[:3]), 200)
    if isinstance(read, dict):
        return clean(
            " · ".join(f"{k} {written(v) if isinstance(v, str) else fmt(number(v))}" for k, v in read.items()), 200
        )
    if isinstance(read, list) and read and all(v is None or number(v) is not None for v in read):
        more = f", … ({len(read)} steps)" if len(read) > STEPS else ""
        return clean(", ".join("–" if v is None else fmt(number(v)) for v in read[:STEPS]) + more, 200)
    if isinstance(read, list):
        return clean(", ".join(map(str, read)) or "none", 200)
    found = number(read)
    return clean(fmt(found) if found is not None else value, 120)
