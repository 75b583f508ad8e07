"""A fused batch and what a head sees beside it, without a model around it."""

from __future__ import annotations

import torch

from fuseline.lab.tokens import Fused, View


def seen(fused: Fused) -> tuple[Fused, View]:
    """The arguments of a head that looks at the fused vector alone."""
    return fused, View({}, torch.ones(len(fused.pooled_BD), 1, dtype=torch.bool), lambda present_BM: fused)
