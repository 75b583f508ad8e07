"""More than fifty kinds of bad input, made by code: each a table and a recipe, and the error that they must give.

A case whose `code` is None is a control: input that looks suspicious and is fine.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile
from PIL import Image

ROWS = 16
BAD = 5
"""the row that holds the bad cell"""
RATE = 8000

PICTURE: dict[str, Any] = {"picture": {"modality": "image", "size": 32, "encoder": {"kind": "small"}}}
SOUND: dict[str, Any] = {
    "sound": {"modality": "audio", "sample_rate": RATE, "max_seconds": 0.5, "encoder": {"kind": "small"}}
}
NOTE: dict[str, Any] = {"note": {"modality": "text", "max_length": 8, "vocab_size": 300, "encoder": {"kind": "small"}}}


@dataclass(frozen=True)
class BadInput:
    name: str
    table: Path
    recipe: dict[str, Any] | Path
    """a recipe, or the path of a file that should hold one"""
    code: str | None
    row: int | None = None
    column: str | None = None


Case = Callable[["Workshop"], BadInput]


class Workshop:
    """Makes the files of one case in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.outside = folder / name
        self.folder = self.outside / "table"
        (self.folder / "media").mkdir(parents=True)
        (self.folder / "media" / "good.png").write_bytes(png())
        (self.folder / "media" / "good.wav").write_bytes(sound())
        (self.outside / "secret.png").write_bytes(png())

    def file(self, name: str, content: bytes) -> str:
        """A media file; gives the cell that names it."""
        (self.folder / "media" / name).write_bytes(content)
        return f"media/{name}"

    def write(self, content: bytes, name: str = "table.csv") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def frame(self, **columns: list[Any]) -> pl.DataFrame:
        """Good columns, the given ones in their place."""
        good: dict[str, list[Any]] = {
            "picture": ["media/good.png"] * ROWS,
            "sound": ["media/good.wav"] * ROWS,
            "note": ["calm", "cough and fever"] * (ROWS // 2),
            "age": [30 + i for i in range(ROWS)],
            "y": ["no", "yes"] * (ROWS // 2),
        }
        return pl.DataFrame({**good, **columns})

    def table(self, **columns: list[Any]) -> Path:
        return self.write(self.frame(**columns).write_csv().encode())

    def recipe(self, table: Path, inputs: dict[str, Any], **sections: Any) -> dict[str, Any]:
        return {
            "table": {"path": str(table)},
            "inputs": inputs,
            "task": {"kind": "classification", "target": "y"},
            "fusion": {"kind": "concat", "width": 16},
            "split": {"kind": "stratified", "val": 0.25, "test": 0.25},
            "training": {"epochs": 1, "batch_size": 4, "precision": "float32", "loggers": []},
            "evaluation": {"bootstrap": 0, "degradation": False, "export": False},
            **sections,
        }

    def bad(
        self,
        table: Path,
        recipe: dict[str, Any] | Path,
        code: str | None,
        row: int | None = None,
        column: str | None = None,
    ) -> BadInput:
        return BadInput(self.name, table, recipe, code, row, column)


def png(side: int = 40) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(png(64))).save(out, kind)
    return out.getvalue()


def sound(kind: str = "WAV", subtype: str | None = None, seconds: float = 0.3, channels: int = 1) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * RATE), channels))
    soundfile.write(out, noise.astype(np.float32), RATE, format=kind, subtype=subtype)
    return out.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def bomb() -> bytes:
    """A PNG of less than a hundred bytes that claims 100,000 x 100,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def long_flac() -> bytes:
    """A FLAC of a third of a second whose header announces three hours."""
    flac = bytearray(sound("FLAC"))
    frames = 3 * 3600 * RATE
    flac[21] = flac[21] & 0xF0 | frames >> 32
    flac[22:26] = struct.pack(">I", frames & 0xFFFFFFFF)
    return bytes(flac)


def nan_sound() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.full(RATE, np.nan, np.float32), RATE, format="WAV", subtype="FLOAT")
    return out.getvalue()


def with_one(good: Any, bad: Any) -> list[Any]:
    return [bad if i == BAD else good for i in range(ROWS)]


HTML = b"<!DOCTYPE html><html><body>404 not found</body></html>"


# --- a media cell -----------------------------------------------------------------------------------------------------


def media_file(column: str, name: str, content: Callable[[], bytes], code: str | None = "bad_cell") -> Case:
    """One row's file is bad."""
    inputs, good = (PICTURE, "media/good.png") if column == "picture" else (SOUND, "media/good.wav")

    def make(w: Workshop) -> BadInput:
        table = w.table(**{column: with_one(good, w.file(name, content()))})
        place = (BAD, column) if code else (None, None)
        return w.bad(table, w.recipe(table, inputs), code, *place)

    return make


