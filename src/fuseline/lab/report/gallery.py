"""The worst errors, each with what the model was shown: a thumbnail, a sound, a shortened text, the numbers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
from PIL import Image

from fuseline.data.items import items_of
from fuseline.data.series import read_series
from fuseline.data.words import read_words
from fuseline.errors import FuselineError
from fuseline.lab.report import boxed
from fuseline.lab.report.neighbours import Neighbours
from fuseline.lab.report.read import RunFiles, listing, mapping, number
from fuseline.lab.report.reasons import Reasons, reasons_of
from fuseline.lab.report.strip import strip_of
from fuseline.lab.report.words import clean, fmt, percent
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.cells import is_absent
from fuseline.modalities.media import read_media
from fuseline.modalities.picture import decode_picture
from fuseline.recipe import ABSENT, WindowSpec, read_options

MOST = 12
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


@dataclass(frozen=True)
class Card:
    row: int
    part: str
    value: str
    target: str
    note: str
    cells: list[CellView]
    reasons: Reasons | None = None


@dataclass(frozen=True)
class Gallery:
    sentence: str
    cards: list[Card]


@dataclass
class _Budget:
    left: int = ALL_MEDIA

    def take(self, octets: int) -> bool:
        if octets > self.left:
            return False
        self.left -= octets
        return True


@dataclass(frozen=True)
class Worst:
    """The rows of predictions.parquet that are shown, worst first, and how they were chosen."""

    rows: pl.DataFrame
    sentence: str


def worst(predictions: pl.DataFrame) -> Worst | None:
    """The twelve worst answers of the test part (of the validation part where there is none); None without any."""
    part = next((p for p in ("test", "val") if (predictions["part"] == p).any()), None)
    if part is None:
        return None
    ranked, sentence = _ranked(predictions.filter(pl.col("part") == part))
    return None if ranked is None or not ranked.height else Worst(ranked.head(MOST), sentence)


def gallery(files: RunFiles) -> Gallery | None:
    """The worst answers with what the model was shown, and each input's share in them where the run tells it."""
    found = None if files.predictions is None else worst(files.predictions)
    if found is None:
        return None
    rows = found.rows.to_dicts()
    shown, why = _cells(files, [int(r["row"]) for r in rows])
    media, budget = MediaRoot(_media_root(files)), _Budget(boxed.MEDIA if files.task == "detection" else ALL_MEDIA)
    near = Neighbours(mapping(files.recipe.get("inputs")), media.folder)
    reasons = reasons_of(listing(files.reasons.get("rows")))
    cards = [
        replace(_card(files, row, cells, media, budget, near), reasons=reasons.get(int(row["row"])))
        for row, cells in zip(rows, shown, strict=True)
    ]
    return Gallery(f"{found.sentence} {why}".strip(), cards)


Looked = Callable[[int], list[CellView]]
"""a row's cells, ready for the page"""


def look(files: RunFiles, rows: Sequence[int], octets: int) -> tuple[Looked, str]:
    """The cells of `rows`, media up to `octets` in all; and why there are none."""
    different = list(dict.fromkeys(rows))
    shown, why = _cells(files, different)
    media, budget = MediaRoot(_media_root(files)), _Budget(octets)
    near = Neighbours(mapping(files.recipe.get("inputs")), media.folder)
    views = {
        row: _card(files, {"row": row, "part": ""}, cells, media, budget, near).cells
        for row, cells in zip(different, shown, strict=True)
    }
    return views.__getitem__, why


def _ranked(frame: pl.DataFrame) -> tuple[pl.DataFrame | None, str]:
    """Rows, worst first: wrong and sure of it, or farthest from the truth. Ties go by row number."""
    if "correct" in frame.columns and frame["correct"].dtype == pl.Boolean:
        wrong = frame.filter(~pl.col("correct"))
        by = ["confidence"] if "confidence" in frame.columns else []
        ranked = wrong.sort([*by, "row"], descending=[*(True for _ in by), False], nulls_last=True)
        shown = min(MOST, wrong.height)
        text = f"{wrong.height:,} of {frame.height:,} answers are wrong; here are {shown}"
        return ranked, text + (", those the model was most sure of first." if by else ".")
    if "error" in frame.columns and frame["error"].dtype.is_numeric():
        ranked = frame.filter(pl.col("error").is_finite()).sort(
            [pl.col("error").abs(), "row"], descending=[True, False]
        )
        return ranked, f"The {min(MOST, ranked.height)} of {frame.height:,} answers that are farthest from the truth."
    return None, ""


def _columns(files: RunFiles) -> list[tuple[str, str, list[str]]]:
    """input, modality, its columns: from run.json, else from the recipe."""
    out = []
    for item in files.inputs:
        names = [str(c) for c in listing(item.get("columns"))] or [str(item.get("name", ""))]
        out.append((str(item.get("name", "")), str(item.get("modality", "")), names))
    if not out:
        for name, value in mapping(files.recipe.get("inputs")).items():
            spec = mapping(value)
            names = list(mapping(spec.get("columns"))) or [str(spec.get("column") or name)]
            out.append((name, str(spec.get("modality", "")), names))
    return out


def _table_path(files: RunFiles) -> Path | None:
    given = mapping(files.run.get("table")).get("path")
    if not isinstance(given, str) or not given:
        return None
    path = Path(given)
    return path if path.is_absolute() or path.exists() else files.folder / path


def _media_root(files: RunFiles) -> str | None:
    """The folder that training read media from: the recipe's, else the table's."""
    root = mapping(files.recipe.get("table")).get("media_root")
    path = _table_path(files)
    return root if isinstance(root, str) and root else str(path.parent) if path is not None else None


