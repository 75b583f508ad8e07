"""What every kind of taught answer promises. Dimensions: K teachers, N rows, B batch, C answers (any further shape)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.heads.base import Head
from fuseline.tasks import Task

Arrays = dict[str, np.ndarray]
"""a teacher's answers by name, rows first; NaN is what it does not know of a row"""


class Answers:
    """Abstract. How a student of one task learns from a teacher's outputs: which of them, what several teachers say
    together, and how far a student is from them."""

    def __init__(self, task: Task) -> None:
        """`task`: the student's, in the order of whose classes and targets everything is."""
        self.task = task

    def of(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        """What is taught of a model's raw outputs on some rows."""
        raise TypeError("Answers is abstract")

    def mean(self, parts: Sequence[Arrays], weights: Sequence[int]) -> Arrays:
        """What several teachers say together of the same rows: NaN where none of them knows a row. Raises
        FuselineError ``bad_teacher`` where their answers cannot be put together."""
        raise TypeError("Answers is abstract")

    def ordered(self, given: Task, told: Arrays) -> Arrays:
        """Answers to another task's questions in the order of this one's. Raises FuselineError ``bad_teacher``."""
        raise TypeError("Answers is abstract")

    def distance(
        self,
        head: Head,
        outputs: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        known_B: Tensor,
        temperature: float,
    ) -> Tensor:
        """How far a student is from the teacher (B,), differentiable; 0 or anything finite where not `known_B`.

        Args:
            head: the student's.
            outputs: the student's, as its head gave them.
            told: the teacher's answers on the same rows, see :meth:`of`.
            known_B: which rows the teacher has answered; what stands in the others' places is some other row's.
            temperature: of the softmaxes that are compared, where there are any.
        """
        raise TypeError("Answers is abstract")

    def fixed(self, head: Head) -> Answers:
        """The same, its parts weighed as this head weighs them now whatever it learns later: for comparing a model
        with what it was before."""
        return self


def same_task(given: Task, wanted: Task) -> None:
    modes = [t.mode == "multilabel" for t in (given, wanted)]
    if given.name != wanted.name or modes[0] != modes[1]:
        raise FuselineError("bad_teacher", "teacher and student have different tasks", "give both one task")


def reordered(have: Sequence[str], want: Sequence[str], told_NC: np.ndarray, fill: float) -> np.ndarray:
    """The last axis, in the order of `want`; `fill` where the teacher has none of it."""
    if list(have) == list(want):
        return told_NC
    common = [c for c in want if c in have]
    if not common:
        message = f"the teacher knows {', '.join(have[:5])}; the student is asked for {', '.join(want[:5])}"
        raise FuselineError("bad_teacher", message, "is it the right target?")
    out = np.full((*told_NC.shape[:-1], len(want)), fill, dtype=told_NC.dtype)
    out[..., [want.index(c) for c in common]] = told_NC[..., [have.index(c) for c in common]]
    return out


def weights_of(parts: Sequence[np.ndarray], weights: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The parts (K, N, ...) with 0 for NaN, and what each number weighs (K, N, ...): 0 where it was NaN."""
    parts_KNC = np.stack(parts).astype(np.float64)
    own_K = np.asarray(weights, np.float64).reshape(-1, *(1,) * (parts_KNC.ndim - 1))
    weight_KNC = np.where(np.isnan(parts_KNC), 0.0, own_K)
    return np.where(np.isnan(parts_KNC), 0.0, parts_KNC), weight_KNC


def plain_mean(parts: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
    """Over the teachers that have a number; NaN where none has."""
    parts_KNC, weight_KNC = weights_of(parts, weights)
    total_NC = weight_KNC.sum(axis=0)
    return np.where(total_NC > 0, (weight_KNC * parts_KNC).sum(axis=0) / np.maximum(total_NC, 1), np.nan)