def picture_cell(cell: str, code: str = "bad_cell") -> Case:
    def make(w: Workshop) -> BadInput:
        table = w.table(picture=with_one("media/good.png", cell))
        return w.bad(table, w.recipe(table, PICTURE), code, BAD, "picture")

    return make


def absolute_path(w: Workshop) -> BadInput:
    table = w.table(picture=with_one("media/good.png", str(w.folder.resolve() / "media" / "good.png")))
    return w.bad(table, w.recipe(table, PICTURE), "unsafe_path", BAD, "picture")


def link_escape(w: Workshop) -> BadInput:
    (w.folder / "media" / "link.png").symlink_to(w.outside / "secret.png")
    table = w.table(picture=with_one("media/good.png", "media/link.png"))
    return w.bad(table, w.recipe(table, PICTURE), "unsafe_path", BAD, "picture")


# --- a cell of a tabular or a text column -----------------------------------------------------------------------------


def plain_cell(kind: str, good: str, cell: str, code: str | None = "bad_cell") -> Case:
    def make(w: Workshop) -> BadInput:
        table = w.table(x=with_one(good, cell))
        inputs = {"vitals": {"modality": "tabular", "columns": {"x": kind}, "encoder": {"kind": "small"}}}
        return w.bad(table, w.recipe(table, inputs), code, *((BAD, "x") if code else (None, None)))

    return make


def parquet_note(cells: list[Any], row: int) -> Case:
    def make(w: Workshop) -> BadInput:
        table = w.folder / "table.parquet"
        w.frame(note=cells).write_parquet(table)
        return w.bad(table, w.recipe(table, NOTE), "bad_cell", row, "note")

    return make


# --- a whole table ----------------------------------------------------------------------------------------------------


def table_file(name: str, content: bytes, code: str, row: int | None = None, column: str | None = None) -> Case:
    def make(w: Workshop) -> BadInput:
        table = w.write(content, name)
        return w.bad(table, w.recipe(table, NOTE), code, row, column)

    return make


def missing_table(w: Workshop) -> BadInput:
    table = w.folder / "tabel.csv"
    return w.bad(table, w.recipe(table, NOTE), "no_such_file")


def broken_lines() -> bytes:
    lines = [json.dumps({"note": f"calm {i}", "y": "no" if i % 2 else "yes"}) for i in range(ROWS)]
    lines[1] = lines[1][:-4]
    return "\n".join(lines).encode()


def target(cells: list[Any], code: str, column: str | None = "y", **sections: Any) -> Case:
    def make(w: Workshop) -> BadInput:
        table = w.write(w.frame().head(len(cells)).with_columns(y=pl.Series(cells)).write_csv().encode())
        return w.bad(table, w.recipe(table, NOTE, **sections), code, None, column)

    return make


def absent_input(w: Workshop) -> BadInput:
    table = w.table(age=[None] * ROWS)
    inputs = {**NOTE, "vitals": {"modality": "tabular", "columns": {"age": "number"}, "encoder": {"kind": "small"}}}
    return w.bad(table, w.recipe(table, inputs), None)


