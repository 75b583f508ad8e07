"""The degradation table: the same metrics for every subset of inputs present. Dimensions: N rows, M inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from fuseline.tasks.base import Task

ALL_SUBSETS_UP_TO = 4


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Which sets of inputs to evaluate, the full set first: all 2^M - 1 up to four inputs, else each left out and each
    alone (2^M grows faster than anyone reads)."""
    full = tuple(names)
    if len(full) <= ALL_SUBSETS_UP_TO:
        return [c for k in range(len(full), 0, -1) for c in combinations(full, k)]
    return [full, *(tuple(n for n in full if n != name) for name in full), *((name,) for name in full)]


def degradation(
    task: Task,
    names: Sequence[str],
    present_NM: np.ndarray,
    targets: np.ndarray,
    by_subset: Mapping[tuple[str, ...], Mapping[str, np.ndarray]],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """One entry a subset: its rows and metrics. Rows that have none of a subset's inputs are left out, and counted.

    Args:
        task: the fitted task.
        names: the inputs, in the order of `present_NM`'s columns.
        present_NM: what each row really has.
        targets: encoded targets, rows on axis 0.
        by_subset: outputs of all rows when only the subset's inputs may be seen.
        bootstrap: resamples of the intervals.
        seed: of the bootstrap.
        groups: (N,) resampled whole.
    """
    table = []
    for subset, outputs in by_subset.items():
        some = np.asarray(present_NM[:, [i for i, n in enumerate(names) if n in subset]].any(axis=1))
        entry: dict[str, Any] = {"present": list(subset), "rows": int(some.sum()), "of": len(some), "metrics": {}}
        if some.any():
            scores = task.score(
                targets[some],
                {k: v[some] for k, v in outputs.items()},
                bootstrap=bootstrap,
                seed=seed,
                groups=None if groups is None else groups[some],
                details=False,
            )
            entry["metrics"] = scores.to_dict()["metrics"]
        table.append(entry)
    return table
