"""Exact Shapley values over a row's inputs. No baseline is made up: an input that is left out is an absent one, which
the model was trained to live with.

With v(S) the model's output when only the inputs S of the row are present, input i's value is
sum over S without i of |S|! (M - |S| - 1)! / M! · (v(S + i) - v(S))   (Shapley 1953; Lundberg and Lee 2017).
They add up to v(all) - v(none). Cost: 2^M outputs, M being the inputs that the row has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np

Subset = frozenset[str]


def subsets(present: Sequence[str]) -> list[Subset]:
    """All 2^M sets of the row's inputs, the empty one first, all of them last."""
    return [frozenset(c) for k in range(len(present) + 1) for c in combinations(present, k)]


def shapley(present: Sequence[str], outputs: Mapping[Subset, float]) -> dict[str, float]:
    """Each present input's value. `outputs`: the model's output for every set that `subsets` names."""
    count = len(present)
    out = {}
    for name in present:
        parts = []
        for subset in subsets([p for p in present if p != name]):
            weight = factorial(len(subset)) * factorial(count - len(subset) - 1) / factorial(count)
            parts.append(weight * (outputs[subset | {name}] - outputs[subset]))
        out[name] = float(np.sum(parts))
    return out
