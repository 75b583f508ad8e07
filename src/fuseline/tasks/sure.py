"""How sure an answer is: what sure.json of a package holds, and what it adds to answers. numpy only.

A model of several tasks has an entry for each of them by name; any other has one under "". Dimensions: B batch, M
inputs, C classes, E entries of an interval (see :mod:`fuseline.tasks.conformal`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuseline.tasks.base import Decoded, Task
from fuseline.tasks.bins import Bins
from fuseline.tasks.classification import Classification
from fuseline.tasks.conformal import Conformal, Found, Key, bounds_of, class_scores
from fuseline.tasks.forecast import Forecast
from fuseline.tasks.multi import Multi, own_outputs
from fuseline.tasks.regression import Regression

MEMBER = "sure.json"
Leaf = Classification | Regression | Forecast
"""tasks of which something can be promised"""


@dataclass
class Surety:
    """What is added to one answer of one task."""

    labels: list[Any] | None = None
    """classes, one of which is the truth with the stated chance"""
    interval: tuple[float, float] | None = None
    abstained: bool | None = None
    """None: nobody asked"""
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Abstain:
    """Thresholds of certainty by inputs present; under None that of rows as they come."""

    error: float
    confidence: float
    groups: tuple[tuple[Key | None, dict[str, Any]], ...]
    """inputs -> what :func:`fuseline.tasks.selective.promise` found"""

    def to_dict(self) -> dict[str, Any]:
        groups = [{"present": None if key is None else list(key), **found} for key, found in self.groups]
        return {"error": self.error, "confidence": self.confidence, "groups": groups}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Abstain:
        groups = []
        for one in data["groups"]:
            key = None if one["present"] is None else tuple(one["present"])
            groups.append((key, {k: v for k, v in one.items() if k != "present"}))
        return cls(float(data["error"]), float(data["confidence"]), tuple(groups))

    def threshold(self, present: Key) -> float:
        """Above 1 where nothing can be promised: then no answer is given. Inputs that were never tested together get
        the strictest threshold of rows with no more than these."""
        groups = dict(self.groups)
        if present in groups:
            return _threshold(groups[present])
        known = [_threshold(found) for key, found in self.groups if key is None or set(key) <= set(present)]
        return max(known, default=math.inf)


def _threshold(found: Mapping[str, Any]) -> float:
    return math.inf if found["threshold"] is None else float(found["threshold"])


class Sure:
    """All of sure.json."""

    def __init__(
        self,
        *,
        conformal: Mapping[str, Conformal] | None = None,
        abstain: Mapping[str, Abstain] | None = None,
        by: Sequence[Bins] = (),
        odd: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """`odd`: see :mod:`fuseline.modalities.odd`. `about`: which rows all of it was fitted on, in words and
        numbers."""
        self.conformal, self.abstain = dict(conformal or {}), dict(abstain or {})
        self.by, self.odd, self.about = tuple(by), dict(odd or {}), dict(about or {})

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": 1,
            "about": self.about,
            "by": [b.to_dict() for b in self.by],
            "conformal": {name: c.to_dict() for name, c in self.conformal.items()},
            "abstain": {name: a.to_dict() for name, a in self.abstain.items()},
            "odd": self.odd,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sure:
        return cls(
            conformal={name: Conformal.from_dict(c) for name, c in data["conformal"].items()},
            abstain={name: Abstain.from_dict(a) for name, a in data["abstain"].items()},
            by=[Bins.from_dict(b) for b in data["by"]],
            odd=data["odd"],
            about=data["about"],
        )

    def key_of(self, cells: Mapping[str, Any]) -> Key | None:
        """The groups that a row's cells of the `by` columns are in."""
        return tuple(f"{b.column}: {b.of(cells.get(b.column))}" for b in self.by) if self.by else None

    def of(
        self, task: Task, outputs: Mapping[str, np.ndarray], present: Sequence[Key], cells: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Surety]]:
        """For each row, task name ("" of a single one) -> what is added to its answer.

        Args:
            task: with its calibration.
            outputs: of the rows.
            present: the inputs that each row has, in the model's order.
            cells: each row's cells of the `by` columns.
        """
        rows: list[dict[str, Surety]] = [{} for _ in present]
        keys = [self.key_of(c) for c in cells]
        for name, leaf, own in leaves(task, outputs):
            conformal, abstain = self.conformal.get(name), self.abstain.get(name)
            if conformal is None and abstain is None:
                continue
            found = [Surety() for _ in rows]
            if conformal is not None:
                _conform(leaf, own, conformal, present, keys, found)
            if abstain is not None and isinstance(leaf, Classification):
                chance_BC = np.exp(leaf.log_chances(own)[0])
                for surety, chance_C, inputs in zip(found, chance_BC, present, strict=True):
                    surety.abstained = not bool(chance_C.max() >= abstain.threshold(inputs))
            for row, surety in zip(rows, found, strict=True):
                row[name] = surety
        return rows


