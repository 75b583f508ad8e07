"""What another program must do to a cell before the graph: by modality, in words and tables.

Written for a reader who has the exported folder and no fuseline.
"""

from __future__ import annotations

from typing import Any

from fuseline.modalities import Modality
from fuseline.modalities.audio import HOP, Audio
from fuseline.modalities.dates import DAY_PARTS, HOUR_PARTS
from fuseline.modalities.document import GRID, Document
from fuseline.modalities.graph import UNKNOWN, Graph
from fuseline.modalities.image import Image
from fuseline.modalities.several import SEVERAL, Several
from fuseline.modalities.tabular import ABSENT, LARGEST, OTHER, Tabular
from fuseline.modalities.text import Text
from fuseline.modalities.timeseries import TimeSeries
from fuseline.modalities.video import Video

RESIZE = {
    "stretch": "scale it to {0} x {0} whatever its shape",
    "crop": "take the largest square from its middle and scale that to {0} x {0}",
    "pad": "scale it so that its longer side is {0} (both sides rounded, half to even, at least 1), then put it in the "
    "middle of a black {0} x {0} picture (the odd row or column goes to the bottom or the right)",
}
PARTS = {
    "days": "days since 2000-01-01, with the time of day as a fraction",
    "year_sin": "sin(2 pi (day of the year - 1) / 365.25), the first of January being day 1",
    "year_cos": "cos of the same",
    "weekday_sin": "sin(2 pi weekday / 7), Monday being 0",
    "weekday_cos": "cos of the same",
    "hour_sin": "sin(2 pi (hour + minute / 60) / 24); absent where the cell has no time",
    "hour_cos": "cos of the same",
}


def describe(modality: Modality, tokenizer: str) -> dict[str, Any]:
    """`prepare` (steps), `absent`, `arrays` (name -> meaning), and the modality's own tables. JSON values.

    `tokenizer`: the file that a text's tokenizer was written to.
    """
    match modality:
        case Text():
            return _text(modality, tokenizer)
        case Image():
            return _image(modality)
        case Audio():
            return _audio(modality)
        case Tabular():
            return _tabular(modality)
        case Graph():
            return _graph(modality)
        case Video():
            return _video(modality)
        case Document():
            return _document(modality, tokenizer)
        case Several():
            return _several(modality, tokenizer)
        case TimeSeries():
            return _timeseries(modality)
    return {
        "prepare": [f"as fuseline's modality {modality.name} does; this export has no words for it"],
        "absent": "any valid array, and `present` false",
        "arrays": {},
    }


def _text(m: Text, tokenizer: str) -> dict[str, Any]:
    most = m.config.max_length
    steps = [
        f"cut it to its first {most * 32} characters (Unicode code points)",
        "bring it to Unicode NFC; tab, line feed, vertical tab, form feed, carriage return, U+0085, U+2028 and U+2029 "
        "become a blank; all other characters below U+0020, those from U+007F to U+009F and U+FEFF are removed; blanks "
        "at both ends are removed",
        *(["lower-case it"] if m.config.lowercase else []),
        f"tokenise it with {tokenizer} (a tokenizer.json of Hugging Face's `tokenizers`), special tokens included; "
        f"more than {most} ids are cut, the special tokens kept; no id at all counts as one {m.pad_id}",
        f"shorter texts of a batch are padded on the right: ids {m.pad_id}, mask 0",
    ]
    return {
        "prepare": steps,
        "absent": f"ids [{m.pad_id}], mask [1]; a text that is empty after the second step is absent",
        "arrays": {"ids": "token ids", "mask": "1 where a token is, 0 where padding is"},
        "tokenizer": tokenizer,
        "max_length": most,
        "pad_id": m.pad_id,
        "lowercase": m.config.lowercase,
    }


