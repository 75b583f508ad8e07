"""The same metrics for groups of rows: does the model do worse for some of them? Dimensions: N rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fuseline.tasks.base import Task
from fuseline.tasks.bins import ABSENT, Bins

FEWEST = 20
"""rows below which a group's metrics are not told: they would say more about chance than about the group"""


def sliced(
    task: Task,
    targets: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    cells: Mapping[str, Sequence[Any]],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """`columns`: column -> one entry a group (`group`, `rows`, `few`, `metrics`), and `worst`: of all groups with
    enough rows that with the worst watched metric (`column`, `group`, `value`, `low`, `high`, `others`: the metric of
    all rows outside it, `clear`: its interval does not reach that), or None.

    Args:
        task: the fitted task.
        targets: encoded targets, rows on axis 0.
        outputs: of the same rows.
        cells: column -> each row's cell.
        bootstrap: resamples of the intervals.
        seed: of the bootstrap.
        groups: (N,) resampled whole.
    """
    columns: dict[str, list[dict[str, Any]]] = {}
    worst: dict[str, Any] | None = None
    for column, own in cells.items():
        bins = Bins.fit(column, own)
        names = [bins.of(cell) for cell in own]
        columns[column] = []
        for name in sorted(set(names), key=lambda n: _place(bins, n)):
            inside_N = np.array([n == name for n in names])
            entry: dict[str, Any] = {"group": name, "rows": int(inside_N.sum()), "few": int(inside_N.sum()) < FEWEST}
            entry["metrics"] = {}
            columns[column].append(entry)
            if entry["few"]:
                continue
            entry["metrics"] = _scores(task, targets, outputs, inside_N, bootstrap, seed, groups)
            found = entry["metrics"].get(task.metric)
            if found is None or found["value"] is None or not math.isfinite(found["value"]) or inside_N.all():
                continue
            sign = 1 if found["higher_is_better"] else -1
            if worst is None or sign * found["value"] < sign * worst["value"]:
                worst = {"column": column, "group": name, "rows": entry["rows"], "inside": inside_N, **found}
    return {"metric": task.metric, "columns": columns, "worst": _against_others(task, targets, outputs, worst)}


def _scores(
    task: Task,
    targets: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    rows_N: np.ndarray,
    bootstrap: int,
    seed: int,
    groups: np.ndarray | None,
) -> dict[str, Any]:
    scores = task.score(
        targets[rows_N],
        {k: v[rows_N] for k, v in outputs.items()},
        bootstrap=bootstrap,
        seed=seed,
        groups=None if groups is None else groups[rows_N],
        details=False,
    )
    return dict(scores.to_dict()["metrics"])


def _against_others(
    task: Task, targets: np.ndarray, outputs: Mapping[str, np.ndarray], worst: dict[str, Any] | None
) -> dict[str, Any] | None:
    if worst is None:
        return None
    rest = _scores(task, targets, outputs, ~worst.pop("inside"), 0, 0, None).get(task.metric, {}).get("value")
    out = {k: worst[k] for k in ("column", "group", "rows", "value", "low", "high")} | {"others": rest, "clear": None}
    bound = worst["high"] if worst["higher_is_better"] else worst["low"]
    if rest is not None and math.isfinite(rest) and bound is not None:
        out["clear"] = bool(bound < rest) if worst["higher_is_better"] else bool(bound > rest)
    return out


def _place(bins: Bins, name: str) -> tuple[int, int, str]:
    """Amounts rising, other values by name, absent ones last."""
    if name == ABSENT:
        return (2, 0, name)
    if bins.edges:
        names = [bins.of(e) for e in (bins.edges[0] - 1 - abs(bins.edges[0]), *bins.edges)]
        return (0, names.index(name) if name in names else len(names), name)
    return (1, 0, name)
