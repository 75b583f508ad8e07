"""A table's cells as they are, for trees. Dimensions: B batch, N numbers, C categories."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen


class RawTable(Encoder):
    """One token a row, C + N wide: the categories' indices, then the numbers, NaN where a cell has none.

    Not in the table of encoders: a recipe cannot ask for it, and no layer could learn from NaN.
    """

    Config = Frozen

    def __init__(self, modality: Any) -> None:
        super().__init__(None, modality)
        self.width = len(modality.category_names) + len(modality.number_names)

    def forward(  # type: ignore[override]
        self, numbers: Tensor | None = None, numbers_present: Tensor | None = None, categories: Tensor | None = None
    ) -> Tokens:
        parts: list[Tensor] = []
        if categories is not None:
            parts.append(categories.float())
        if numbers is not None:
            assert numbers_present is not None
            parts.append(torch.where(numbers_present, numbers, float("nan")))
        values_B1D = torch.cat(parts, dim=1)[:, None]
        return Tokens(values_B1D, torch.ones_like(values_B1D[:, :, 0], dtype=torch.bool))
