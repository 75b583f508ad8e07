"""The next steps of series and their quantiles. Dimensions: B batch, L steps of history, K steps ahead, C channels,
Q quantiles, F features known ahead, D model width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, View
from fuseline.modalities import Modality
from fuseline.tasks.base import Task
from fuseline.tasks.forecast import Forecast


class ForecastHead(Head):
    """{"forecast": (B, K, C, Q), "naive": (B, K, C), "seasonal": (B, K, C)}, in the series' own units.

    The median is the last known number + std · (a linear map of the row's own normalised history, as RLinear (Li et
    al. 2023, "Revisiting Long-term Time Series Forecasting"), + what each channel's token and the fused vector say of
    every step, + what the steps' own known future says), std the row's own deviation (RevIN). The other quantiles lie
    positive distances away from it: they never cross. At first every step is the last number.

    A row without history starts from the training rows' mean and deviation. Inputs of what is to come are read step
    by step where they are as long as the forecast.
    """

    @classmethod
    def fixed(cls, config: Any) -> Mapping[str, tuple[str, ...]]:
        # What is to come goes on at the level and with the swings of what was.
        return {"timeseries": ("scale",)}

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        assert isinstance(task, Forecast)
        self.steps, self.channels, self.middle = task.steps, task.size, task.middle
        self.quantiles = len(task.quantiles_Q)
        self.history = task.history(inputs)
        self.season = task.config.season
        self.names = tuple(inputs)
        self.future = tuple(n for n, m in inputs.items() if getattr(m, "ahead", False) and m.length == task.steps)  # type: ignore[attr-defined]
        features = sum(2 * inputs[n].size_C for n in self.future)  # type: ignore[attr-defined]
        self.register_buffer("mean_C", torch.tensor(task.mean, dtype=torch.float32))
        self.register_buffer("std_C", torch.tensor(task.std, dtype=torch.float32))
        self.register_buffer("quantiles_Q", torch.tensor(task.quantiles_Q, dtype=torch.float32), persistent=False)
        if self.history is not None:
            length = inputs[self.history].length  # type: ignore[attr-defined]
            self.line = nn.Linear(2 * length, task.steps)
            nn.init.zeros_(self.line.weight)
            nn.init.zeros_(self.line.bias)
        outs = self.steps * self.quantiles
        self.channel = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout))
        self.channel_out = nn.Linear(width, outs)
        self.step_KD = nn.Parameter(torch.randn(task.steps, width) * 0.02)
        self.step = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout))
        self.ahead = nn.Linear(features, width) if features else None
        self.step_out = nn.Linear(width, self.channels * self.quantiles)
        for out in (self.channel_out, self.step_out):
            nn.init.normal_(out.weight, std=0.01)
            nn.init.zeros_(out.bias)

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        pooled_BD = fused.pooled_BD
        rows = pooled_BD.shape[0]
        last_BC = self.get_buffer("mean_C").expand(rows, -1)
        std_BC = self.get_buffer("std_C").expand(rows, -1)
        own_BCD = pooled_BD[:, None].expand(-1, self.channels, -1)
        line_BKC = torch.zeros(rows, self.steps, self.channels, device=pooled_BD.device, dtype=pooled_BD.dtype)
        seasonal_BKC = last_BC[:, None].expand(-1, self.steps, -1)
        if self.history is not None:
            tokens = view.tokens[self.history]
            aside = tokens.aside
            assert aside is not None
            there_B = view.present_BM[:, self.names.index(self.history)] & aside["known_BLC"].any(dim=2).any(dim=1)
            there_B11 = there_B[:, None, None]
            # A channel that is all gaps starts from the training rows', as a row without any history does.
            known_BC = aside["known_BLC"].any(dim=1) & there_B[:, None]
            last_BC = torch.where(known_BC, aside["last_BC"].float(), last_BC)
            std_BC = torch.where(known_BC, aside["std_BC"].float(), std_BC)
            both_BLC = torch.cat([aside["own_BLC"], aside["known_BLC"].to(aside["own_BLC"].dtype)], dim=1)
            line_BKC = torch.where(there_B11, self.line(both_BLC.transpose(1, 2)).transpose(1, 2), 0.0)
            values_BTD = tokens.values_BTD.reshape(rows, self.channels, -1, pooled_BD.shape[1]).mean(dim=2)
            own_BCD = own_BCD + torch.where(there_B11, values_BTD, 0.0)
            seasonal_BKC = self._seasonal(aside, known_BC, last_BC)
        deltas_BCKQ = self.channel_out(self.channel(own_BCD)).unflatten(2, (self.steps, self.quantiles))
        steps_BKD = pooled_BD[:, None] + self.step_KD + self._ahead(view)
        deltas_BKCQ = self.step_out(self.step(steps_BKD)).unflatten(2, (self.channels, self.quantiles))
        deltas_BKCQ = (deltas_BKCQ + deltas_BCKQ.transpose(1, 2)).float()
        scaled_BKCQ = self._apart(deltas_BKCQ, line_BKC.float())
        forecast_BKCQ = scaled_BKCQ * std_BC[:, None, :, None] + last_BC[:, None, :, None]
        naive_BKC = last_BC[:, None].expand(-1, self.steps, -1)
        return {"forecast": forecast_BKCQ, "naive": naive_BKC + 0.0, "seasonal": seasonal_BKC + 0.0}

    def _ahead(self, view: View) -> Tensor | float:
        """What is known of each step ahead (B, K, D)."""
        if self.ahead is None:
            return 0.0
        parts = []
        for name in self.future:
            aside = view.tokens[name].aside
            assert aside is not None
            there_B11 = view.present_BM[:, self.names.index(name)][:, None, None]
            known_BKF = aside["known_BLC"] & there_B11
            parts += [torch.where(known_BKF, aside["table_BLC"].clamp(-8.0, 8.0), 0.0), known_BKF.float()]
        out: Tensor = self.ahead(torch.cat(parts, dim=2))
        return out

    def _apart(self, deltas_BKCQ: Tensor, line_BKC: Tensor) -> Tensor:
        """Quantiles that rise: the median, and softplus distances to both sides of it."""
        middle_BKC1 = (deltas_BKCQ[..., self.middle] + line_BKC)[..., None]
        apart_BKCQ = F.softplus(deltas_BKCQ)
        below = middle_BKC1 - apart_BKCQ[..., : self.middle].flip(-1).cumsum(-1).flip(-1)
        above = middle_BKC1 + apart_BKCQ[..., self.middle + 1 :].cumsum(-1)
        return torch.cat([below, middle_BKC1, above], dim=-1)

    def _seasonal(self, aside: Mapping[str, Tensor], known_BC: Tensor, last_BC: Tensor) -> Tensor:
        """The raw number one season before each step (B, K, C); the last one where that is a gap or too long ago."""
        length = aside["own_BLC"].shape[1]
        places = [length - self.season + k % self.season for k in range(self.steps)]
        if self.season > length:
            return last_BC[:, None].expand(-1, self.steps, -1)
        own_BKC = aside["own_BLC"][:, places] * aside["std_BC"][:, None] + aside["last_BC"][:, None]
        there_BKC = aside["known_BLC"][:, places] & known_BC[:, None]
        return torch.where(there_BKC, own_BKC.float(), last_BC[:, None])

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Pinball loss in standard deviations of the training target, twice (so that the median's is its absolute
        error), mean over the numbers (B, K, C) that are known."""
        answer_BKCQ = outputs["forecast"].float()
        known_BKC = ~targets.isnan()
        truth_BKC = torch.where(known_BKC, targets.float(), 0.0)
        error_BKCQ = (truth_BKC[..., None] - answer_BKCQ) / self.get_buffer("std_C")[:, None]
        quantiles_Q = self.get_buffer("quantiles_Q")
        loss_BKC = 2 * torch.maximum(quantiles_Q * error_BKCQ, (quantiles_Q - 1) * error_BKCQ).mean(dim=-1)
        return torch.where(known_BKC, loss_BKC, 0.0).sum() / known_BKC.sum().clamp(min=1)
