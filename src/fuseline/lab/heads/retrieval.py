"""Two vectors a row and the contrast that trains them. Dimensions: B batch, M inputs, D model width, E embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, View
from fuseline.modalities import Modality
from fuseline.tasks.base import Task
from fuseline.tasks.retrieval import SIDES, Retrieval

SHARPEST = 100.0
"""largest factor on a similarity (CLIP, Radford et al. 2021)"""
BIAS = -10.0
"""of SigLIP at the start: most pairs are wrong ones"""


class RetrievalHead(Head):
    """{"left": (B, E), "right": (B, E)}: unit vectors; all 0 where the row has none of the side's inputs.

    A side's vector is the model's own fusion of that side's inputs alone, as if the others were absent, and a linear
    layer. So a row with one side only is embedded like any other.
    """

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        assert isinstance(task, Retrieval)
        config = task.config
        self.kind = config.loss
        self.drop = nn.Dropout(dropout)
        self.project = nn.ModuleDict({side: nn.Linear(width, config.dim) for side in SIDES})
        for side in SIDES:
            mine = torch.tensor([name in getattr(config, side) for name in inputs])
            self.register_buffer(f"{side}_M", mine, persistent=False)
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
        self.bias = nn.Parameter(torch.tensor(BIAS)) if config.loss == "siglip" else None

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        del fused
        seen_BM = torch.stack([t.mask_BT.bool().any(dim=1) for t in view.tokens.values()], dim=1)
        out = {}
        for side in SIDES:
            mine_BM = view.present_BM.bool() & self.get_buffer(f"{side}_M")
            vector_BE = self.project[side](self.drop(view.fuse(mine_BM).pooled_BD)).float()
            there_B1 = (mine_BM & seen_BM).any(dim=1, keepdim=True)
            out[side] = torch.where(there_B1, unit(vector_BE), 0.0)
        return out

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """`targets`: digests of both sides (B, 2). With s_ij the cosine of left i and right j, τ the temperature:

        InfoNCE: mean of -log softmax_j(s_ij / τ)_i and -log softmax_i(s_ij / τ)_j over the rows that have both sides.
        SigLIP: mean over rows of -Σ_j log σ(z_ij·(s_ij / τ + b)), z 1 for a row's own pair, else -1.

        Other rows with the same left or the same right are neither right nor wrong: they are left out of the sums. Rows
        that lack a side teach nothing.
        """
        left_BE, right_BE = outputs["left"].float(), outputs["right"].float()
        both_B = (left_BE.detach() != 0).any(dim=1) & (right_BE.detach() != 0).any(dim=1)
        logits_BB = left_BE @ right_BE.T * self.sharpness.clamp(max=math.log(SHARPEST)).exp()
        own_BB = torch.eye(len(both_B), dtype=torch.bool, device=both_B.device)
        known_BB = both_B[:, None] & both_B[None] & (own_BB | ~_same(targets))
        rows = both_B.sum().clamp(min=1)
        if self.bias is not None:
            logits_BB = logits_BB + self.bias
            pair_BB = F.logsigmoid(torch.where(own_BB, logits_BB, -logits_BB))
            return -torch.where(known_BB, pair_BB, 0.0).sum() / rows
        low = torch.finfo(logits_BB.dtype).min
        logits_BB = logits_BB.masked_fill(~known_BB, low)
        own_B = logits_BB.diagonal()
        lost_B = logits_BB.logsumexp(dim=1) + logits_BB.logsumexp(dim=0) - 2 * own_B
        return torch.where(both_B, lost_B, 0.0).sum() / (2 * rows)


def unit(vector_BE: Tensor) -> Tensor:
    """Length 1, and no NaN at 0."""
    length_B1 = vector_BE.square().sum(dim=-1, keepdim=True).clamp(min=1e-12).sqrt()
    return vector_BE / length_B1


def _same(targets_B2: Tensor) -> Tensor:
    """Whether two rows have the same left or the same right (B, B); a digest of 0 is like no other."""
    equal_BB2 = (targets_B2[:, None] == targets_B2[None]) & (targets_B2[:, None] != 0)
    return equal_BB2.any(dim=2)
