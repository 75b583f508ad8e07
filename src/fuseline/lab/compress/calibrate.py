"""Ranges of activations from real rows, batch by batch in bounded memory. Batches may differ in size and length.

onnxruntime's own calibrators keep every activation of every batch until the end (64 pictures through
EfficientNet-Lite0: 1.7 GB), and want batches of one shape. Here a tensor costs a histogram of 32 kB, and the graph runs
once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from fuseline.errors import FuselineError
from fuseline.lab.compress.onnx_graph import Graph
from fuseline.lab.compress.onnx_run import Arrays, few_rows, runner
from fuseline.progress import Silent, Voice

Method = Literal["percentile", "entropy", "minmax"]
METHODS: Final = ("percentile", "entropy", "minmax")
PERCENTILE: Final = 99.999
BINS: Final = 4096
SAMPLE: Final = 2**17
"""values of a tensor at most that one run adds to its histogram; smallest and largest are of all values"""
GRID: Final = 128
"""steps on one side that a range is compared at by entropy"""


@dataclass
class Watched:
    """What was seen of one tensor."""

    axis: int | None = None
    """its channels, for which mean and largest magnitude are kept"""
    low: float = math.inf
    high: float = -math.inf
    reach: float = 0.0
    """the histogram goes from -reach to reach, a power of two, so that it can grow by joining pairs of bins"""
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    total_C: np.ndarray | None = None
    largest_C: np.ndarray | None = None
    count: int = 0

    def see(self, values: np.ndarray) -> None:
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not math.isfinite(low) or not math.isfinite(high):
            raise FuselineError(
                "quantise_failed",
                "the float model computes values that are not finite on the calibration rows",
                "a model that overflows in float cannot be rounded; look at its training",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(abs(low), abs(high)))
        flat = values.reshape(-1)
        stride = max(1, flat.size // SAMPLE)
        while math.gcd(stride, flat.size) > 1:  # or it would see some channels only
            stride += 1
        places = (flat[::stride] * (BINS / 2 / self.reach) + BINS / 2).astype(np.int64)
        self.counts += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)
        if self.axis is not None:
            axis = self.axis % values.ndim
            rest = tuple(i for i in range(values.ndim) if i != axis)
            total, largest = values.sum(axis=rest, dtype=np.float64), np.abs(values).max(axis=rest)
            self.total_C = total if self.total_C is None else self.total_C + total
            self.largest_C = largest if self.largest_C is None else np.maximum(self.largest_C, largest)
            self.count += values.size // values.shape[axis]

    def _grow(self, magnitude: float) -> None:
        needed = 2.0 ** math.ceil(math.log2(max(magnitude, 1e-30) * (1 + 1e-6)))
        if self.reach == 0:
            self.reach = needed
        while self.reach < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, BINS // 4)
            self.reach *= 2

    def mean(self) -> np.ndarray:
        """(C,) of each channel."""
        assert self.total_C is not None
        return np.asarray(self.total_C / max(1, self.count))

    def range(self, method: Method) -> tuple[float, float]:
        """The values that are to be told apart: low <= 0 <= high. What lies outside is cut off."""
        low, high = self.low, self.high
        if method == "percentile":
            low, high = self._percentile(PERCENTILE)
        elif method == "entropy":
            limit = self._entropy()
            low, high = max(low, -limit), min(high, limit)
        return min(low, 0.0), max(high, 0.0)

    def _percentile(self, share: float) -> tuple[float, float]:
        """`share` percent of the values lie above the lower end, and as many below the upper one."""
        edges = np.linspace(-self.reach, self.reach, BINS + 1)
        seen = np.cumsum(self.counts)
        tail = seen[-1] * (1 - share / 100)
        first = int(np.searchsorted(seen, tail, side="right"))
        last = int(np.searchsorted(seen, seen[-1] - tail, side="left"))
        return max(self.low, float(edges[first])), min(self.high, float(edges[last + 1]))

    def _entropy(self) -> float:
        """The magnitude to cut off at, by the least Kullback-Leibler divergence of the histogram from itself at GRID
        steps (Migacz 2017, "8-bit inference with TensorRT")."""
        half = BINS // 2
        counts = (self.counts[half:] + self.counts[:half][::-1]).astype(np.float64)
        counts[0] = counts[1]  # a spike at zero (Relu) says nothing of how wide the values lie
        filled = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else half
        best, limit = math.inf, filled
        for end in range(GRID, filled + GRID, GRID // 4):
            end = min(end, filled)
            kept = counts[:end].copy()
            cut = kept.copy()
            cut[-1] += counts[end:].sum()
            groups = np.arange(end) * GRID // end
            full = np.bincount(groups, kept, GRID)
            held = np.bincount(groups, kept > 0, GRID)
            spread = np.where(kept > 0, (full / np.maximum(held, 1))[groups], 0.0)
            p, q = cut / max(cut.sum(), 1e-30), spread / max(spread.sum(), 1e-30)
            there = p > 0
            divergence = float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))).sum())
            if divergence < best:
                best, limit = divergence, end
        return self.reach * limit / half


def watch(
    graph: Graph, tensors: Mapping[str, int | None], batches: Sequence[Arrays], voice: Voice | None = None
) -> dict[str, Watched]:
    """Run the rows through the graph and look at tensors.

    Args:
        graph: float.
        tensors: float tensors -> the axis of their channels, or None. Inputs of the graph may be among them.
        batches: graph inputs.
        voice: told how far it is.

    Raises:
        FuselineError: ``no_calibration`` without rows, ``quantise_failed`` for values that are not finite.
    """
    if not any(len(batch["present"]) for batch in batches):
        raise FuselineError(
            "no_calibration",
            "static int8 needs rows that set its ranges, and there are none",
            "give a table with rows, or choose int8-dynamic, weights-int8 or weights-int4",
        )
    watched = {name: Watched(axis) for name, axis in tensors.items()}
    inside = [name for name in tensors if name not in graph.inputs]
    run = runner(graph, inside) if inside else None
    rows = sum(len(batch["present"]) for batch in batches)
    with (voice or Silent()).track("calibrating", rows) as advance:
        for few in few_rows(batches):
            values = run(few) if run is not None else {}
            for name, seen in watched.items():
                seen.see(values[name] if name in values else few[name])
            advance(len(few["present"]))
    return watched
