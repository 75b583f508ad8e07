"""Small random inputs for fusions. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fuseline.lab.fusion import fusion_class
from fuseline.lab.fusion.base import Fusion
from fuseline.lab.tokens import Tokens

WIDTH = 16
LENGTHS = (5, 3, 1, 4, 2, 6)

Given = tuple[dict[str, Tokens], Tensor]


def make_inputs(inputs: int = 3, rows: int = 6, seed: int = 0) -> Given:
    """Rows with mixed presence and padding; row 0 has everything, the last row nothing."""
    generator = torch.Generator().manual_seed(seed)
    tokens = {}
    for i in range(inputs):
        length = LENGTHS[i]
        real_B = torch.randint(1, length + 1, (rows,), generator=generator)
        values_BTD = torch.randn(rows, length, WIDTH, generator=generator)
        tokens[f"m{i}"] = Tokens(values_BTD, torch.arange(length)[None] < real_B[:, None])
    present_BM = torch.rand(rows, inputs, generator=generator) > 0.4
    present_BM[0], present_BM[-1] = True, False
    return tokens, present_BM


def build(kind: str, inputs: int = 3, seed: int = 1, **options: Any) -> Fusion:
    torch.manual_seed(seed)
    cls = fusion_class(kind)
    fusion = cls(cls.Config(**options), names=tuple(f"m{i}" for i in range(inputs)), width=WIDTH)
    with torch.no_grad():  # away from the symmetric starts (zero queries), where a bug could hide
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return fusion.eval()


@pytest.fixture
def inputs() -> Callable[..., Given]:
    return make_inputs


@pytest.fixture
def make() -> Callable[..., Fusion]:
    return build
