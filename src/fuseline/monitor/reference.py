"""What profile.json says, in the form that the tests need; profiles of older packages too. Dimensions: K bins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fuseline.data.profile import SAMPLE

OTHER = "(other)"
BIN = 0.1
"""share of the reference in a bin of the PSI, where its values allow it: deciles"""
FEW = 12


@dataclass(frozen=True)
class Numbers:
    """A number's distribution, known at some points."""

    rows: int
    """values that the shares were counted over"""
    at: np.ndarray
    share: np.ndarray
    """share of the reference at most (`strictly`: below) each point"""
    strictly: bool
    median: float

    def bins(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts of the reference and of `values` in the same K bins, and the K - 1 edges between them: about a tenth
        of the reference each, every value its own where they are few, and what lies outside its range at both ends."""
        edges, shares, last = [], [], 0.0
        for point, share in zip(self.at.tolist(), self.share.tolist(), strict=True):
            if len(self.at) <= FEW or share <= 0 or share >= 1 or share - last >= BIN:
                edges.append(point)
                shares.append(share)
                last = share
        reference_K = np.diff([0.0, *shares, 1.0]) * self.rows
        side: Literal["left", "right"] = "left" if self.strictly else "right"
        places = np.searchsorted(np.sort(values), edges, side=side)
        return reference_K, np.diff([0, *places.tolist(), len(values)]).astype(np.float64), np.array(edges)


@dataclass(frozen=True)
class Categories:
    """A category's counts, the rare ones together under `(other)`."""

    counts: dict[str, float]

    def table(self, now: Mapping[str, int]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The categories, and counts of the reference and of now; values that the profile does not name are other."""
        names = [*(k for k in self.counts if k != OTHER), OTHER]
        known = {k: float(now.get(k, 0)) for k in names if k != OTHER}
        known[OTHER] = float(sum(now.values())) - sum(known.values())
        reference = np.array([self.counts.get(k, 0.0) for k in names])
        return names, reference, np.array([known[k] for k in names])


def numbers(sketch: Any) -> Numbers | None:
    """A number sketch of profile.json, or None where it has no value or is none."""
    if not isinstance(sketch, Mapping) or sketch.get("kind") != "number" or not sketch.get("count"):
        return None
    rows = min(int(sketch["count"]), SAMPLE)
    median = float(np.median(sketch["quantiles"]))
    if "cdf" in sketch:
        at, share = list(sketch["cdf"]["at"]), list(sketch["cdf"]["share"])
        at, share = [math.nextafter(at[0], -math.inf), *at], [0.0, *share]
        return Numbers(rows, np.array(at), np.array(share), False, median)
    edges, shares = sketch["histogram"]["edges"], sketch["histogram"]["shares"]
    at = [*edges[: len(shares)], math.nextafter(edges[-1], math.inf)]
    share = np.minimum(np.concatenate([[0.0], np.cumsum(shares)]), 1.0)
    share[-1] = 1.0
    return Numbers(rows, np.array(at), share, True, median)


def categories(sketch: Any) -> Categories | None:
    if not isinstance(sketch, Mapping) or sketch.get("kind") != "category" or not sketch.get("count"):
        return None
    counts = {str(value): float(count) for value, count in sketch["top"]}
    counts[OTHER] = counts.get(OTHER, 0.0) + float(sketch["other"])
    return Categories(counts)


def labels(entry: Any) -> Categories | None:
    """The label shares of `predictions`."""
    if not isinstance(entry, Mapping) or entry.get("kind") != "predictions" or not entry.get("labels"):
        return None
    rows = float(entry["rows"])
    counts = {str(label): float(share) * rows for label, share in entry["labels"].items()}
    counts[OTHER] = counts.get(OTHER, 0.0) + max(0.0, rows - sum(counts.values()))
    return Categories(counts)


def embedding(entry: Any) -> np.ndarray | None:
    """The sample of `embedding`, (N, D)."""
    if not isinstance(entry, Mapping) or entry.get("kind") != "embedding" or len(entry.get("sample", ())) < 2:
        return None
    return np.array(entry["sample"], dtype=np.float64)
