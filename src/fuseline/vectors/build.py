"""From a table to an index: a package embeds every row. Dimensions: N rows, E embedding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fuseline
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import Parsed
from fuseline.progress import Voice
from fuseline.runtime import Predictor
from fuseline.runtime.bucket import WINDOW, by_length
from fuseline.vectors.folder import Index, Writer, unit

EMBEDDING = "embedding"
LONGEST = 2000
"""characters of a kept text"""


def side_of(predictor: Predictor, side: str | None) -> str:
    """Which of the package's vectors is indexed: `left` or `right` (the default) of a retrieval model, else the fused
    `embedding`. Raises FuselineError ``bad_usage``."""
    known = ("right", "left") if predictor.task.name == "retrieval" else (EMBEDDING,)
    if side is None:
        return known[0]
    if side not in known:
        raise FuselineError("bad_usage", f"this package has no side {side!r}", f"it has: {', '.join(known)}")
    return side


def embed(predictor: Predictor, parsed: Sequence[Parsed], batch_size: int) -> dict[str, np.ndarray]:
    """Name of a vector -> (N, E), unit length; zeros where the row could not be read or lacks what it is made of."""
    names = ("left", "right") if predictor.task.name == "retrieval" else (EMBEDDING,)
    out: dict[str, np.ndarray] = {}
    for batch in by_length(predictor.rows.modalities, parsed, batch_size):
        outputs = predictor.run([parsed[i].values for i in batch])
        for name in names:
            if name not in out:
                out[name] = np.zeros((len(parsed), outputs[name].shape[1]), np.float32)
            out[name][batch] = unit(outputs[name])
    if EMBEDDING in out:  # a row that has nothing has an embedding all the same
        has = [p.error is None and any(v is not None for v in p.values.values()) for p in parsed]
        out[EMBEDDING][~np.array(has)] = 0
    return out


def columns_of(predictor: Predictor, side: str) -> list[str]:
    """The columns that a side's vector is made from."""
    config = getattr(predictor.task, "config", None)
    inputs = predictor.names if side == EMBEDDING else getattr(config, side)
    return list(dict.fromkeys(c for name in inputs for c in predictor.package.recipe.columns_of(name)))


def build_index(
    predictor: Predictor,
    frames: Iterable[tuple[int, Any]],
    out: str | Path,
    *,
    side: str,
    rows: int,
    id: str | None,
    keep: Sequence[str],
    hidden: Sequence[str] = (),
    media: MediaRoot,
    voice: Voice,
    batch_size: int = 32,
) -> tuple[Index, dict[str, int]]:
    """Index the rows of `frames` (first row, frame). Rows that cannot be read, or lack the side, are counted and left
    out. `hidden`: columns that may be there and are not looked at.

    Returns the index, and counts: rows, indexed, lacking, errors.
    """
    unseen = frozenset(hidden)
    counts = {"rows": 0, "indexed": 0, "lacking": 0, "errors": 0}
    writer: Writer | None = None
    first_error: FuselineError | None = None
    try:
        with voice.track("indexing", rows) as advance:
            for start, frame in frames:
                cells = Table.rows(frame)
                for i in range(0, len(cells), WINDOW * batch_size):
                    some = cells[i : i + WINDOW * batch_size]
                    seen = [{c: v for c, v in row.items() if c not in unseen} for row in some]
                    parsed = [predictor.rows.parse(row, media, start + i + j) for j, row in enumerate(seen)]
                    counts["rows"] += len(some)
                    counts["errors"] += sum(p.error is not None for p in parsed)
                    first_error = first_error or next((p.error for p in parsed if p.error is not None), None)
                    vectors = embed(predictor, parsed, batch_size)
                    if not vectors:
                        continue
                    vectors_NE = vectors[side]
                    if writer is None:
                        writer = Writer(Path(out), vectors_NE.shape[1])
                    there = np.flatnonzero(np.abs(vectors_NE).max(axis=1) > 0)
                    writer.add(vectors_NE[there], [_kept(start + i + int(j), some[int(j)], id, keep) for j in there])
                advance(len(cells))
        if writer is None or writer.rows == 0:
            reason = (
                str(first_error) if first_error is not None else f"no row has {', '.join(columns_of(predictor, side))}"
            )
            raise FuselineError("empty_table", f"nothing to index: {reason}", "")
        counts["indexed"] = writer.rows
        counts["lacking"] = counts["rows"] - counts["errors"] - writer.rows
        index = writer.seal(
            {
                "fuseline": fuseline.__version__,
                "package": {"name": predictor.package.name, "version": predictor.package.version},
                "side": side,
                "id": id,
                "columns": list(keep),
                "counts": counts,
            }
        )
    except BaseException:
        if writer is not None:
            writer.drop()
        raise
    return index, counts


def _kept(row: int, cells: Mapping[str, Any], id: str | None, keep: Sequence[str]) -> dict[str, Any]:
    return {
        "row": row,
        "id": None if id is None else plain(cells.get(id)),
        "cells": {c: plain(cells.get(c)) for c in keep},
    }


def plain(cell: Any) -> Any:
    """A cell as JSON; bytes are not kept, of a file's cell its path is."""
    if isinstance(cell, dict):
        cell = cell.get("path")
    if isinstance(cell, np.generic):
        cell = cell.item()
    if cell is None or isinstance(cell, (bool, int)):
        return cell
    if isinstance(cell, float):
        return cell if np.isfinite(cell) else None
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return None
    if isinstance(cell, (list, tuple, np.ndarray)):
        return [plain(c) for c in list(cell)[:LONGEST]]
    return str(cell)[:LONGEST]
