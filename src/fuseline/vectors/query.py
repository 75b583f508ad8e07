"""From a row's cells to the rows of an index that are nearest. Dimensions: Q queries, E embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.runtime import Predictor
from fuseline.vectors.build import EMBEDDING, embed
from fuseline.vectors.folder import Hit, Index

OTHER = {"left": "right", "right": "left"}


@dataclass
class Matches:
    """What was found for one row. `error` is set, and `hits` empty, where the row could not be read."""

    hits: list[Hit] = field(default_factory=list)
    side: str | None = None
    """whose vector asked: `left`, `right` or `embedding`"""
    used: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    error: FuselineError | None = None

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"hits": [h.to_dict() for h in self.hits], "side": self.side}
        out |= {"used": list(self.used), "absent": list(self.absent)}
        if self.notes:
            out["notes"] = self.notes
        if self.error is not None:
            out["error"] = self.error.to_dict()
        return out


def asking_side(index: Index, there: Mapping[str, bool]) -> str | None:
    """The other side than the indexed one, where the row has it; else the same side: what is like it. None: neither."""
    if index.side == EMBEDDING:
        return EMBEDDING if there.get(EMBEDDING) else None
    return next((side for side in (OTHER[index.side], index.side) if there.get(side)), None)


def nothing_to_ask(index: Index) -> FuselineError:
    return FuselineError("bad_rows", "the row has no cell to search with", "give a cell of one of the model's inputs")


def search(
    predictor: Predictor,
    index: Index,
    rows: Sequence[Mapping[str, Any]],
    *,
    k: int = 10,
    exact: bool = False,
    media: MediaRoot | None = None,
    batch_size: int = 32,
) -> list[Matches]:
    """The k nearest rows of the index for each of `rows`, in order. A bad row gets an error.

    Raises FuselineError ``other_package`` where the index was not made by this package.
    """
    index.require(predictor.package.name, predictor.package.version)
    root = media or MediaRoot(None)
    parsed = [predictor.parse(row, root, i) for i, row in enumerate(rows)]
    vectors = embed(predictor, parsed, batch_size)
    out = []
    for i, row in enumerate(parsed):
        if row.error is not None:
            out.append(Matches(notes=row.notes, error=row.error))
            continue
        there = {name: bool(np.abs(v[i]).max() > 0) for name, v in vectors.items()}
        side = asking_side(index, there)
        used = tuple(n for n in predictor.names if row.values[n] is not None)
        absent = tuple(n for n in predictor.names if row.values[n] is None)
        if side is None:
            out.append(Matches(used=used, absent=absent, notes=row.notes, error=nothing_to_ask(index).at(i)))
            continue
        [hits] = index.hits(vectors[side][i : i + 1], k, exact=exact)
        out.append(Matches(hits, side, used, absent, row.notes))
    return out
