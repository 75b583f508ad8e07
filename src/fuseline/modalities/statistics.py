"""Statistics of a stream of cells in bounded memory."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np

_SAMPLE = 20_000
_BUFFER = 4096
_MOST_VALUES = 100_000


class NumberStatistics:
    """Mean and spread (Chan et al. 1979, merging blocks), smallest, largest, and quantiles of a seeded sample.

    The sample is Vitter's reservoir ("Random sampling with a reservoir", 1985): every value has the same chance.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self._mean = self._squares = 0.0
        self._low, self._high = math.inf, -math.inf
        self._buffer: list[float] = []
        self._sample: list[float] = []
        # Seeded by a string, which does not depend on Python's hash seed: the same table, the same edges.
        self._random = random.Random(f"reservoir {name}")

    def add(self, value: float) -> None:
        """One value; NaN is none."""
        if value != value:
            return
        self.count += 1
        self._buffer.append(value)
        if len(self._sample) < _SAMPLE:
            self._sample.append(value)
        else:
            place = int(self._random.random() * self.count)
            if place < _SAMPLE:
                self._sample[place] = value
        if len(self._buffer) >= _BUFFER:
            self._merge()

    def _merge(self) -> None:
        if not self._buffer:
            return
        block = np.array(self._buffer, dtype=np.float64)
        self._buffer.clear()
        before = self.count - len(block)
        mean = float(block.mean())
        delta = mean - self._mean
        self._squares += float(((block - mean) ** 2).sum()) + delta**2 * before * len(block) / self.count
        self._mean += delta * len(block) / self.count
        self._low, self._high = min(self._low, float(block.min())), max(self._high, float(block.max()))

    def result(self, edges: int) -> dict[str, Any]:
        """mean, std (1 where constant or empty), min, max, count, and `edges` rising quantiles, all JSON values."""
        self._merge()
        if not self.count:
            return {"count": 0, "mean": 0.0, "std": 1.0, "min": 0.0, "max": 0.0, "edges": spread([0.0], edges)}
        std = math.sqrt(self._squares / self.count)
        # Below this the spread is rounding, and dividing by it would blow it up.
        constant = self._high == self._low or std <= 1e-7 * max(abs(self._low), abs(self._high))
        inner = np.quantile(self._sample, np.linspace(0, 1, edges))
        return {
            "count": self.count,
            "mean": self._mean,
            "std": 1.0 if constant else std,
            "min": self._low,
            "max": self._high,
            "edges": spread([self._low, *inner[1:-1].tolist(), self._high], edges),
        }


def spread(quantiles: list[float], edges: int) -> list[float]:
    """`edges` rising values through the distinct `quantiles`: repeated ones would make bins without width."""
    distinct = np.unique(np.array(quantiles, dtype=np.float32)).astype(np.float64)
    if len(distinct) == 1:
        half = max(0.5, abs(float(distinct[0])) * 1e-3)
        distinct = np.array([distinct[0] - half, distinct[0] + half])
    places = np.linspace(0, len(distinct) - 1, edges)
    return [float(v) for v in np.interp(places, np.arange(len(distinct)), distinct)]


class CategoryCount:
    """How often each value came, forgetting the rarest once there are very many."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, value: str) -> None:
        self._counts[value] += 1
        if len(self._counts) > _MOST_VALUES:
            self._counts = Counter(dict(self._ranked()[: _MOST_VALUES // 2]))

    def _ranked(self) -> list[tuple[str, int]]:
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))

    def most(self, limit: int, min_count: int) -> list[str]:
        """The most frequent values, ties in alphabetical order."""
        return [value for value, count in self._ranked()[:limit] if count >= min_count]
