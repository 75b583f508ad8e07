"""Series inside the graph: how they are normalised, and what encoders hand to the head.

Dimensions: B batch, L steps, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

FLAT = 1e-3
"""a row's deviation is at least this share of the training rows': a flat line has none of its own"""


class Series(NamedTuple):
    """A row's series on its own scale: (raw - last) / std, 0 at gaps."""

    own_BLC: Tensor
    table_BLC: Tensor
    """on the training rows' scale, 0 at gaps"""
    known_BLC: Tensor
    last_BC: Tensor
    """the last known number, raw; the training mean where the row has none"""
    mean_BC: Tensor
    std_BC: Tensor

    def aside(self) -> dict[str, Tensor]:
        """As the head gets it."""
        return self._asdict()


class Normalise(nn.Module):
    """Reversible instance normalisation (Kim et al. 2022, RevIN) that leaves gaps out and centres on the last number
    (as NLinear does, Zeng et al. 2023), beside the training table's own scale, which keeps levels apart."""

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, modality: Any) -> None:
        super().__init__()
        self.register_buffer("mean_C", torch.tensor(modality.mean, dtype=torch.float32))
        self.register_buffer("std_C", torch.tensor(modality.std, dtype=torch.float32))

    def forward(self, values_BLC: Tensor, known_BLC: Tensor) -> Series:
        known_BLC = known_BLC.bool()
        # On the table's scale first: a sum of squares of large raw numbers would lose their differences.
        table_BLC = torch.where(known_BLC, (values_BLC - self.mean_C) / self.std_C, 0.0)
        count_BC = known_BLC.sum(dim=1).clamp(min=1).to(table_BLC.dtype)
        mean_BC = table_BLC.sum(dim=1) / count_BC
        off_BLC = torch.where(known_BLC, table_BLC - mean_BC[:, None], 0.0)
        std_BC = (off_BLC.square().sum(dim=1) / count_BC + FLAT**2).sqrt()
        steps_L = torch.arange(1, values_BLC.shape[1] + 1, device=values_BLC.device)
        latest_BLC = torch.where(known_BLC, steps_L[:, None], 0)
        is_last_BLC = known_BLC & (latest_BLC == latest_BLC.amax(dim=1, keepdim=True))
        last_BC = torch.where(is_last_BLC, table_BLC, 0.0).sum(dim=1)
        own_BLC = torch.where(known_BLC, (table_BLC - last_BC[:, None]) / std_BC[:, None], 0.0)
        raw = [part * self.std_C for part in (last_BC, mean_BC)]
        return Series(own_BLC, table_BLC, known_BLC, raw[0] + self.mean_C, raw[1] + self.mean_C, std_BC * self.std_C)
