"""The test rows as cases, their pictures, and the fields of the form."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

import fuseline
from examples.clinic.data import TABLE
from fuseline import FuselineError
from fuseline.modalities.picture import decode_picture

CASES = 40
"""cases that the page lists"""
LOOK = 512
"""longest side of a picture on the page, in pixels"""
MOST_BYTES = 16 * 2**20
MOST_PIXELS = 50_000_000
CHOICES = 12
"""a category of at most so many values is a choice on the page"""


@dataclass(frozen=True)
class Field:
    """One cell of the form. `kind`: text, number, category, boolean."""

    column: str
    input: str
    kind: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cases:
    """Rows of the table, and which of them are cases."""

    fields: tuple[Field, ...]
    image: str
    """the picture's column"""
    rows: tuple[int, ...]
    table: pl.DataFrame
    root: Path
    told: dict[str, str]
    """`what` the table is, and the columns of `finding` and `severity`"""
    notice: str

    @classmethod
    def of(cls, folder: Path, told: dict[str, str], most: int) -> Cases:
        """The first `most` test rows of the run in `folder`."""
        run = folder / "runs" / "clinic"
        recipe = fuseline.load_recipe(run / "recipe.yaml")
        said = pl.read_parquet(run / "predictions.parquet", columns=["row", "part"])
        table = pl.read_csv(folder / "data" / TABLE, infer_schema_length=None)
        rows = said.filter(pl.col("part") == "test")["row"].sort().head(most)
        image, fields = "", list[Field]()
        for name, spec in recipe.inputs.items():
            if spec.modality == "image":
                image = recipe.columns_of(name)[0]
                continue
            kinds = spec.columns or {recipe.columns_of(name)[0]: "text"}
            fields += [Field(c, name, kind, _choices(table[c], kind)) for c, kind in kinds.items()]
        return cls(tuple(fields), image, tuple(rows), table, folder / "data", told, (recipe.notice or "").strip())

    def listed(self) -> list[dict[str, Any]]:
        """Number, which inputs are there, and whether the picture is DICOM."""
        out = []
        for row in self.rows:
            cells = self.table.row(row, named=True)
            there = {f.input for f in self.fields if cells[f.column] is not None}
            picture = cells[self.image]
            kind = "" if picture is None else Path(picture).suffix.lstrip(".").lower()
            out.append({"row": row, "there": sorted(there), "picture": kind})
        return out

    def cells(self, row: int) -> dict[str, Any]:
        """What the form shows of a case: no picture, no truth. Raises FuselineError ``not_found``."""
        self._known(row)
        cells = self.table.row(row, named=True)
        return {f.column: _plain(cells[f.column], f.kind) for f in self.fields}

    def truth(self, row: int) -> dict[str, Any]:
        """What was written down of any row, a training one too: `finding`, `severity`, and the lungs' `boxes`."""
        self._known(row)
        cells = self.table.row(row, named=True)
        boxes = json.loads(cells["boxes"]) if cells.get("boxes") else []
        return {**{t: cells[self.told[t]] for t in ("finding", "severity")}, "boxes": boxes}

    def picture(self, row: int) -> bytes | None:
        """A row's file. Raises FuselineError ``not_found``."""
        self._known(row)
        name = self.table[self.image][row]
        return None if name is None else (self.root / name).read_bytes()

    def _known(self, row: int) -> None:
        if not 0 <= row < len(self.table):
            raise FuselineError("not_found", f"there is no row {row}", "")


def seen(data: bytes) -> bytes:
    """Any picture that the model reads, DICOM too, as a PNG of at most `LOOK` pixels. Raises FuselineError
    ``bad_cell``, ``too_large``, ``missing_extra``."""
    if len(data) > MOST_BYTES:
        raise FuselineError("too_large", f"the file has more than {MOST_BYTES // 2**20} MB", "")
    found = decode_picture(data, "the file", "image", LOOK, "stretch", MOST_PIXELS)
    longest = max(found.width, found.height)
    size = tuple(max(1, round(LOOK * side / longest)) for side in (found.width, found.height))
    out = io.BytesIO()
    Image.fromarray(found.pixels).resize((size[0], size[1])).save(out, "PNG")
    return out.getvalue()


def _plain(cell: Any, kind: str) -> Any:
    if cell is None or kind in ("number", "boolean"):
        return cell
    return str(cell)


def _choices(column: pl.Series, kind: str) -> tuple[str, ...]:
    if kind == "boolean":
        return ("true", "false")
    values = column.drop_nulls().unique().sort().cast(pl.String).to_list() if kind == "category" else []
    return tuple(values) if len(values) <= CHOICES else ()
