"""What every head promises. Dimensions: B batch, C classes, K targets, D model width."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fuseline.lab.tokens import Fused
from fuseline.tasks.base import Task


class Head(nn.Module):
    """Abstract. Fused tokens in, named outputs and their loss out. Built from a fitted task."""

    def __init__(self, task: Task, *, width: int, dropout: float) -> None:
        super().__init__()

    def forward(self, fused: Fused) -> dict[str, Tensor]:
        """Outputs that `Task.decode` reads, in the target's own units; all of them are exported."""
        raise TypeError("Head is abstract")

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Mean loss of a batch, one scalar. `targets`: `Task.encode` stacked on axis 0."""
        raise TypeError("Head is abstract")


Config = Any