def leaves(task: Task, outputs: Mapping[str, np.ndarray]) -> list[tuple[str, Leaf, dict[str, np.ndarray]]]:
    """The tasks of which something can be promised, by name, with their own outputs."""
    if isinstance(task, Multi):
        own = [(name, one, own_outputs(name, outputs)) for name, one in task.tasks.items()]
    else:
        own = [("", task, dict(outputs))]
    return [(n, t, o) for n, t, o in own if isinstance(t, Leaf) and t.mode != "multilabel"]


def _conform(
    leaf: Leaf,
    outputs: Mapping[str, np.ndarray],
    conformal: Conformal,
    present: Sequence[Key],
    keys: Sequence[Key | None],
    out: Sequence[Surety],
) -> None:
    found = [conformal.find(p, k) for p, k in zip(present, keys, strict=True)]
    for surety, one in zip(out, found, strict=True):
        if one is None:
            surety.notes.append("no guarantee: too few held-out rows to fit any set or interval")
        elif one.note:
            surety.notes.append(one.note)
    if isinstance(leaf, Classification):
        answers = leaf.decode(outputs)
        inside_BC = sets_of(leaf, outputs, conformal.method, found)
        for surety, one, inside_C, answer in zip(out, found, inside_BC, answers, strict=True):
            if one is not None:
                surety.labels = [
                    c for c, inside in zip(leaf.classes, inside_C, strict=True) if inside or c == answer.value
                ]
        return
    low_BE, high_BE = intervals_of(leaf, outputs, found)
    for i, (surety, one) in enumerate(zip(out, found, strict=True)):
        if one is None:
            continue
        if not (np.isfinite(low_BE[i]).all() and np.isfinite(high_BE[i]).all()):
            surety.notes.append(
                f"no guarantee: {one.rows} held-out rows are too few for {100 * conformal.coverage:g} %"
            )
            continue
        _state(leaf, surety, low_BE[i], high_BE[i], conformal.coverage)


def _state(leaf: Leaf, surety: Surety, low_E: np.ndarray, high_E: np.ndarray, coverage: float) -> None:
    if isinstance(leaf, Forecast):
        shape = (leaf.steps, leaf.size)
        said = {"low": leaf.said(low_E.reshape(shape)), "high": leaf.said(high_E.reshape(shape))}
        surety.details["interval"] = {"coverage": coverage, **said}
    elif len(leaf.columns) == 1:
        surety.interval = (float(low_E[0]), float(high_E[0]))
    else:
        pairs = zip(leaf.columns, low_E.tolist(), high_E.tolist(), strict=True)
        surety.details["intervals"] = {column: [low, high] for column, low, high in pairs}


def sets_of(
    leaf: Classification, outputs: Mapping[str, np.ndarray], method: str, found: Sequence[Found | None]
) -> np.ndarray:
    """Which classes are in each row's set (B, C); all of them where there is no threshold. The answer itself is not
    added here."""
    scores_BC = class_scores(leaf.raw_log_chances(outputs)[0], method)
    threshold_B = np.array([math.inf if f is None else f.threshold_E[0] for f in found])
    return np.asarray(scores_BC <= threshold_B[:, None])


def intervals_of(
    leaf: Leaf, outputs: Mapping[str, np.ndarray], found: Sequence[Found | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (B, E). A threshold below 0 draws quantiles together, at most to the point between."""
    low_BE, high_BE = bounds_of(leaf, outputs)
    wide_BE = np.stack([np.full(low_BE.shape[1], math.inf) if f is None else f.threshold_E for f in found])
    middle_BE = (low_BE + high_BE) / 2
    return np.minimum(low_BE - wide_BE, middle_BE), np.maximum(high_BE + wide_BE, middle_BE)


def stated(decoded: Decoded, sureties: Mapping[str, Surety]) -> dict[str, Any]:
    """The fields of an answer that change: `value`, `interval`, `details`, `set`, `abstained`, `suggestion`, `notes`.

    An answer of which nothing can be promised has no value: a program that reads `value` shall not act on it; a person
    still sees the `suggestion`. Of several tasks, all this lies in `details` under the task's name.
    """
    out: dict[str, Any] = {"value": decoded.value, "interval": decoded.interval, "details": decoded.details}
    notes: list[str] = []
    for name, surety in sureties.items():
        told: dict[str, Any] = dict(surety.details)
        notes += [f"{name}: {n}" if name else n for n in surety.notes]
        value = decoded.value[name] if name else decoded.value
        if surety.labels is not None:
            told["set"] = surety.labels
        if surety.interval is not None:
            told["interval"] = surety.interval
        if surety.abstained is not None:
            told["abstained"] = surety.abstained
            if surety.abstained:
                told["suggestion"], value = value, None
        if name:
            if told.get("interval") is not None and isinstance(told["interval"], tuple):
                told["interval"] = list(told["interval"])
            out["value"] = {**out["value"], name: value}
            details = dict(out["details"] or {})
            out["details"] = {**details, name: {**details.get(name, {}), **told}}
        else:
            out["value"] = value
            for key in ("set", "abstained", "suggestion"):
                if key in told:
                    out[key] = told.pop(key)
            if isinstance(told.get("interval"), tuple):
                out["interval"] = told.pop("interval")
            if told:
                out["details"] = {**(out["details"] or {}), **told}
    return {**out, "notes": notes}
