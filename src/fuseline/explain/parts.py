"""The parts of one input's value, and the value with some of them hidden. Dimensions: L steps, C channels, S samples.

What a hidden part is replaced by is a choice that decides what is measured, so each kind says it in words. Where the
modality has a natural nothing (a cell, a word, an item, a gap) that is taken: the model knows absence from training.
Pictures and sounds have none: a patch becomes the picture's own mean colour, a moment silence (Zeiler and Fergus 2014).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fuseline.data.words import read_words
from fuseline.modalities.audio import Audio
from fuseline.modalities.base import Cells, MediaRoot, Modality
from fuseline.modalities.cells import is_absent, noted
from fuseline.modalities.document import Document, Page
from fuseline.modalities.image import Image
from fuseline.modalities.several import Items, Several
from fuseline.modalities.tabular import Tabular
from fuseline.modalities.text import Text, as_text
from fuseline.modalities.timeseries import TimeSeries
from fuseline.modalities.video import Clip, Video

NO_FILES = MediaRoot(None)
# Alphabets that write no blanks between words: each character is a part of its own.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)
SHORTEST = 0.1
"""seconds of sound that a part has at least"""


@dataclass(frozen=True)
class Parts:
    """One way to divide one input's value."""

    unit: str
    hidden: str
    """in words: what a hidden part is replaced by"""
    labels: tuple[str, ...]
    places: tuple[tuple[float, ...], ...]
    without: Callable[[Collection[int]], Any | None]
    """the value with these parts hidden; None where nothing is left of it"""
    text: str | None = None
    notes: tuple[str, ...] = field(default=())
    seen: tuple[float, float, float, float] | None = None
    """of patches: the part of the original picture that the value shows; see `schema.Inside`"""

    def __len__(self) -> int:
        return len(self.labels)


def parts_of(modality: Modality, cells: Cells, value: Any, *, grid: int = 8, most: int = 64) -> list[Parts]:
    """The ways to divide one present value: mostly one; a series has its steps and its channels.

    Args:
        modality: that parsed it.
        cells: what it was parsed from.
        value: the parsed value.
        grid: patches along each side of a picture.
        most: parts at most of one division (but patches): neighbours are taken together beyond it.
    """
    match modality:
        case Text():
            return [_words(modality, cells, most)]
        case Image():
            wrap = partial(noted, **getattr(value, "facts", {}))
            return [_patches(value, grid, wrap, modality.seen(value))]
        case Audio():
            return [_moments(modality, value, most)]
        case Video():
            return [_frames(value)]
        case Several():
            return [_items(value)]
        case Tabular():
            return [_columns(modality, cells)]
        case TimeSeries():
            return _series(modality, value, most)
        case Document():
            return _page(modality, cells, value, grid, most)
        case _:
            return []


def _groups(count: int, most: int) -> list[range]:
    """`count` neighbours in at most `most` groups of about equal size."""
    edges = np.linspace(0, count, min(count, most) + 1).round().astype(int)
    return [range(a, b) for a, b in pairwise(edges.tolist())]


def _words(modality: Text, cells: Cells, most: int) -> Parts:
    column = modality.columns[0]
    text = modality.cleaned(as_text(cells[column], column))
    read = modality.tokenizer.encode(text)
    if read.overflowing:  # words beyond what is read would move in where one before them is hidden
        text = text[: max((end for _, end in read.offsets), default=0)]
    found = [m.span() for m in _WORD.finditer(text)]
    spans = [(found[g[0]][0], found[g[-1]][1]) for g in _groups(len(found), most)]

    def without(hidden: Collection[int]) -> Any | None:
        kept, at = [], 0
        for i in sorted(hidden):
            kept.append(text[at : spans[i][0]])
            at = spans[i][1]
        kept.append(text[at:])
        return modality.parse({column: "".join(kept)}, NO_FILES)

    labels = tuple(text[a:b] for a, b in spans)
    return Parts("word", "the word is taken out of the text", labels, tuple(map(_floats, spans)), without, text)


def _patches(
    pixels: np.ndarray,
    grid: int,
    wrap: Callable[[np.ndarray], Any],
    seen: tuple[float, float, float, float] | None,
) -> Parts:
    height, width = pixels.shape[:2]
    grid = min(grid, height, width)
    mean = np.asarray(pixels).reshape(-1, pixels.shape[-1]).mean(axis=0).round().astype(np.uint8)
    rows, columns = _groups(height, grid), _groups(width, grid)
    boxes = [(c[0], r[0], c[-1] + 1, r[-1] + 1) for r in rows for c in columns]

    def without(hidden: Collection[int]) -> Any:
        out = np.array(pixels)
        for i in hidden:
            left, top, right, bottom = boxes[i]
            out[top:bottom, left:right] = mean
        return wrap(out)

    labels = tuple(f"row {i // grid + 1}, column {i % grid + 1} of {grid}" for i in range(len(boxes)))
    places = tuple((a / width, b / height, c / width, d / height) for a, b, c, d in boxes)
    return Parts("patch", "the patch becomes the picture's mean colour", labels, places, without, seen=seen)


