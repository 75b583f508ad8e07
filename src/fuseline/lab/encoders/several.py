"""Any encoder of one picture or text for a set of them. Dimensions: B batch, N items of a row, T tokens, D width."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.tokens import Tokens
from fuseline.modalities.several import SEVERAL


def encode_flat(encoder: nn.Module, arrays: dict[str, Tensor]) -> Tokens:
    """Arrays (B, N, ...) through an encoder of one item as a batch of B * N: tokens (B, N, T, D), mask (B, N, T)."""
    first = next(iter(arrays.values()))
    rows, items = first.shape[:2]
    tokens: Tokens = encoder(**{key: array.flatten(0, 1) for key, array in arrays.items()})
    values, mask = tokens.values_BTD, tokens.mask_BT
    return Tokens(values.view(rows, items, *values.shape[1:]), mask.view(rows, items, *mask.shape[1:]))


class SeveralEncoder(Encoder):
    """Abstract: items as one flat batch, their tokens side by side. Nothing tells the first item from the last: a
    fusion that attends over tokens sees a set (Zaheer et al. 2017, "Deep Sets"), and padding items are masked."""

    item_class: type[Encoder]

    def __init__(self, config: Any, modality: Any) -> None:
        super().__init__(config, modality)
        self.item = self.item_class(config, modality.item)
        self.width = self.item.width

    def lookups(self) -> tuple[nn.Embedding, ...]:
        return self.item.lookups()

    def forward(self, **arrays: Tensor) -> Tokens:
        real_BN = arrays.pop(SEVERAL)
        each = encode_flat(self.item, arrays)
        mask_BNT = each.mask_BT & real_BN[:, :, None]
        return Tokens(each.values_BTD.flatten(1, 2), mask_BNT.flatten(1, 2))


_MADE: dict[type[Encoder], type[Encoder]] = {}


def several(item: type[Encoder]) -> type[Encoder]:
    """The class for sets of what `item` encodes, with its options."""
    if item in _MADE:
        return _MADE[item]

    class Whole(SeveralEncoder):
        __doc__ = item.__doc__
        Config = item.Config
        pretrained = item.pretrained
        item_class = item

        @classmethod
        def cell_options(cls, config: Any) -> dict[str, Any]:
            return item.cell_options(config)

    Whole.__name__ = Whole.__qualname__ = f"Several{item.__name__}"
    Whole.__module__ = item.__module__
    return _MADE.setdefault(item, Whole)
