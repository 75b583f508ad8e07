"""Whether an order of an input's parts is the model's own: deletion and insertion curves (Petsiuk et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuseline.explain.parts import Parts

Score = Callable[[list[Any | None]], np.ndarray]
"""values of one input (None: absent) -> the explained quantity of each, all other inputs as they are"""


@dataclass(frozen=True)
class Curve:
    shares: np.ndarray
    """(K,) from 0 to 1: share of the parts that are hidden (deletion) or shown (insertion)"""
    quantity: np.ndarray
    """(K,) the explained quantity there"""

    @property
    def area(self) -> float:
        """The mean height. Deletion: the lower, the better the order; insertion: the higher."""
        return float(np.trapezoid(self.quantity, self.shares))


def deletion(parts: Parts, order: Sequence[int], score: Score, points: int = 16) -> Curve:
    """The first parts of `order` are hidden first. `points`: at most so many answers beside the whole's."""
    shown = _points(len(order), points)
    return Curve(shown / len(order), np.asarray(score([parts.without(order[:k]) for k in shown])))


def insertion(parts: Parts, order: Sequence[int], score: Score, points: int = 16) -> Curve:
    """From all parts hidden, the first of `order` come back first."""
    shown = _points(len(order), points)
    return Curve(shown / len(order), np.asarray(score([parts.without(order[k:]) for k in shown])))


def _points(count: int, points: int) -> np.ndarray:
    return np.unique(np.linspace(0, count, min(points, count) + 1).round().astype(int))
