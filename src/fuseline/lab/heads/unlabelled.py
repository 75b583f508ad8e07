"""The head of a model that learns without a task. Dimensions: B batch."""

from __future__ import annotations

from torch import Tensor

from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, View


class UnlabelledHead(Head):
    """No weights and no outputs: what is learned is the objective's, see lab/pretrain/objective.py."""

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        return {}
