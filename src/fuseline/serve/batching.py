"""Which waiting rows go into the next batch. No threads, no clock: a pure choice that tests can state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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


class Appetite:
    """Learns how many rows a batch should have, from how long batches took.

    On a processor a small graph gains much from company, a large one nothing: beyond a few rows it falls out of the
    caches, and everybody waits for everybody. So sizes are tried in powers of two, upwards as long as that pays, and
    again from time to time, since machines change.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._paces: dict[int, float] = {}
        """size -> smoothed seconds of one unit of the rows' own cost (padding is not their fault)"""
        self._turn = 0

    def rows(self) -> int:
        """How many rows the next batch should have at most."""
        best = self._best()
        self._turn += 1
        if best * 2 not in self._paces or self._turn % 32 == 0:
            best *= 2
        elif self._turn % 32 == 16:
            best = max(1, best // 2)
        return min(best, self.most)

    def _best(self) -> int:
        if not self._paces:
            return 1
        least = min(self._paces.values())
        return min(size for size, pace in self._paces.items() if pace <= 1.05 * least)

    def saw(self, batch: Sequence[Item], seconds: float) -> None:
        size = 1 << (len(batch).bit_length() - 1)
        pace = seconds / sum(float(item.lengths_M.mean()) for item in batch)
        old = self._paces.get(size)
        self._paces[size] = pace if old is None else 0.8 * old + 0.2 * pace


def cost_of(batch: Sequence[Item]) -> float:
    """Every input is padded to the longest of the batch: rows x (mean over inputs of the longest). 1 is one row with
    every input at its largest."""
    longest_M = np.max([item.lengths_M for item in batch], axis=0)
    return len(batch) * float(longest_M.mean())


WASTE = 1.25
"""A batch may cost this much more than its rows would cost alone: padding is work that answers nobody."""


def choose(waiting: Sequence[Item], max_rows: int, max_cost: float) -> list[Item]:
    """The next batch: the row that has waited longest, then those whose lengths are nearest to its own.

    A batch holds at least one row, whatever it costs (see `cost_of`).
    """
    first = waiting[0]
    if len(waiting) == 1:
        return [first]
    others = sorted(waiting[1:], key=lambda item: float(np.abs(item.lengths_M - first.lengths_M).sum()))
    batch, longest_M, alone = [first], first.lengths_M, float(first.lengths_M.mean())
    for item in others:
        if len(batch) == max_rows:
            break
        grown_M = np.maximum(longest_M, item.lengths_M)
        own = float(item.lengths_M.mean())
        cost = (len(batch) + 1) * float(grown_M.mean())
        if cost > max_cost or cost > WASTE * (alone + own):
            break
        batch.append(item)
        longest_M, alone = grown_M, alone + own
    return batch
