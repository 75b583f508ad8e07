"""What every head promises. Dimensions: B batch, M inputs, C classes, K targets, D model width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from fuseline.lab.tokens import Fused, View
from fuseline.modalities import Modality
from fuseline.tasks.base import Task


class Head(nn.Module):
    """Abstract. Fused tokens in, named outputs and their loss out. Built from a fitted task and the fitted inputs."""

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__()

    @classmethod
    def needs(cls, config: Any) -> Mapping[str, Mapping[str, Any]]:
        """Encoder options that the head works best with, by modality. Where an encoder has no such option, or the
        recipe sets it, this is left aside. `config`: the task's."""
        return MappingProxyType({})

    @classmethod
    def fixed(cls, config: Any) -> Mapping[str, tuple[str, ...]]:
        """Augmentations, by modality, that would change the truth behind the head's back: presets leave them out, and
        asking for one is an error. `config`: the task's."""
        return MappingProxyType({})

    mixes = False
    """whether rows may be mixed with each other: each row's loss depends on its own target alone, and a mean of two
    rows' losses means something"""

    @classmethod
    def task_options(cls, config: Any) -> Mapping[str, Any]:
        """Options of the task that the head brings (a pretrained decoder: its tokenizer). What the recipe sets wins."""
        return MappingProxyType({})

    reads_encoded = False
    """whether `Tokens.aside` shall also hold the encoder's own tokens, as `encoded` (B, T, its width)"""

    def meet(self, encoders: Mapping[str, nn.Module]) -> None:
        """Called once, when the model around the head is built: for heads that look at an encoder's own tokens."""

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        """Outputs that `Task.decode` reads, in the target's own units, B first; all of them are exported."""
        raise TypeError("Head is abstract")

    def begin(self, batches: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """Once before training, training rows as arrays and targets: for a good start of what is learned."""

    def augment(self, arrays: dict[str, Tensor], targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """In training, where a change of an input changes its target, too: both, changed. Draws from torch's global
        generator. Arrays are named as the graph's inputs; those of frozen encoders may be missing."""
        return arrays, targets

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Mean loss of a batch, one scalar. `targets`: `Task.encode` stacked on axis 0."""
        raise TypeError("Head is abstract")

    def validation(self, outputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """What validation keeps of a batch for `Task.score`, B first: the outputs, unless they are too much."""
        return outputs


Config = Any
