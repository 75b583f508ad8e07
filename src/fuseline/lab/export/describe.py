"""What another program must do to a cell before the graph: by modality, in words and tables.

Written for a reader who has the exported folder and no fuseline.
"""

from __future__ import annotations

from typing import Any

from fuseline.modalities import Modality
from fuseline.modalities.audio import HOP, Audio
from fuseline.modalities.dates import DAY_PARTS, HOUR_PARTS
from fuseline.modalities.image import Image
from fuseline.modalities.tabular import ABSENT, LARGEST, OTHER, Tabular
from fuseline.modalities.text import Text

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
