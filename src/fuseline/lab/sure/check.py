"""Whether what was promised holds on rows that neither training nor fitting saw: the part `sure` of metrics.json."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fuseline.lab.sure.fit import own_targets, shown
from fuseline.lab.training.evaluate import Outputs
from fuseline.tasks import Task
from fuseline.tasks.calibration import Calibration
from fuseline.tasks.classification import Classification
from fuseline.tasks.conformal import FEWEST, Conformal, Key
from fuseline.tasks.multi import Multi, own_outputs
from fuseline.tasks.selective import aurc, risk_at, risk_coverage
from fuseline.tasks.sure import Abstain, Leaf, Sure, intervals_of, leaves, sets_of

POINTS = 60
"""of a risk-coverage curve that are kept"""
NEAR = 0.02
"""how far from the stated coverage a group may be"""
CHANCE = 1.96


def check_sure(
    task: Task, sure: Sure, names: Sequence[str], outputs: Outputs, cells: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """`about`, and `tasks`: name ("" of a single one) -> `calibration` (before and after), `conformal` (a list of
    groups), `selective` (risk at some coverages, and what abstaining does)."""
    told: dict[str, dict[str, Any]] = {}
    own = task.tasks.items() if isinstance(task, Multi) else [("", task)]
    for name, one in own:
        if isinstance(one, Classification):
            known_N, targets = own_targets(task, name, outputs.targets)
            mine = {k: v[known_N] for k, v in _own(name, outputs.full).items()}
            told.setdefault(name, {})["calibration"] = _calibration(one, targets, mine, sure.about, name)
    keys = [sure.key_of(row) for row in cells]
    for name, leaf, _ in leaves(task, outputs.full):
        out = told.setdefault(name, {})
        if name in sure.conformal:
            out["coverage"] = sure.conformal[name].coverage
            out["conformal"] = _groups(task, name, leaf, sure.conformal[name], names, outputs, keys)
        if isinstance(leaf, Classification):
            out["selective"] = _selective(task, name, leaf, sure.abstain.get(name), names, outputs)
    return {"about": sure.about, "rows": len(outputs.targets), "tasks": told}


def _own(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return own_outputs(name, arrays) if name else dict(arrays)


def _calibration(
    task: Classification, targets: np.ndarray, outputs: Mapping[str, np.ndarray], about: Mapping[str, Any], name: str
) -> dict[str, Any]:
    raw = copy.copy(task)
    raw.calibration = Calibration()
    found = {}
    for word, one in (("before", raw), ("after", task)):
        scores = one.score(targets, outputs)
        figures = {k: scores.metrics[k].value for k in ("ece", "brier", "log_loss", "accuracy")}
        found[word] = {**figures, "reliability": scores.details.get("reliability")}
    return {**about.get("calibration", {}).get(name, {}), **found}


def _groups(
    task: Task,
    name: str,
    leaf: Leaf,
    conformal: Conformal,
    names: Sequence[str],
    outputs: Outputs,
    keys: Sequence[Key | None],
) -> list[dict[str, Any]]:
    """Coverage of every set of inputs shown, of the sets of inputs that rows really have, and of the columns'
    values."""
    known_N, _ = own_targets(task, name, outputs.targets)
    natural = [tuple(n for n, p in zip(names, row, strict=True) if p) for row in outputs.present_NM]
    out = []
    for key, rows, arrays in shown(outputs, names):
        rows_there = rows[known_N[rows]]
        mine = {k: v[known_N[rows]] for k, v in _own(name, arrays).items()}
        _, targets = own_targets(task, name, outputs.targets[rows])
        inside, size = _covered(
            leaf,
            conformal,
            mine,
            targets,
            [natural[i] if key is None else key for i in rows_there],
            [keys[i] for i in rows_there],
        )
        kind = "all" if key is None else "shown"
        out.append(_verdict(kind, key, None, conformal, inside, size))
        if key is None:
            for pattern in sorted(set(natural), key=lambda p: (-len(p), p)):
                own = np.array([natural[i] == pattern for i in rows_there], dtype=bool)
                if own.any():
                    out.append(_verdict("natural", pattern, None, conformal, inside[own], size[own]))
            for by in sorted({k for k in keys if k is not None}):
                own = np.array([keys[i] == by for i in rows_there], dtype=bool)
                out.append(_verdict("by", None, by, conformal, inside[own], size[own]))
    return out


def _covered(
    leaf: Leaf,
    conformal: Conformal,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    present: Sequence[Key],
    keys: Sequence[Key | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each row's known truths that are inside (N,), and the classes in its set or the interval's width
    (N,)."""
    if not len(present):
        return np.zeros(0), np.zeros(0)
    found = [conformal.find(p, k) for p, k in zip(present, keys, strict=True)]
    if isinstance(leaf, Classification):
        inside_NC = sets_of(leaf, outputs, conformal.method, found)
        answer_N = leaf.log_chances(outputs)[0].argmax(axis=1)
        inside_NC[np.arange(len(answer_N)), answer_N] = True
        truth_N = np.asarray(targets).reshape(-1).astype(int)
        return inside_NC[np.arange(len(truth_N)), truth_N].astype(float), inside_NC.sum(axis=1).astype(float)
    low_NE, high_NE = intervals_of(leaf, outputs, found)
    truth_NE = np.asarray(targets, np.float64).reshape(low_NE.shape)
    known_NE = ~np.isnan(truth_NE)
    inside_NE = (truth_NE >= low_NE) & (truth_NE <= high_NE) & known_NE
    count_N = known_NE.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return inside_NE.sum(axis=1) / np.where(count_N, count_N, np.nan), (high_NE - low_NE).mean(axis=1)