def _image(m: Image) -> dict[str, Any]:
    size = m.config.size
    return {
        "prepare": [
            "decode the file: its first frame, EXIF orientation applied, colour profiles ignored",
            "transparency is laid on white; grey becomes three equal channels; grey deeper than 8 bits is scaled from "
            "its smallest to its largest finite value to 0..255; 16-bit colour keeps its high byte",
            f"{RESIZE[m.config.resize].format(size)}; bilinear with antialiasing (Pillow's BILINEAR). A JPEG of at "
            f"least {4 * size} x {4 * size} was decoded at 1/2, 1/4 or 1/8 first, never below {2 * size}: with a full "
            "decode pixels differ by a little",
            "red, green, blue, 0..255, rows from the top: no mean, no deviation, the graph does that",
        ],
        "absent": f"all 0{f', sides {size} and {size}' if m.config.sides else ''}",
        "arrays": {"pixels": "height, width, red-green-blue"}
        | ({"sides": "width and height in pixels of the picture before it was scaled"} if m.config.sides else {}),
        "size": size,
        "resize": m.config.resize,
    }


def _video(m: Video) -> dict[str, Any]:
    count, size = m.config.frames, m.config.size
    return {
        "prepare": [
            f"take the clip's first {m.config.seconds:g} seconds (its whole length L where it is shorter) and, for i = "
            f"0..{count - 1}, the frame that stands at (i + 1/2) L / {count}; where that is the same frame as before, "
            "it is taken once; rotation is applied",
            f"of a list of pictures, {m.config.rate:g} of which are a second, evenly spaced ones, at most {count}",
            f"of each frame: {RESIZE[m.config.resize].format(size)}; bilinear with antialiasing (Pillow's BILINEAR); "
            "red, green, blue, 0..255, rows from the top",
            f"fewer than {count} frames are followed by the last one, with its seconds, `real` false",
        ],
        "absent": "frames all 0, seconds 0, `real` true for the first frame only",
        "arrays": {
            "frames": "frame, height, width, red-green-blue",
            "seconds": "when each frame stands, from the clip's start",
            "real": "which frames the clip has",
        },
        "frames": count,
        "size": size,
        "resize": m.config.resize,
    }


def _document(m: Document, tokenizer: str) -> dict[str, Any]:
    size, most = m.config.size, m.config.max_length
    unit = {"pixels": "the page's width or height in pixels", "share": "1", "thousand": "1000"}[m.config.boxes]
    return {
        "prepare": [
            f"each word of `{m.words}`: Unicode NFC, control characters removed, blanks at both ends removed"
            + (", lower-cased" if m.config.lowercase else "")
            + f"; tokenised with {tokenizer} without special tokens; its box x0, y0, x1, y1 times {GRID} / {unit}, "
            f"rounded half to even, cut to 0..{GRID}, stands at each of its tokens",
            f"before all of them the token [CLS] with the box 0, 0, {GRID}, {GRID}; more than {most} tokens are cut",
            "shorter pages of a batch are followed by zeros, mask false",
            f"the picture: {RESIZE['stretch'].format(size)}, as an image's; where it is absent, black and `pictured` "
            "false",
        ],
        "absent": "ids [0], boxes 0, mask true for it, pixels 0, `pictured` false",
        "arrays": {
            "ids": "token ids",
            "boxes": "x0, y0, x1, y1 in thousandths of the page",
            "mask": "where a token is",
            "pixels": "height, width, red-green-blue",
            "pictured": "whether the page has a picture",
        },
        "tokenizer": tokenizer,
        "max_length": most,
        "size": size,
    }


def _several(m: Several, tokenizer: str) -> dict[str, Any]:
    item = describe(m.item, tokenizer)
    arrays = {key: f"item, then: {words}" for key, words in item["arrays"].items()}
    return {
        **item,
        "prepare": [
            f"the cell's items that are not absent, at most the first {m.limit}; of each:",
            *item["prepare"],
            "rows of fewer items than the longest row of the batch are followed by absent ones, `several` false",
        ],
        "absent": f"one absent item ({item['absent']}), `several` true for it",
        "arrays": {**arrays, SEVERAL: "which items the row has"},
        "several": m.limit,
    }


