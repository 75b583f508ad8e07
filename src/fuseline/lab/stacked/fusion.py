"""What trees read of each input. Dimensions: B batch, M inputs, T tokens, D an encoder's width, P principal
components, O linear answers, N numbers, C categories, V values of a category, F features of all inputs, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fuseline.lab.fusion.base import Fusion
from fuseline.lab.fusion.parts import FusionConfig, Intake, mean_pool
from fuseline.lab.tokens import Fused, Tokens

CODE_WIDTH = 8
"""numbers that stand for a category in the embedding"""
LARGEST_SCORE = 8.0
"""standardised numbers are cut here in the embedding, not in what trees read"""
Arrays = Mapping[str, np.ndarray]


class Part(NamedTuple):
    """One input's features, those that are categories apart, and its share of the embedding, finite."""

    categories_BC: Tensor
    numbers_BN: Tensor
    embedding_BE: Tensor


class Reduced(nn.Module):
    """A mean token (B, D) as its principal components, of variance 1 each, and its linear answers."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        for name in ("mean_D", "components_DP", "probe_DO", "bias_O"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.float32))

    def forward(self, pooled_BD: Tensor) -> Part:
        centred_BD = pooled_BD - self.get_buffer("mean_D")
        components_BP = centred_BD @ self.get_buffer("components_DP")
        probe_BO = centred_BD @ self.get_buffer("probe_DO") + self.get_buffer("bias_O")
        return Part(pooled_BD[:, :0], torch.cat([components_BP, probe_BO], dim=1), components_BP)

    @property
    def computed(self) -> list[bool]:
        """By category and number: whether it is the outcome of arithmetic."""
        return [True] * (self.get_buffer("components_DP").shape[1] + self.get_buffer("bias_O").shape[0])


class Raw(nn.Module):
    """A table's cells (B, C + N), categories first, as RawTable gives them: codes by table, numbers as they are.

    In the embedding a category is a fixed random vector, about as far from any other as from an absent one's zeros.
    """

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        for name in ("code_CV", "vector_CVE", "centre_N", "scale_N"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.float32))

    def forward(self, cells_BD: Tensor) -> Part:
        code_CV, vector_CVE = self.get_buffer("code_CV"), self.get_buffer("vector_CVE")
        categories, values = code_CV.shape
        numbers_BN = cells_BD[:, categories:]
        score_BN = (numbers_BN - self.get_buffer("centre_N")) / self.get_buffer("scale_N")
        score_BN = torch.where(torch.isnan(score_BN), 0.0, score_BN).clamp(-LARGEST_SCORE, LARGEST_SCORE)
        if not categories:
            return Part(cells_BD[:, :0], numbers_BN, score_BN)
        first_C = torch.arange(categories, device=cells_BD.device) * values
        place_BC = cells_BD[:, :categories].long() + first_C
        vectors_BE = vector_CVE.flatten(0, 1)[place_BC].flatten(1)
        return Part(code_CV.flatten()[place_BC], numbers_BN, torch.cat([score_BN, vectors_BE], dim=1))

    @property
    def computed(self) -> list[bool]:
        return [False] * self.get_buffer("centre_N").shape[0]


def pool(intake: Intake, tokens: dict[str, Tokens], present_BM: Tensor) -> tuple[list[Tensor], Tensor]:
    """The mean token (B, D) of each input, and which inputs are there (B, M)."""
    taken = intake(tokens, present_BM)
    return [mean_pool(own) for own in taken.tokens], taken.present_BM


class StackedFusion(Fusion):
    """The features of all inputs, side by side: [categories; numbers; components; linear answers; presence].

    What an absent input would give is NaN, as is an absent cell; trees send it the way that was better in training.
    `pooled_BD` is the embedding: the same without the linear answers, in standard units, 0 where absent, and so finite.
    `tokens_BTD` is one token, the features themselves.
    """

    Config = FusionConfig
    adapted = False

    def __init__(self, parts: Sequence[Arrays], *, names: tuple[str, ...]) -> None:
        super().__init__(None, names=names, width=0)
        self.intake = Intake(names, 0.0)
        self.parts = nn.ModuleList(Raw(a) if "code_CV" in a else Reduced(a) for a in parts)

    def features(self, pooled: Sequence[Tensor], present_BM: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) with NaN, and the embedding (B, E) without."""
        given = [part(own) for part, own in zip(self.parts, pooled, strict=True)]
        here = [present_BM[:, m, None] for m in range(len(given))]
        missing = float("nan")
        features = [torch.where(h, g.categories_BC, missing) for h, g in zip(here, given, strict=True)]
        features += [torch.where(h, g.numbers_BN, missing) for h, g in zip(here, given, strict=True)]
        embedding = [torch.where(h, g.embedding_BE, 0.0) for h, g in zip(here, given, strict=True)]
        there_BM = present_BM.to(features[0].dtype)
        return torch.cat([*features, there_BM], dim=1), torch.cat([*embedding, there_BM], dim=1)

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Fused:
        features_BF, embedding_BE = self.features(*pool(self.intake, tokens, present_BM))
        features_B1F = features_BF[:, None]
        return Fused(embedding_BE, features_B1F, torch.ones_like(features_B1F[:, :, 0], dtype=torch.bool))

    @property
    def categories(self) -> int:
        """How many features, the first ones, are categories."""
        return sum(len(part.get_buffer("code_CV")) for part in self.parts if isinstance(part, Raw))

    @property
    def owners(self) -> np.ndarray:
        """Which input each feature (F,) is of."""
        parts = [part for part in self.parts if isinstance(part, (Raw, Reduced))]
        categories = [m for m, p in enumerate(parts) if isinstance(p, Raw) for _ in p.get_buffer("code_CV")]
        numbers = [m for m, part in enumerate(parts) for _ in part.computed]
        return np.array([*categories, *numbers, *range(len(parts))])

    @property
    def computed(self) -> Tensor:
        """Which features (F,) are the outcome of arithmetic, and so differ in their last digits between machines."""
        numbers = [flag for part in self.parts if isinstance(part, (Raw, Reduced)) for flag in part.computed]
        return torch.tensor([False] * self.categories + numbers + [False] * len(self.parts))
