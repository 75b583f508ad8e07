"""Which waiting rows go into the next batch. No threads, no clock: a pure choice that tests can state."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuseline.modalities import Modality
from fuseline.modalities.rows import Parsed


@dataclass(eq=False)
class Item:
    """One row that was decoded and waits for its batch."""

    parsed: Parsed
    lengths_M: np.ndarray
    """(M,) each input's length as a share of its largest, 1 where an input has no length (a picture)"""
    deadline: float
    since: float
    future: asyncio.Future[Any] = field(repr=False)


def lengths_of(modalities: Mapping[str, Modality], values: Mapping[str, Any | None]) -> np.ndarray:
    """(M,) in (0, 1]. An absent input still costs the dummy that stands for it: a picture's whole, a text's least."""
    out = []
    for name, modality in modalities.items():
        if not modality.lengths:
            out.append(1.0)
            continue
        low, high = next(iter(modality.lengths.values()))
        value = values[name]
        out.append(max(low, low if value is None else len(value)) / high)
    return np.array(out, dtype=np.float64)


def cost_of(batch: Sequence[Item]) -> float:
    """Every input is padded to the longest of the batch: rows x (mean over inputs of the longest). 1 is one row with
    every input at its largest."""
    longest_M = np.max([item.lengths_M for item in batch], axis=0)
    return len(batch) * float(longest_M.mean())


def choose(waiting: Sequence[Item], max_rows: int, max_cost: float) -> list[Item]:
    """The next batch: the row that has waited longest, then those whose lengths are nearest to its own.

    A batch holds at least one row, whatever it costs (see `cost_of`).
    """
    first = waiting[0]
    if len(waiting) == 1:
        return [first]
    others = sorted(waiting[1:], key=lambda item: float(np.abs(item.lengths_M - first.lengths_M).sum()))
    batch, longest_M = [first], first.lengths_M
    for item in others:
        if len(batch) == max_rows:
            break
        grown_M = np.maximum(longest_M, item.lengths_M)
        if (len(batch) + 1) * float(grown_M.mean()) > max_cost:
            break
        batch.append(item)
        longest_M = grown_M
    return batch
