"""Rows to profile a package with: of a table, or made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuseline.data.table import Table
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot, Modality
from fuseline.modalities.document import Document
from fuseline.modalities.rows import Parsed
from fuseline.modalities.video import Video
from fuseline.runtime.predictor import Predictor


@dataclass
class Samples:
    parsed: list[Parsed]
    source: str
    """table or made"""
    decode_seconds: dict[str, float] | None = None
    """input -> seconds of reading and decoding one row's cells; None where rows were made"""
    notes: list[str] = field(default_factory=list)


def rows_of(predictor: Predictor, data: Any, count: int) -> Samples:
    """The first rows of a table that can be read.

    Raises FuselineError as :meth:`Table.open` does, ``missing_column`` where it has no column of the model's, and the
    first row's own error where none can be read.
    """
    recipe, parser = predictor.package.recipe, predictor.rows
    table = open_table(data, recipe.table)
    columns = [c for c in parser.columns if c in table.columns]
    if not columns:
        table.require(parser.columns)
    media = MediaRoot(recipe.table.media_root or (str(table.folder) if table.folder else None))
    cells = Table.rows(table.take(np.arange(min(count, table.n_rows)), columns))
    if not cells:
        raise FuselineError("empty_table", "the table has no rows", "give one that has")
    seconds, good, errors = dict.fromkeys(parser.names, 0.0), [], []
    for place, row in enumerate(cells):
        parsed, taken = Parsed(), {}
        try:
            for name in parser.names:
                start = time.perf_counter()
                parsed.values[name], _ = parser.parse_input(name, parser.cells(name, row), media)
                taken[name] = time.perf_counter() - start
        except FuselineError as error:
            errors.append(error.at(place))
            continue
        good.append(parsed)
        for name, value in taken.items():
            seconds[name] += value
    if not good:
        raise errors[0]
    notes = [f"{len(errors)} of {len(cells)} rows left out, the first: {errors[0]}"] if errors else []
    absent = [n for n in parser.names if all(p.values[n] is None for p in good)]
    if absent:
        notes.append(f"no row has {', '.join(absent)}: its encoder runs on the least that stands for nothing")
    return Samples(good, "table", {name: value / len(good) for name, value in seconds.items()}, notes)


def made_rows(predictor: Predictor, count: int) -> Samples:
    """The same made row, `count` times: texts and sounds of half the longest length, dark pictures, no numbers."""
    values = {name: _made(modality) for name, modality in predictor.rows.modalities.items()}
    note = "rows were made: half the longest length of every text and sound; decoding is not measured without a table"
    return Samples([Parsed(values)] * count, "made", None, [note])


def _made(modality: Modality) -> Any:
    if isinstance(modality, Document):
        return modality.blank(max(1, modality.config.max_length // 2))
    if isinstance(modality, Video):
        return modality.blank()
    dummies, specs = modality.collate([None]), modality.arrays()
    if len(specs) > 1 and not modality.lengths and not modality.file:
        return None  # a record of several arrays: its dummy costs as much as any
    name, spec = next(iter(specs.items()))
    shape = []
    for size in spec.shape[1:]:
        low, high = modality.lengths[size] if isinstance(size, str) else (size, size)
        shape.append(max(low, high // 2) if isinstance(size, str) else size)
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return np.random.default_rng(0).normal(0, 0.1, shape).astype(spec.dtype)
    return np.full(shape, dummies[name].reshape(-1)[0], dtype=spec.dtype)
