"""Conformal prediction, conditional on which inputs a row has. numpy only. Dimensions: N rows, B batch, C classes, E
entries (targets of a regression, or steps x channels of a forecast), Q quantiles.

Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): a score says how badly a truth fits an answer; the
ceil((n + 1) coverage)-th smallest score of n rows that training never saw is the threshold; all truths whose score is
no larger are in the set. Where rows are exchangeable, the set holds the truth with at least the stated chance.

Scores: of classes LAC, 1 - p (Sadinle et al. 2019), APS, the chance of all classes that are at least as likely (Romano
et al. 2020), RAPS, that and a penalty on the rank (Angelopoulos et al. 2021); of numbers |y - answer|; of forecasts
with quantiles CQR, max(low - y, y - high) (Romano et al. 2019), one threshold for each step and channel.

Thresholds are fitted for each group (Mondrian): which inputs are there, and, if wanted, the values of some columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fuseline.tasks.base import Task

FEWEST = 30
"""rows below which a group takes a coarser group's threshold: its own would hold by luck"""
RAPS_PENALTY, RAPS_FREE = 0.1, 1
"""of every rank after the first; fixed, since choosing them would need rows of their own"""

Key = tuple[str, ...]


def quantile(scores_NE: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds (E,), infinite where there are too few rows for any, and how many rows each is made of (E,). NaN is no
    row. The smallest t with at least ceil((n + 1) coverage) of the n scores no larger: ties can only cover more."""
    ordered_NE = np.sort(scores_NE, axis=0)  # NaN last
    count_E = (~np.isnan(scores_NE)).sum(axis=0)
    # A product that is whole but for rounding shall not cost a row: 0.9 * 10 is 9, not 9.000000000000002.
    rank_E = np.ceil((count_E + 1) * coverage - 1e-9).astype(int)
    out_E = np.full(scores_NE.shape[1], math.inf)
    for e in np.flatnonzero((rank_E <= count_E) & (count_E > 0)):
        out_E[e] = ordered_NE[max(rank_E[e], 1) - 1, e]
    return out_E, count_E


def class_scores(log_BC: np.ndarray, method: str) -> np.ndarray:
    """How badly each class fits each row (B, C)."""
    p_BC = np.asarray(np.exp(log_BC))
    if method == "lac":
        return np.asarray(1 - p_BC)
    order_BC = np.argsort(-p_BC, axis=1, kind="stable")
    sorted_BC = np.take_along_axis(p_BC, order_BC, axis=1)
    total_BC = np.cumsum(sorted_BC, axis=1)
    if method == "raps":
        total_BC = total_BC + RAPS_PENALTY * np.maximum(np.arange(1, p_BC.shape[1] + 1) - RAPS_FREE, 0)
    out_BC: np.ndarray = np.empty_like(p_BC)
    np.put_along_axis(out_BC, order_BC, total_BC, axis=1)
    return out_BC


def bounds_of(task: Task, outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What an interval widens, (B, E) each: the number twice, or the lowest and the highest forecast quantile."""
    if task.name == "regression":
        answer_BE = np.asarray(outputs["prediction"], np.float64)
        answer_BE = answer_BE.reshape(len(answer_BE), -1)
        return answer_BE, answer_BE
    quantiles_BKCQ = np.asarray(outputs["forecast"], np.float64)
    rows = len(quantiles_BKCQ)
    return quantiles_BKCQ[..., 0].reshape(rows, -1), quantiles_BKCQ[..., -1].reshape(rows, -1)


def scores_of(task: Any, method: str, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The true values' scores (N, E); NaN where a target is not known."""
    if task.name == "classification":
        # Of the chances as the model says them: a map fitted on these very rows would make them look better than new
        # ones.
        scores_NC = class_scores(task.raw_log_chances(outputs)[0], method)
        return np.take_along_axis(scores_NC, np.asarray(targets).reshape(-1, 1).astype(int), axis=1)
    low_NE, high_NE = bounds_of(task, outputs)
    truth_NE = np.asarray(targets, np.float64).reshape(len(low_NE), -1)
    return np.asarray(np.maximum(low_NE - truth_NE, truth_NE - high_NE))


@dataclass(frozen=True)
class Group:
    """Rows that share a threshold. `present` None: rows as they come; `by` None: whatever the columns say."""

    present: Key | None
    by: Key | None
    rows: int
    threshold_E: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        return {
            "present": None if self.present is None else list(self.present),
            "by": None if self.by is None else list(self.by),
            "rows": self.rows,
            "threshold": [float(t) if math.isfinite(t) else None for t in self.threshold_E],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Group:
        return cls(
            present=None if data["present"] is None else tuple(data["present"]),
            by=None if data["by"] is None else tuple(data["by"]),
            rows=int(data["rows"]),
            threshold_E=np.array([math.inf if t is None else float(t) for t in data["threshold"]]),
        )


@dataclass(frozen=True)
class Found:
    """The threshold for one row and what it is worth."""

    threshold_E: np.ndarray
    rows: int
    note: str = ""


class Conformal:
    """Thresholds by group, and the way from a fine group to a coarser one."""

    def __init__(self, coverage: float, method: str, groups: Sequence[Group]) -> None:
        self.coverage, self.method, self.groups = coverage, method, list(groups)
        self._by_key = {(g.present, g.by): g for g in groups}

    def to_dict(self) -> dict[str, Any]:
        return {"coverage": self.coverage, "method": self.method, "groups": [g.to_dict() for g in self.groups]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Conformal:
        return cls(float(data["coverage"]), str(data["method"]), [Group.from_dict(g) for g in data["groups"]])

    def find(self, present: Key, by: Key | None) -> Found | None:
        """The finest group with enough rows; else the widest of what is known of rows with no more inputs than these,
        which is no promise about such rows and is said; None where there is nothing finite at all."""
        for key in ((present, by), (present, None)) if by is not None else ((present, None),):
            group = self._by_key.get(key)
            if group is not None and group.rows >= FEWEST:
                note = ""
                if by is not None and key[1] is None:
                    note = f"too few rows with {', '.join(by)}: the {self._share} holds for all values together"
                return Found(group.threshold_E, group.rows, note)
        known = [
            g
            for g in self.groups
            if g.by is None and g.rows >= FEWEST and (g.present is None or set(g.present) <= set(present))
        ]
        if not known:
            return None
        words = ", ".join(present) or "no input"
        note = f"no guarantee: too few held-out rows with {words}; the widest of related groups was taken"
        return Found(np.max([g.threshold_E for g in known], axis=0), max(g.rows for g in known), note)

    @property
    def _share(self) -> str:
        return f"{100 * self.coverage:g} %"


def fit_conformal(
    scores: Sequence[tuple[Key | None, np.ndarray, Sequence[Key] | None]], *, coverage: float, method: str
) -> Conformal:
    """Thresholds of every group.

    Args:
        scores: for each set of inputs (None: rows as they come) its rows' scores (N, E), and each row's values of the
            columns that further divide them (None: nothing does).
        coverage: the chance that is promised.
        method: of :func:`class_scores`; what numbers do has no choice.
    """
    groups: list[Group] = []
    for present, scores_NE, by in scores:
        groups.append(_group(present, None, scores_NE, coverage))
        for key in sorted(set(by)) if by is not None else ():
            own = [i for i, k in enumerate(by or ()) if k == key]
            groups.append(_group(present, key, scores_NE[own], coverage))
    return Conformal(coverage, method, [g for g in groups if g.rows >= FEWEST])


def _group(present: Key | None, by: Key | None, scores_NE: np.ndarray, coverage: float) -> Group:
    threshold_E, count_E = quantile(scores_NE, coverage)
    return Group(present, by, int(count_E.min(initial=len(scores_NE))) if len(count_E) else 0, threshold_E)
