"""What every augmentation promises: arrays of one input in, the same arrays of other cells out.

Rules:
- it works on the arrays of a batch, before any encoder, so that every kind of encoder learns from it, and what caches
  hold is never changed: arrays are replaced, not written to;
- every number is drawn from the given :class:`Draw`, which is a function of (seed, step, input, rows);
- dtypes and dimensions stay what the modality promises, and absent cells stay absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fuseline.modalities import Modality
from fuseline.recipe import Frozen

Arrays = dict[str, Tensor]
"""one input's arrays by their own names (`pixels`, not `xray.pixels`)"""


class Draw:
    """Random numbers of one input in one step."""

    def __init__(self, device: torch.device, *entropy: int) -> None:
        """`entropy`: what the numbers are a function of; every number is at least 0."""
        low, high = np.random.SeedSequence(list(entropy)).generate_state(2).tolist()
        self.device = device
        self._generator = torch.Generator(device).manual_seed(low + (high << 31))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self._generator, device=self.device)

    def spread(self, size: float, *shape: int) -> Tensor:
        """Uniform in ±size."""
        return self.uniform(*shape, low=-size, high=size)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)

    def chance(self, share: float, *shape: int) -> Tensor:
        """True with chance `share`."""
        return self.uniform(*shape) < share


class Augment:
    """Abstract. Owns its `Config`, whose defaults are the preset `default`."""

    Config: ClassVar[type[Frozen]]
    strong: ClassVar[Mapping[str, Any]]
    """what the preset `strong` has instead of the defaults"""
    off: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """the value of an option that means `not at all`, where that is not 0"""

    def __init__(self, config: Any, modality: Modality) -> None:
        """`modality` is fitted: spreads, tokenizers and lengths are read from it."""
        self.config = config

    @classmethod
    def check(cls, config: Any) -> None:
        """Read whatever files the options name, before any training; a package is opened without them. Raises
        FuselineError."""

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        """Changed arrays, of the rows that are present; the others' dummies may change, too: nobody sees them."""
        raise TypeError("Augment is abstract")

    def reword(self, cells: Sequence[Mapping[str, Any]], draw: Draw) -> list[dict[str, Any]] | None:
        """Cells of rows, changed before they are parsed; None: this augmentation works on arrays alone."""
        return None

    def says(self) -> str:
        """The options that are on, for the report."""
        shown = self.config.model_dump(mode="json")
        on = {k: v for k, v in shown.items() if v not in (0, 0.0, False, None) and self.off.get(k) != v}
        return ", ".join(f"{k} {'' if v is True else _short(v)}".strip() for k, v in on.items()) or "nothing"


def _short(value: Any) -> str:
    return f"{len(value)} words" if isinstance(value, dict) else str(value)


def per_item(change: Callable[[Arrays], Arrays], arrays: Arrays, mark: str) -> Arrays:
    """`change` on sets of items: (B, N, ...) as (B * N, ...) and back. `mark`: the array that is one number an item."""
    items = {k: v for k, v in arrays.items() if k != mark}
    rows, count = arrays[mark].shape[:2]
    changed = change({k: v.flatten(0, 1) for k, v in items.items()})
    return {**{k: v.reshape(rows, count, *v.shape[1:]) for k, v in changed.items()}, mark: arrays[mark]}
