"""What a linear estimator reads of each input, and its answer: an ordinary linear layer of the graph.

Dimensions: B batch, M inputs, D an encoder's width, N numbers, C categories, V values of a category, W kept values of
all categories, F features of all inputs, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fuseline.lab.encoders.tabular import LARGEST_SCORE
from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import FusionConfig, Intake
from fuseline.lab.heads.base import Head
from fuseline.lab.stacked.fusion import pool
from fuseline.lab.tokens import Fused, Tokens, View
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification

SHORTEST = 1e-2
"""of a vector that is brought to length 1, in units of the usual length: a shorter one has no direction to speak of"""
Arrays = Mapping[str, np.ndarray]


class Centred(nn.Module):
    """A mean token (B, D) less the training rows' mean, in units of their usual length; brought to length 1 where
    `unit_1` says so (CL2N of Wang et al. 2019, "SimpleShot")."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        for name in ("mean_D", "length_1", "unit_1"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.float32))
        self.unit = bool(arrays["unit_1"][0])

    def forward(self, pooled_BD: Tensor) -> Tensor:
        x_BD = (pooled_BD - self.get_buffer("mean_D")) / self.get_buffer("length_1")
        if not self.unit:
            return x_BD
        return x_BD / x_BD.square().sum(dim=1, keepdim=True).sqrt().clamp(min=SHORTEST)

    @property
    def width(self) -> int:
        return len(self.get_buffer("mean_D"))


class Coded(nn.Module):
    """A table's cells (B, C + N), as RawTable gives them: a number's robust score and whether it is there, and a 1 in
    the place of each category's value. An absent cell is zeros, a value that training rows lack as well."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        for name in ("kept_CVW", "centre_N", "scale_N", "share_1"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.float32))

    def forward(self, cells_BD: Tensor) -> Tensor:
        kept_CVW, centre_N = self.get_buffer("kept_CVW"), self.get_buffer("centre_N")
        categories, values, _ = kept_CVW.shape
        numbers_BN = cells_BD[:, categories:]
        there_BN = ~torch.isnan(numbers_BN)
        most_N = LARGEST_SCORE * self.get_buffer("scale_N")
        # Cut before the division, as in fuseline.lab.encoders.tabular.Scaler.
        off_BN = torch.where(there_BN, numbers_BN - centre_N, 0.0)
        score_BN = torch.maximum(torch.minimum(off_BN, most_N), -most_N) / self.get_buffer("scale_N")
        out = [score_BN, there_BN.to(score_BN.dtype)]
        if categories:
            first_C = torch.arange(categories, device=cells_BD.device) * values
            out.append(kept_CVW.flatten(0, 1)[cells_BD[:, :categories].long() + first_C].sum(dim=1))
        return torch.cat(out, dim=1) * self.get_buffer("share_1")

    @property
    def width(self) -> int:
        return 2 * len(self.get_buffer("centre_N")) + self.get_buffer("kept_CVW").shape[2]


class SideBySide(Fusion):
    """The inputs' vectors side by side, zeros where an input is absent, and behind them which inputs are there.

    A linear layer over it is a sum of one answer an input that the row has; what it adds for an input's presence is
    learned, and nothing stands for an absent one. `pooled_BD` is the embedding as well.
    """

    Config = FusionConfig
    adapted = False

    def __init__(self, parts: Sequence[Arrays], *, names: tuple[str, ...]) -> None:
        super().__init__(None, names=names, width=0)
        self.intake = Intake(names, 0.0)
        self.parts = nn.ModuleList(Coded(a) if "kept_CVW" in a else Centred(a) for a in parts)

    def features(self, pooled: Sequence[Tensor], present_BM: Tensor) -> Tensor:
        """(B, F), finite."""
        given = [
            torch.where(present_BM[:, m, None], part(own), 0.0)
            for m, (part, own) in enumerate(zip(self.parts, pooled, strict=True))
        ]
        return torch.cat([*given, present_BM.to(given[0].dtype)], dim=1)

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        features_BF = self.features(*pool(self.intake, tokens, present_BM))
        one_B1F = features_BF[:, None]
        return Fused(features_BF, one_B1F, torch.ones_like(one_B1F[:, :, 0], dtype=torch.bool))

    @property
    def widths(self) -> list[int]:
        return [part.width for part in self.parts if isinstance(part, (Centred, Coded))]

    @property
    def owners(self) -> np.ndarray:
        """Which input each feature (F,) is of."""
        return np.concatenate([np.repeat(np.arange(len(self.parts)), self.widths), np.arange(len(self.parts))])


class LinearHead(Head):
    """{"logits": (B, K)} of one linear layer: logarithms of the classes' chances, or of each label's odds where
    multilabel. A class that no training row has (`seen_K` 0) has the chance that its bias says."""

    def __init__(self, task: Task, arrays: Arrays) -> None:
        super().__init__(task, {}, width=0, dropout=0.0)
        assert isinstance(task, Classification)
        self.multilabel = task.mode == "multilabel"
        self.kind = "prototypes" if arrays["means_1"][0] else "linear_probe"
        classes, features = arrays["weight_KF"].shape
        self.project = nn.Linear(features, classes)
        with torch.no_grad():
            self.project.weight.copy_(torch.tensor(arrays["weight_KF"], dtype=torch.float32))
            self.project.bias.copy_(torch.tensor(arrays["bias_K"], dtype=torch.float32))
        self.register_buffer("seen_K", torch.tensor(arrays["seen_K"], dtype=torch.float32))

    def forward(self, fused: Fused, view: View | None = None) -> dict[str, Tensor]:
        return self.answer(fused.pooled_BD)

    def answer(self, features_BF: Tensor) -> dict[str, Tensor]:
        """The outputs of rows whose features are known."""
        raw_BK = self.project(features_BF).float()
        if self.multilabel:
            return {"logits": raw_BK}
        seen_K = self.get_buffer("seen_K") > 0
        log_BK = torch.where(seen_K, raw_BK, -1e9).log_softmax(dim=-1)
        return {"logits": torch.where(seen_K, log_BK, raw_BK)}
