"""Trees' sums as a task's outputs. Dimensions: B batch, F features, C classes, K targets or classes."""

from __future__ import annotations

import torch
from torch import Tensor

from fuseline.lab.heads.base import Head
from fuseline.lab.stacked.trees import Arrays, Trees
from fuseline.lab.tokens import Fused, View
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.regression import Regression


class TreeHead(Head):
    """{"logits": (B, C)}, logarithms of the classes' chances, or of the odds of each label where multilabel; or
    {"prediction": (B, K)}, in the targets' own units. Behind a StackedFusion, whose one token are the features."""

    def __init__(self, task: Task, trees: Arrays) -> None:
        super().__init__(task, {}, width=0, dropout=0.0)
        self.trees = Trees(trees)
        self.kind = task.name
        if isinstance(task, Classification):
            self.multilabel = task.mode == "multilabel"
        elif isinstance(task, Regression):
            self.register_buffer("mean_K", torch.tensor(task.mean, dtype=torch.float32))
            self.register_buffer("std_K", torch.tensor(task.std, dtype=torch.float32))
        else:
            raise AssertionError(task.name)

    def forward(self, fused: Fused, view: View | None = None) -> dict[str, Tensor]:
        return self.answer(fused.tokens_BTD[:, 0])

    def answer(self, features_BF: Tensor) -> dict[str, Tensor]:
        """The outputs of rows whose features are known."""
        raw_BK: Tensor = self.trees(features_BF)
        if self.kind == "regression":
            return {"prediction": raw_BK * self.get_buffer("std_K") + self.get_buffer("mean_K")}
        return {"logits": raw_BK if self.multilabel else raw_BK.log_softmax(dim=-1)}