# --- a recipe ---------------------------------------------------------------------------------------------------------


def sections(code: str, column: str | None = None, **changed: Any) -> Case:
    def make(w: Workshop) -> BadInput:
        table = w.table()
        return w.bad(table, {**w.recipe(table, NOTE), **changed}, code, None, column)

    return make


def note_with(code: str, **changed: Any) -> Case:
    return sections(code, inputs={"note": {**NOTE["note"], **changed}})


def recipe_file(content: bytes | None, code: str) -> Case:
    def make(w: Workshop) -> BadInput:
        path = w.folder / "recipe.yaml"
        if content is not None:
            path.write_bytes(content)
        return w.bad(w.table(), path, code)

    return make


REGRESSION = {"kind": "regression", "target": "y"}

CASES: dict[str, Case] = {
    "jpeg-truncated": media_file("picture", "bad.jpg", lambda: half(picture("JPEG"))),
    "png-truncated": media_file("picture", "bad.png", lambda: half(png())),
    "gif-truncated": media_file("picture", "bad.gif", lambda: half(picture("GIF"))),
    "webp-truncated": media_file("picture", "bad.webp", lambda: half(picture("WEBP"))),
    "tiff-truncated": media_file("picture", "bad.tiff", lambda: half(picture("TIFF"))),
    "picture-empty": media_file("picture", "bad.png", lambda: b""),
    "picture-is-html": media_file("picture", "bad.jpg", lambda: HTML),
    "picture-is-text": media_file("picture", "bad.png", lambda: b"no picture at all"),
    "picture-is-sound": media_file("picture", "bad.png", sound),
    "picture-bomb": media_file("picture", "bad.png", bomb),
    "picture-missing": picture_cell("media/goood.png"),
    "picture-is-folder": picture_cell("media"),
    "picture-is-url": picture_cell("https://example.org/x.png"),
    "picture-climbs-out": picture_cell("../secret.png", "unsafe_path"),
    "picture-absolute": absolute_path,
    "picture-link-escapes": link_escape,
    "picture-bad-data-uri": picture_cell("data:image/png;base64,%%%not-base64%%%"),
    "picture-cut-base64": picture_cell(base64.b64encode(png()).decode()[:2001]),
    "wav-truncated": media_file("sound", "bad.wav", lambda: half(sound())),
    "ogg-truncated": media_file("sound", "bad.ogg", lambda: half(sound("OGG"))),
    "flac-truncated": media_file("sound", "bad.flac", lambda: half(sound("FLAC"))),
    "flac-claims-hours": media_file("sound", "bad.flac", long_flac),
    "sound-without-samples": media_file("sound", "bad.wav", lambda: sound(seconds=0)),
    "sound-of-nan": media_file("sound", "bad.wav", nan_sound),
    "sound-is-html": media_file("sound", "bad.wav", lambda: HTML),
    "sound-is-picture": media_file("sound", "bad.wav", png),
    "sound-stereo-24-bit-is-fine": media_file("sound", "ok.wav", lambda: sound("WAV", "PCM_24", channels=2), None),
    "number-with-unit": plain_cell("number", "12.5", "12,5 mg"),
    "number-with-thousands": plain_cell("number", "12.5", "1,234.5"),
    "number-infinite": plain_cell("number", "12.5", "inf"),
    "number-nan-is-absent": plain_cell("number", "12.5", "NaN", None),
    "boolean-maybe": plain_cell("boolean", "yes", "maybe"),
    "date-impossible": plain_cell("date", "2026-01-02", "2026-13-45"),
    "date-ambiguous": plain_cell("date", "2026-01-02", "01/02/2026"),
    "text-is-list": parquet_note([["calm", "night"]] * ROWS, 0),
    "text-is-latin-1": parquet_note(with_one(b"calm", b"fi\xe8vre"), BAD),
    "csv-latin-1": table_file("table.csv", "note,y\nfièvre,yes\ncalm,no\n".encode("latin-1"), "bad_table"),
    "csv-ragged": table_file("table.csv", b"note,y\ncalm,no\ncough,yes,extra\ncalm,no\n", "bad_table", 1),
    "csv-open-quote": table_file("table.csv", b'note,y\n"calm,no\ncough,yes\n', "bad_table"),
    "csv-duplicate-header": table_file("table.csv", b"note,y,note\ncalm,no,a\n", "duplicate_column", None, "note"),
    "csv-nameless-column": table_file("table.csv", b"note,y,\ncalm,no,1\n", "bad_table"),
    "csv-empty": table_file("table.csv", b"", "empty_table"),
    "csv-header-only": table_file("table.csv", b"note,y\n", "empty_table"),
    "csv-is-a-workbook": table_file("table.csv", b"PK\x03\x04" + bytes(200), "bad_table"),
    "parquet-garbage": table_file("table.parquet", b"PAR1" + bytes(range(200)) + b"PAR1", "bad_table"),
    "parquet-is-text": table_file("table.parquet", b"note,y\ncalm,no\n", "bad_table"),
    "jsonl-broken-at-line-2": table_file("table.jsonl", broken_lines(), "bad_table", 1),
    "table-of-unknown-kind": table_file("table.docx", b"note,y\ncalm,no\n", "bad_table"),
    "table-missing": missing_table,
    "target-one-class": target(["yes"] * ROWS, "one_class"),
    "target-one-row": target(["yes"], "too_few_rows", None),
    "target-all-absent": target([None] * ROWS, "no_target"),
    "target-constant": target([3.5] * ROWS, "constant_target", task=REGRESSION),
    "target-no-number": target(["1", "two"] * (ROWS // 2), "bad_cell", task=REGRESSION),
    "target-misspelled": sections("missing_column", "yy", task={"kind": "classification", "target": "yy"}),
    "target-is-an-input": sections("bad_recipe", task={"kind": "classification", "target": "note"}),
    "input-misspelled": sections("missing_column", "ntoe", inputs={"ntoe": NOTE["note"]}),
    "input-all-absent-is-fine": absent_input,
    "group-column-absent": sections("missing_column", "patient", split={"kind": "group", "group": "patient"}),
    "time-column-absent": sections("missing_column", "when", split={"kind": "time", "time": "when"}),
    "recipe-unknown-key": sections("bad_recipe", trainig={"epochs": 1}),
    "recipe-unknown-option": note_with("bad_recipe", max_lenght=8),
    "recipe-bad-value": note_with("bad_recipe", max_length=-1),
    "recipe-no-inputs": sections("bad_recipe", inputs={}),
    "recipe-unknown-encoder": note_with("unknown_kind", encoder={"kind": "smal"}),
    "recipe-unknown-modality": note_with("unknown_kind", modality="smells"),
    "recipe-unknown-fusion": sections("unknown_kind", fusion={"kind": "atention"}),
    "recipe-unknown-task": sections("unknown_kind", task={"kind": "clasification", "target": "y"}),
    "recipe-unknown-column-kind": sections(
        "unknown_kind",
        inputs={"v": {"modality": "tabular", "columns": {"age": "numeric"}, "encoder": {"kind": "small"}}},
    ),
    "recipe-frozen-noise": note_with("bad_recipe", encoder={"kind": "small", "tune": "frozen"}),
    "recipe-is-no-yaml": recipe_file(b"inputs: [unclosed\n  : {", "bad_recipe"),
    "recipe-is-binary": recipe_file(bytes(range(256)), "bad_recipe"),
    "recipe-is-a-list": recipe_file(b"- note\n- y\n", "bad_recipe"),
    "recipe-missing": recipe_file(None, "no_such_file"),
}


def make_bad_input(folder: Path, name: str) -> BadInput:
    return CASES[name](Workshop(folder, name))


def make_bad_inputs(folder: Path) -> list[BadInput]:
    return [make_bad_input(folder, name) for name in CASES]
