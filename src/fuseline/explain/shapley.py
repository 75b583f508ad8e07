"""Shapley values over a row's inputs. No baseline is made up: an input that is left out is an absent one, which
the model was trained to live with.

With v(S) the model's output when only the inputs S of the row are present, input i's value is
sum over S without i of |S|! (M - |S| - 1)! / M! · (v(S + i) - v(S))   (Shapley 1953; Lundberg and Lee 2017).
They add up to v(all) - v(none). Cost: 2^M outputs, M being the inputs that the row has; beyond EXACT_MOST inputs random
orders stand in for all of them (Castro et al. 2009), in pairs of an order and its reverse (Mitchell et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np

Subset = frozenset[str]

EXACT_MOST = 10
"""inputs up to which every subset is asked: 1,024 outputs"""
ORDERS = 64
"""random orders, half of them the others' reverse; each costs M - 1 outputs beside the two that all share"""


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


def orders(present: Sequence[str], count: int = ORDERS, seed: int = 0) -> list[tuple[str, ...]]:
    """`count` random orders, each followed by its reverse."""
    generator = np.random.default_rng(seed)
    out: list[tuple[str, ...]] = []
    for _ in range(max(1, count // 2)):
        order = tuple(present[i] for i in generator.permutation(len(present)))
        out += [order, order[::-1]]
    return out


def prefixes(chosen: Sequence[tuple[str, ...]]) -> list[Subset]:
    """The sets that the orders pass through, each once."""
    return list(dict.fromkeys(frozenset(order[:k]) for order in chosen for k in range(len(order) + 1)))


def sampled(
    chosen: Sequence[tuple[str, ...]], outputs: Mapping[Subset, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Estimates of each input's value, and their standard errors, from the outputs that `prefixes` names. They add up
    to v(all) - v(none), as the exact ones do. The error is that of the mean over pairs of an order and its reverse."""
    steps: dict[str, list[float]] = {name: [] for name in chosen[0]}
    for order in chosen:
        for k, name in enumerate(order):
            steps[name].append(outputs[frozenset(order[: k + 1])] - outputs[frozenset(order[:k])])
    pairs = {name: np.reshape(found, (-1, 2)).mean(axis=1) for name, found in steps.items()}
    values = {name: float(found.mean()) for name, found in pairs.items()}
    errors = {
        name: float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("nan")
        for name, found in pairs.items()
    }
    return values, errors
