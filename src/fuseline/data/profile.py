"""What the training rows looked like, in a few kilobytes: the package's profile.json, for drift."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np

SAMPLE = 5000
EDGES = 20
"""quantile edges, the smallest and the largest value among them"""
POINTS = 40
"""points of the distribution, beside which drift is measured"""
TOP = 50
_MOST_VALUES = 10_000


class NumberSketch:
    """Count, mean and spread (Welford 1962), smallest, largest, and a seeded reservoir (Vitter 1985) for quantiles."""

    def __init__(self, name: str) -> None:
        self.count = 0
        self._mean = self._squares = 0.0
        self._low, self._high = math.inf, -math.inf
        self._sample: list[float] = []
        self._random = random.Random(f"profile {name}")

    def add(self, value: float) -> None:
        """One value; NaN and infinities are passed over."""
        if not math.isfinite(value):
            return
        self.count += 1
        delta = value - self._mean
        self._mean += delta / self.count
        self._squares += delta * (value - self._mean)
        self._low, self._high = min(self._low, value), max(self._high, value)
        if len(self._sample) < SAMPLE:
            self._sample.append(value)
        elif (place := self._random.randrange(self.count)) < SAMPLE:
            self._sample[place] = value

    def to_dict(self, rows: int) -> dict[str, Any]:
        """`quantiles`: 20 from smallest to largest. `histogram`: the distinct ones as edges [a, b), the last closed,
        and the share of values between; a single value makes one edge with share 1. `cdf`: at most 40 sampled values
        `at` which the share of values that are no larger is known (`share`), all of them where they are no more."""
        out: dict[str, Any] = {"kind": "number", "count": self.count, "absent": rows - self.count}
        if not self.count:
            return out
        inner = np.quantile(self._sample, np.linspace(0, 1, EDGES))
        quantiles = [self._low, *inner[1:-1].tolist(), self._high]
        edges = np.unique(quantiles)
        shares = np.histogram(self._sample, edges)[0] / len(self._sample) if len(edges) > 1 else np.ones(1)
        return out | {
            "min": self._low,
            "max": self._high,
            "mean": self._mean if math.isfinite(self._mean) else None,
            "std": math.sqrt(self._squares / self.count) if math.isfinite(self._squares) else None,
            "quantiles": quantiles,
            "histogram": {"edges": edges.tolist(), "shares": [float(s) for s in shares]},
            "cdf": self._cdf(),
        }

    def _cdf(self) -> dict[str, list[float]]:
        ordered = np.sort(self._sample)
        at = np.unique(ordered)
        if len(at) > POINTS:  # values that came, not numbers between two of them: whole numbers keep their steps
            at = np.unique(ordered[np.linspace(0, len(ordered) - 1, POINTS).round().astype(int)])
        share = np.searchsorted(ordered, at, side="right") / len(ordered)
        return {"at": at.tolist(), "share": [round(s, 6) for s in share.tolist()]}


class CategorySketch:
    """Counts of the values, the rarest forgotten (into `other`) where there are more than ten thousand."""

    def __init__(self) -> None:
        self.count = 0
        self._counts: Counter[str] = Counter()
        self._forgot = False

    def add(self, value: str) -> None:
        self.count += 1
        self._counts[value] += 1
        if len(self._counts) > _MOST_VALUES:
            self._counts = Counter(dict(self._ranked()[: _MOST_VALUES // 2]))
            self._forgot = True

    def _ranked(self) -> list[tuple[str, int]]:
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))

    def to_dict(self, rows: int) -> dict[str, Any]:
        """`top`: [value, count] of the 50 commonest; `other`: the rest; `distinct`: at least so many values."""
        top = self._ranked()[:TOP]
        return {
            "kind": "category",
            "count": self.count,
            "absent": rows - self.count,
            "distinct": len(self._counts),
            "distinct_is_exact": not self._forgot,
            "top": [[value, count] for value, count in top],
            "other": self.count - sum(count for _, count in top),
        }


ColumnSketch = NumberSketch | CategorySketch


class ProfileBuilder:
    """Sketches of every statistic of every input, one row at a time, in bounded memory."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._present: Counter[str] = Counter()
        self._sketches: dict[tuple[str, str], ColumnSketch] = {}

    def add(self, name: str, stats: dict[str, float | str] | None) -> None:
        """One row of input `name`: its statistics (a modality's `summary`), or None where it is absent."""
        self._rows[name] += 1
        if stats is None:
            return
        self._present[name] += 1
        for stat, value in stats.items():
            sketch = self._sketches.get((name, stat))
            if sketch is None:
                sketch = CategorySketch() if isinstance(value, str) else NumberSketch(f"{name}.{stat}")
                self._sketches[name, stat] = sketch
            if isinstance(sketch, CategorySketch):
                sketch.add(str(value))
            else:
                assert not isinstance(value, str), f"{name}.{stat} was a number before"
                sketch.add(float(value))

    def to_dict(self) -> dict[str, Any]:
        """JSON values without NaN: input -> its rows and how many are absent; `input.statistic` -> its sketch, whose
        `absent` counts every row without that statistic."""
        out: dict[str, Any] = {}
        for name, rows in self._rows.items():
            out[name] = {"kind": "input", "rows": rows, "absent": rows - self._present[name]}
            for (owner, stat), sketch in self._sketches.items():
                if owner == name:
                    out[f"{name}.{stat}"] = sketch.to_dict(rows)
        return out
