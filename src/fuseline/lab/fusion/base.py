"""What every fusion promises. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from fuseline.lab.tokens import Fused, Tokens
from fuseline.recipe import Frozen


class Fusion(nn.Module):
    """Abstract. Tokens of all inputs (already D wide) and their presence in, fused tokens out.

    `present_BM`'s columns follow `names`. An absent input contributes one learned vector in the place of its pooled
    value (sum, concat, gated, low_rank) and is masked from attention; whatever its encoder gave is dropped by
    `torch.where`, never multiplied by zero. Exportable with dynamic B and T; no branch on values.
    """

    Config: ClassVar[type[Frozen]]
    adapted: ClassVar[bool] = True
    """whether it wants all tokens brought to the model's width; else as wide as each encoder makes them"""

    def __init__(self, config: Any, *, names: tuple[str, ...], width: int) -> None:
        super().__init__()

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        raise TypeError("Fusion is abstract")