def _moments(modality: Audio, wave_S: np.ndarray, most: int) -> Parts:
    rate = modality.config.sample_rate
    step = max(1, round(SHORTEST * rate))
    spans = [range(g[0] * step, min(len(wave_S), (g[-1] + 1) * step)) for g in _groups(-(-len(wave_S) // step), most)]

    def without(hidden: Collection[int]) -> Any:
        out = np.array(wave_S)
        for i in hidden:
            out[spans[i].start : spans[i].stop] = 0
        return noted(out, **getattr(wave_S, "facts", {}))

    places = tuple((s.start / rate, s.stop / rate) for s in spans)
    labels = tuple(f"{a:.2f} to {b:.2f} s" for a, b in places)
    return Parts("second", "the moment becomes silence", labels, places, without)


def _frames(clip: Clip) -> Parts:
    mean = clip.pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)

    def without(hidden: Collection[int]) -> Any:
        pixels = np.array(clip.pixels)
        pixels[list(hidden)] = mean
        return dataclasses.replace(clip, pixels=pixels)

    labels = tuple(f"frame at {s:.2f} s" for s in clip.seconds)
    places = tuple((float(s),) for s in clip.seconds)
    return Parts("frame", "the frame becomes the clip's mean colour", labels, places, without)


def _items(items: Items) -> Parts:
    def without(hidden: Collection[int]) -> Any | None:
        kept = tuple(v for i, v in enumerate(items.values) if i not in hidden)
        return dataclasses.replace(items, values=kept) if kept else None

    count = len(items)
    return Parts("item", "the item is left out", tuple(f"item {i + 1}" for i in range(count)), ((),) * count, without)


def _columns(modality: Tabular, cells: Cells) -> Parts:
    there = [c for c in modality.columns if not is_absent(cells.get(c))]

    def without(hidden: Collection[int]) -> Any | None:
        gone = {there[i] for i in hidden}
        return modality.parse({c: None if c in gone else cells.get(c) for c in modality.columns}, NO_FILES)

    return Parts("column", "the cell is absent", tuple(there), ((),) * len(there), without)


def _series(modality: TimeSeries, value_LC: np.ndarray, most: int) -> list[Parts]:
    groups = _groups(len(value_LC), most)

    def gaps(place: Callable[[int], Any]) -> Callable[[Collection[int]], Any | None]:
        def without(hidden: Collection[int]) -> Any | None:
            out = np.array(value_LC)
            for i in hidden:
                out[place(i)] = np.nan
            return None if np.isnan(out).all() else noted(out, **getattr(value_LC, "facts", {}))

        return without

    labels = tuple(f"step {g[0] + 1}" if len(g) == 1 else f"steps {g[0] + 1} to {g[-1] + 1}" for g in groups)
    places = tuple((float(g[0]), float(g[-1])) for g in groups)
    steps = gaps(lambda i: slice(groups[i].start, groups[i].stop))
    out = [Parts("step", "the steps are gaps", labels, places, steps)]
    if modality.size_C > 1:
        channels = tuple(str(c) for c in modality.channels)
        out.append(
            Parts("channel", "the channel is all gaps", channels, ((),) * len(channels), gaps(lambda i: (..., i)))
        )
    return out


def _page(modality: Document, cells: Cells, page: Page, grid: int, most: int) -> list[Parts]:
    out = []
    if not is_absent(cells.get(modality.words)):
        words, extent = read_words(cells[modality.words], modality.words)
        facts = page.facts
        extent = extent or ((facts["width"], facts["height"]) if "width" in facts else None)
        size: Mapping[str, Any] = {} if extent is None else {"width": extent[0], "height": extent[1]}
        groups = _groups(len(words), most)

        def without(hidden: Collection[int]) -> Any | None:
            gone = {k for i in hidden for k in groups[i]}
            kept = [{"text": w.text, "box": list(w.box)} for k, w in enumerate(words) if k not in gone]
            found = modality.parse({modality.words: {**size, "words": kept}}, NO_FILES)
            if found is None:  # no word is left: the picture alone, where there is one
                if page.pixels is None:
                    return None
                ids, boxes = modality._tokens([], None)
                found = Page(np.array(ids, np.int64), np.array(boxes, np.int64), None, dict(facts))
            return dataclasses.replace(found, pixels=page.pixels)

        labels = tuple(" ".join(words[k].text for k in g) for g in groups)
        out.append(Parts("word", "the word is taken off the page", labels, ((),) * len(groups), without))
    if page.pixels is not None:
        whole = (0.0, 0.0, 1.0, 1.0)  # a page is stretched
        out.append(_patches(page.pixels, grid, lambda pixels: dataclasses.replace(page, pixels=pixels), whole))
    return out


def _floats(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(n) for n in numbers)