def _verdict(
    kind: str, present: Key | None, by: Key | None, conformal: Conformal, inside_N: np.ndarray, size_N: np.ndarray
) -> dict[str, Any]:
    own = next((g for g in conformal.groups if (g.present, g.by) == (present, by)), None)
    if kind == "natural":
        own = next((g for g in conformal.groups if (g.present, g.by) == (present, None)), own)
    inside_N = inside_N[~np.isnan(inside_N)]
    rows, fitted = len(inside_N), 0 if own is None else own.rows
    covered = float(inside_N.mean()) if rows else math.nan
    c = conformal.coverage
    # A threshold of n rows covers new ones with a chance that itself varies by about sqrt(c (1 - c) / n).
    chance = CHANCE * math.sqrt(c * (1 - c) * (1 / rows + 1 / fitted)) if rows and fitted else math.nan
    if fitted < FEWEST or rows < FEWEST:
        verdict = "too few rows"
    elif abs(covered - c) <= NEAR:
        verdict = "within 2 points"
    elif abs(covered - c) <= chance:
        verdict = "within chance"
    else:
        verdict = "below" if covered < c else "above"
    return {
        "kind": kind,
        "present": None if present is None else list(present),
        "by": None if by is None else list(by),
        "fitted_rows": fitted,
        "rows": rows,
        "coverage": covered,
        "chance": chance,
        "size": float(size_N.mean()) if len(size_N) else math.nan,
        "verdict": verdict,
    }


def _selective(
    task: Task, name: str, leaf: Classification, abstain: Abstain | None, names: Sequence[str], outputs: Outputs
) -> dict[str, Any]:
    known_N, _ = own_targets(task, name, outputs.targets)
    natural = [tuple(n for n, p in zip(names, row, strict=True) if p) for row in outputs.present_NM]
    out: dict[str, Any] = {}
    kept = []
    for key, rows, arrays in shown(outputs, names):
        there = known_N[rows]
        _, targets = own_targets(task, name, outputs.targets[rows])
        chance_NC = np.exp(leaf.log_chances({k: v[there] for k, v in _own(name, arrays).items()})[0])
        sure_N, wrong_N = chance_NC.max(axis=1), chance_NC.argmax(axis=1) != np.asarray(targets).reshape(-1)
        if key is None:
            curve = risk_coverage(sure_N, wrong_N)
            at = np.unique(np.linspace(0, len(sure_N) - 1, min(POINTS, len(sure_N))).astype(int))
            out["curve"] = {"coverage": curve.coverage_N[at].tolist(), "risk": curve.risk_N[at].tolist()}
            out |= {"aurc": aurc(curve), "risk": {f"{s:g}": risk_at(curve, s) for s in (1.0, 0.9, 0.8, 0.5)}}
        if abstain is not None and len(sure_N):
            limit_N = np.array([abstain.threshold(natural[i] if key is None else key) for i in rows[there]])
            given = sure_N >= limit_N
            kept.append(
                {
                    "present": None if key is None else list(key),
                    "rows": len(sure_N),
                    "answered": float(given.mean()),
                    "error": float(wrong_N[given].mean()) if given.any() else None,
                }
            )
    if abstain is not None:
        out["abstain"] = {**abstain.to_dict(), "checked": kept}
    return out
