"""Records and series a little other than they were measured. Dimensions: B batch, N numbers, C categories or channels,
L steps."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fuseline.lab.augment.base import Arrays, Augment, Draw
from fuseline.modalities import Modality
from fuseline.modalities.tabular import ABSENT, OTHER
from fuseline.recipe import Frozen


class TableConfig(Frozen):
    jitter: float = Field(
        0.05, ge=0, le=5, description="deviation of noise on each number, in the column's own deviations"
    )
    drop: float = Field(0.05, ge=0, lt=1, description="share of features taken as absent; categories also as unseen")


class AugmentTable(Augment):
    """Jitter on numbers, features taken away. Dates are numbers of their own and are jittered like them."""

    Config = TableConfig
    strong = MappingProxyType({"jitter": 0.2, "drop": 0.2})

    def __init__(self, config: TableConfig, modality: Modality) -> None:
        super().__init__(config, modality)
        self.std_N = torch.as_tensor(modality.std)  # type: ignore[attr-defined]

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        config: TableConfig = self.config
        out = dict(arrays)
        if "numbers" in arrays:
            numbers_BN, known_BN = arrays["numbers"], arrays["numbers_present"]
            if config.jitter:
                moved_BN = config.jitter * self.std_N.to(numbers_BN) * draw.normal(*numbers_BN.shape)
                numbers_BN = numbers_BN + moved_BN
            if config.drop:
                known_BN = known_BN & ~draw.chance(config.drop, *known_BN.shape)
            out |= {"numbers": torch.where(known_BN, numbers_BN, 0.0), "numbers_present": known_BN}
        if "categories" in arrays and config.drop:
            own_BC = arrays["categories"]
            # To "absent" or "unseen", so that both of an encoder's vectors are trained even where neither occurs.
            instead_BC = torch.where(draw.chance(0.5, *own_BC.shape), OTHER, ABSENT).to(own_BC)
            dropped_BC = draw.chance(config.drop, *own_BC.shape) & (own_BC != ABSENT)
            out["categories"] = torch.where(dropped_BC, instead_BC, own_BC)
        return out


class SeriesConfig(Frozen):
    jitter: float = Field(
        0.05, ge=0, le=5, description="deviation of noise on each step, in the channel's own deviations"
    )
    scale: float = Field(0.1, ge=0, le=1, description="each channel's swings larger or smaller by up to this share")
    mask: float = Field(0.1, ge=0, lt=1, description="one gap in all channels, up to this share of the steps")
    silent: float = Field(
        0.0,
        ge=0,
        le=1,
        description="channels without any number, as sensors that are off: a share of them up to this one, drawn a row",
    )


class AugmentSeries(Augment):
    """Jitter and scaling (Um et al. 2017, "Data augmentation of wearable sensor data"), a gap, and silent
    channels. Gaps stay gaps, and no row loses all that it has."""

    Config = SeriesConfig
    strong = MappingProxyType({"jitter": 0.2, "scale": 0.3, "mask": 0.25})

    def __init__(self, config: SeriesConfig, modality: Modality) -> None:
        super().__init__(config, modality)
        fitted: Any = modality
        self.mean_C, self.std_C = torch.tensor(fitted.mean), torch.tensor(fitted.std)

    def __call__(self, arrays: Arrays, present_B: Tensor, draw: Draw) -> Arrays:
        config: SeriesConfig = self.config
        values_BLC, known_BLC = arrays["values"], arrays["known"]
        rows, steps, channels = values_BLC.shape
        mean_C, std_C = self.mean_C.to(values_BLC), self.std_C.to(values_BLC)
        if config.scale:
            values_BLC = mean_C + (values_BLC - mean_C) * (1 + draw.spread(config.scale, rows, 1, channels))
        if config.jitter:
            values_BLC = values_BLC + config.jitter * std_C * draw.normal(*values_BLC.shape)
        if config.mask:
            width_B = draw.uniform(rows, high=config.mask) * steps
            start_B = draw.uniform(rows) * (steps - width_B)
            at_L = torch.arange(steps, device=values_BLC.device)
            gap_BL = (at_L >= start_B[:, None]) & (at_L < (start_B + width_B)[:, None])
            left_BLC = known_BLC & ~gap_BL[:, :, None]
            # A short series may lie within the gap: it stays.
            known_BLC = torch.where(left_BLC.any(dim=1, keepdim=True), left_BLC, known_BLC)
        if config.silent:
            share_B11 = draw.uniform(rows, 1, 1, high=config.silent)
            left_BLC = known_BLC & (draw.uniform(rows, 1, channels) >= share_B11)
            known_BLC = torch.where(left_BLC.any(dim=(1, 2), keepdim=True), left_BLC, known_BLC)
        return {**arrays, "values": torch.where(known_BLC, values_BLC, 0.0), "known": known_BLC}