def _absent_words(files: RunFiles) -> tuple[str, ...]:
    given = mapping(files.recipe.get("table")).get("absent")
    return tuple(str(a) for a in given) if isinstance(given, list) else ABSENT


def _cells(files: RunFiles, rows: list[int]) -> tuple[list[dict[str, Any]], str]:
    """The table's cells of `rows`; empty ones and a word of explanation where the table is gone or has changed."""
    from fuseline.data.table import Table
    from fuseline.data.windows import open_windows

    nothing: list[dict[str, Any]] = [{} for _ in rows]
    path = _table_path(files)
    if path is None:
        return nothing, "The run does not say where its table lies, so the cells are not shown."
    try:
        table = open_windows(Table.open(path, absent=_absent_words(files)), _windows(files))
        there = set(table.columns)
        wanted = list(dict.fromkeys(c for _, _, names in _columns(files) for c in names if c in there))
        if not wanted or not all(0 <= r < table.n_rows for r in rows):
            return nothing, "The table no longer has these rows and columns, so the cells are not shown."
        return Table.rows(table.take(np.asarray(rows), wanted)), ""
    except (FuselineError, OSError, pl.exceptions.PolarsError):
        return nothing, "The table can no longer be read, so the cells are not shown."


def _windows(files: RunFiles) -> WindowSpec | None:
    found = mapping(files.recipe.get("table")).get("windows")
    return None if found is None else read_options(WindowSpec, mapping(found), "table.windows")


def _card(
    files: RunFiles, row: dict[str, Any], cells: dict[str, Any], media: MediaRoot, budget: _Budget, near: Neighbours
) -> Card:
    used = _json(row.get("used"))
    absent = frozenset(_absent_words(files))
    views = []
    found = boxed.boxed(files, row)
    answer, truth = boxed.said(found) if found else ("", "")
    where = mapping(files.recipe.get("task")).get("image")
    for name, modality, names in _columns(files) if cells else []:
        present = {c: cells.get(c) for c in names if not _absent(cells.get(c), absent)}
        if not present:
            views.append(CellView(clean(name, 60), absent=True))
            continue
        marked = found if where in (None, name) else None
        views.append(_view(name, modality, present, len(names), media, budget, marked))
        if modality == "graph":
            views[-1].note = near.of(name, next(iter(present.values())))
        if isinstance(used, list) and name not in used:
            views[-1].note = " · ".join(n for n in (views[-1].note, "not used") if n)
    return Card(
        int(row["row"]),
        str(row["part"]),
        answer or _answer(row.get("value"), numeric="error" in row),
        truth or _answer(row.get("target"), numeric="error" in row),
        boxed.quality(number(row.get("error")) or 0.0) if found else _note(row, files.task),
        views,
    )


def _absent(cell: Any, words: frozenset[str]) -> bool:
    return is_absent(cell) or (isinstance(cell, str) and cell.strip() in words)


def _json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _answer(value: Any, *, numeric: bool = False) -> str:
    """An answer or a target: predictions.parquet holds them as text, numbers and lists of labels as JSON."""
    read = _json(value) if numeric or (isinstance(value, str) and value.startswith("[")) else value
    if isinstance(read, dict) and any(isinstance(v, list) for v in read.values()):
        return clean(" · ".join(f"{k} {_answer(v)}" for k, v in list(read.items())[:3]), 200)
    if isinstance(read, dict):
        return clean(
            " · ".join(f"{k} {_answer(v) if isinstance(v, str) else fmt(number(v))}" for k, v in read.items()), 200
        )
    if isinstance(read, list) and read and all(v is None or number(v) is not None for v in read):
        more = f", … ({len(read)} steps)" if len(read) > STEPS else ""
        return clean(", ".join("–" if v is None else fmt(number(v)) for v in read[:STEPS]) + more, 200)
    if isinstance(read, list):
        return clean(", ".join(map(str, read)) or "none", 200)
    found = number(read)
    return clean(fmt(found) if found is not None else value, 120)


def _note(row: dict[str, Any], task: str) -> str:
    """How sure it was and what else it thought of, or how far it was off."""
    if (error := number(row.get("error"))) is not None:
        if task == "retrieval":
            return f"{error:.0f} others are nearer than its own, the mean of both ways"
        if task == "multi":
            return f"error {fmt(error)}: the mean over its tasks of 0 or 1, or of its rank among all"
        return f"off by {fmt(error)}"
    chances = mapping(_json(row.get("probabilities")))
    found = sorted(((p, k) for k, v in chances.items() if (p := number(v)) is not None), reverse=True)
    if found:
        return " · ".join(f"{clean(k, 40)} {percent(p)}" for p, k in found[:3])
    sure = number(row.get("confidence"))
    return f"{percent(sure)} sure" if sure is not None else ""


def _view(
    name: str,
    modality: str,
    cells: dict[str, Any],
    columns: int,
    media: MediaRoot,
    budget: _Budget,
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
            pairs = [f"{clean(k, 40)} {_answer(v)}" for k, v in list(cells.items())[:COLUMNS]]
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
    view: CellView, cell: Any, column: str, media: MediaRoot, budget: _Budget, found: boxed.Boxed | None
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


def _page(view: CellView, cells: dict[str, Any], media: MediaRoot, budget: _Budget) -> None:
    for column, cell in cells.items():
        try:
            words, _ = read_words(cell, column)
        except FuselineError:  # the other of its two columns
            _picture(view, cell, column, media, budget, None)
        else:
            view.text = clean(" ".join(word.text for word in words), TEXT)


def _strip(view: CellView, modality: str, cell: Any, column: str, media: MediaRoot, budget: _Budget) -> None:
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


def _sound(view: CellView, cell: Any, column: str, media: MediaRoot, budget: _Budget) -> None:
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
