"""Answers to several tasks at once. Dimensions: N rows, B batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.compress.answers.base import Answers, Arrays, same_task
from fuseline.lab.heads.base import Head
from fuseline.lab.heads.multi import MultiHead
from fuseline.tasks import Task
from fuseline.tasks.multi import Multi, own_outputs


class Several(Answers):
    """{"<task>.<name>": what that task's own answers are}. The teacher answers every task of every row: a row that
    lacks a task's target is taught that task by its teacher alone."""

    task: Multi

    def __init__(self, task: Task, weights: Mapping[str, float] | None = None) -> None:
        """`weights`: of the tasks, once and for all; None: as the student's head weighs them now."""
        from fuseline.lab.compress.answers import answers_of

        super().__init__(task)
        self.weights = weights
        self.parts = {name: answers_of(one) for name, one in self.task.tasks.items()}

    def of(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        return _named({name: part.of(own_outputs(name, outputs)) for name, part in self.parts.items()})

    def mean(self, parts: Sequence[Arrays], weights: Sequence[int]) -> Arrays:
        return _named(
            {n: part.mean([own_outputs(n, told) for told in parts], weights) for n, part in self.parts.items()}
        )

    def ordered(self, given: Task, told: Arrays) -> Arrays:
        same_task(given, self.task)
        assert isinstance(given, Multi)
        lacks = [name for name in self.parts if name not in given.tasks]
        if lacks:
            message = f"the teacher has no task {', '.join(lacks)}; it has {', '.join(given.tasks)}"
            raise FuselineError("bad_teacher", message, "a teacher answers all of its student's tasks")
        return _named({n: part.ordered(given.tasks[n], own_outputs(n, told)) for n, part in self.parts.items()})

    def distance(
        self,
        head: Head,
        outputs: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        known_B: Tensor,
        temperature: float,
    ) -> Tensor:
        """Σ_k w_k · task k's own distance, w the weights of the head's losses. Where those are learned, the labels
        alone teach them: as a factor of a distance they would only ever shrink."""
        assert isinstance(head, MultiHead)
        weights = head.weights() if self.weights is None else self.weights
        total_B = torch.zeros(len(known_B), device=known_B.device)
        for name, own in zip(head.names, head.heads, strict=True):
            given = own_outputs(name, outputs), own_outputs(name, told)
            total_B = total_B + weights[name] * self.parts[name].distance(own, *given, known_B, temperature)
        return total_B

    def fixed(self, head: Head) -> Several:
        assert isinstance(head, MultiHead)
        return Several(self.task, head.weights())


def _named(by_task: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}.{key}": value for name, own in by_task.items() for key, value in own.items()}