def _audio(m: Audio) -> dict[str, Any]:
    rate = m.config.sample_rate
    return {
        "prepare": [
            f"decode the file's first {m.config.max_seconds:g} seconds to samples between -1 and 1; channels are "
            "averaged",
            f"resample to {rate} Hz (soxr HQ was used)",
            f"cut to {m.max_samples} samples; fewer than {m.min_samples} are followed by zeros up to that: their "
            "number is `length`",
            "all sounds of a batch are followed by zeros up to the longest `length`, rounded up to a multiple of "
            f"{HOP}",
        ],
        "absent": f"zeros, `length` {m.min_samples}",
        "arrays": {"waveform": "samples", "length": "samples of each sound before the zeros"},
        "sample_rate": rate,
        "max_seconds": m.config.max_seconds,
        "min_seconds": m.config.min_seconds,
    }


def _graph(m: Graph) -> dict[str, Any]:
    stranger = "that is an error here" if m.config.unknown == "error" else f"any other is {UNKNOWN}"
    return {
        "prepare": [
            "compare the id as text without blanks at the ends, 1 and 1.0 being 1, in Unicode NFC, with `entities`: "
            f"the first of them is 1, the second 2 ...; {stranger}",
        ],
        "absent": f"{UNKNOWN}, and `present` false",
        "arrays": {"entity": "place of the entity in `entities`, from 1"},
        "entities": m.entities,
    }


def _timeseries(m: TimeSeries) -> dict[str, Any]:
    kept = "first" if m.ahead else "last"
    filled = "after" if m.ahead else "before"
    return {
        "prepare": [
            f"bring it to evenly spaced steps of {m.size_C} channel{'s' if m.size_C > 1 else ''}"
            + (f", {m.config.step:g} seconds apart: the mean of what is nearest to a step" if m.config.step else ""),
            f"keep the {kept} {m.length} steps; steps that it lacks come {filled} it, as gaps",
            "numbers as they are: no mean, no deviation, the graph does that; a gap is 0 and `known` false",
        ],
        "absent": "values 0, known false; a series of gaps alone is absent",
        "arrays": {"values": "steps, channels", "known": "which numbers there are"},
        "length": m.length,
        "channels": list(m.channels),
    }


def _tabular(m: Tabular) -> dict[str, Any]:
    numbers, at = [], 0
    for column, kind in m.kinds.items():
        if kind == "number":
            numbers.append({"index": at, "column": column, "value": f"the number, cut to +-{LARGEST:g}"})
            at += 1
        elif kind == "date":
            parts = (*DAY_PARTS, *HOUR_PARTS) if f"{column}.{HOUR_PARTS[0]}" in m.number_names else DAY_PARTS
            for part in parts:
                numbers.append({"index": at, "column": column, "part": part, "value": PARTS[part]})
                at += 1
    assert at == len(m.number_names)
    categories = [
        {
            "index": i,
            "column": column,
            "kind": m.kinds[column],
            "values": {value: k + 2 for k, value in enumerate(m.values[column])},
        }
        for i, column in enumerate(m.category_names)
    ]
    steps = []
    if numbers:
        steps.append("numbers in the order below; where one is absent, 0 and numbers_present false")
    if categories:
        steps.append(
            f"categories as the indices below: {ABSENT} where absent, {OTHER} for a value that is not listed; values "
            "are compared as text without blanks at the ends, 1 and 1.0 being 1; true, yes, t, y, 1 of a boolean are "
            "`true`, the opposites `false`"
        )
    return {
        "prepare": steps,
        "absent": "numbers 0, numbers_present false, categories 0; a row is absent where every cell is",
        "arrays": {
            "numbers": "in the order of `numbers`, as they are: no mean, no deviation, the graph does that",
            "numbers_present": "which numbers the row has",
            "categories": "in the order of `categories`",
        },
        "numbers": numbers,
        "categories": categories,
    }
