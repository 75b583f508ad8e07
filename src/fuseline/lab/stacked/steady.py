"""Rows whose way through trees does not hang on a last digit. Dimensions: B batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.fusion import StackedFusion
from fuseline.lab.stacked.head import TreeHead
from fuseline.modalities.rows import RowParser

MARGIN = 1e-4
"""Two machines' embeddings differ by some 1e-6 of their spread, which is 1: a threshold as near as this may fall
otherwise."""


@torch.no_grad()
def steady_rows(
    model: FusionModel, parser: RowParser, rows: Sequence[Mapping[str, Any]], batch: int = 8
) -> tuple[list[Mapping[str, Any]], int]:
    """The parsed rows that a parity check can hold to the last digits, and how many were left out. Without trees: all.

    A tree is a step: of a row that stands on one, the trained model and the package may rightly answer otherwise, by
    one tree's leaf. About one row in a thousand does.
    """
    if not isinstance(model.head, TreeHead) or not isinstance(model.fusion, StackedFusion):
        return list(rows), 0
    kept: list[Mapping[str, Any]] = []
    for start in range(0, len(rows), batch):
        own = rows[start : start + batch]
        arrays = parser.arrays(own)
        present_BM = torch.from_numpy(arrays.pop("present"))
        tokens = model.encode({k: torch.from_numpy(v) for k, v in arrays.items()})
        features_BF = model.fusion(tokens, present_BM).tokens_BTD[:, 0]
        margin_B = model.head.trees.margin(features_BF, model.fusion.computed)
        kept += [row for row, margin in zip(own, margin_B.tolist(), strict=True) if margin > MARGIN]
    return kept, len(rows) - len(kept)
