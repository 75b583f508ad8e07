"""Two vectors a row and the contrast that trains them. Dimensions: B batch, M inputs, D model width, E embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.fusion.parts import mean_pool
from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, Tokens, View
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
    layer. So a row with one side only is embedded like any other. A locked side's is norm(mean of its frozen encoder's
    tokens) plus a learned centre, since such vectors crowd in one direction.
    """

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        assert isinstance(task, Retrieval)
        config = task.config
        self.kind = config.loss
        self.drop = nn.Dropout(dropout)
        self.locked, self.width = config.locked, width
        self.own = "" if self.locked == "none" else getattr(config, self.locked)[0]
        self.reads_encoded = bool(self.own)
        self.project = nn.ModuleDict({s: nn.Linear(width, config.dim) for s in SIDES if not self.own})
        for side in SIDES:
            mine = torch.tensor([name in getattr(config, side) for name in inputs])
            self.register_buffer(f"{side}_M", mine, persistent=False)
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
        self.bias = nn.Parameter(torch.tensor(BIAS)) if config.loss == "siglip" else None

    def meet(self, encoders: Mapping[str, nn.Module]) -> None:
        if not self.own:
            return
        encoder = encoders[self.own]
        if any(p.requires_grad for p in encoder.parameters()):
            hint = f"set inputs.{self.own}.encoder.tune: frozen, or task.locked: none"
            raise FuselineError("bad_recipe", f"task.locked: the encoder of {self.own} is not frozen", hint)
        dim = encoder.width
        assert isinstance(dim, int)
        self.project = nn.ModuleDict({s: nn.Linear(self.width, dim) for s in SIDES if s != self.locked})
        self.centre_E = nn.Parameter(torch.zeros(dim))

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        del fused
        seen_BM = torch.stack([t.mask_BT.bool().any(dim=1) for t in view.tokens.values()], dim=1)
        out = {}
        for side in SIDES:
            mine_BM = view.present_BM.bool() & self.get_buffer(f"{side}_M")
            there_B1 = (mine_BM & seen_BM).any(dim=1, keepdim=True)
            if side == self.locked:
                vector_BE = self._own(view, there_B1)
            else:
                vector_BE = self.project[side](self.drop(view.fuse(mine_BM).pooled_BD)).float()
            out[side] = torch.where(there_B1, unit(vector_BE), 0.0)
        return out

    def _own(self, view: View, there_B1: Tensor) -> Tensor:
        tokens = view.tokens[self.own]
        assert tokens.aside is not None
        mask_BT = tokens.mask_BT.bool() & there_B1
        values_BTE = torch.where(mask_BT[..., None], tokens.aside["encoded"], 0.0).float()
        return unit(mean_pool(Tokens(values_BTE, mask_BT))) + self.centre_E

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
        known_BB = both_B[:, None] & both_B[None] & (own_BB | ~same(targets))
        rows = both_B.sum().clamp(min=1)
        if self.bias is not None:
            logits_BB = logits_BB + self.bias
            pair_BB = F.logsigmoid(torch.where(own_BB, logits_BB, -logits_BB))
            return -torch.where(known_BB, pair_BB, 0.0).sum() / rows
        return torch.where(both_B, info_nce(logits_BB, known_BB), 0.0).sum() / rows


def info_nce(logits_BB: Tensor, known_BB: Tensor) -> Tensor:
    """InfoNCE of each row (B,), mean of both directions (van den Oord et al. 2018; CLIP, Radford et al. 2021): the
    right answers stand on the diagonal. `known_BB`: what is in the sums; rows whose own place is not are undefined."""
    logits_BB = logits_BB.masked_fill(~known_BB, torch.finfo(logits_BB.dtype).min)
    return (logits_BB.logsumexp(dim=1) + logits_BB.logsumexp(dim=0)) / 2 - logits_BB.diagonal()


def unit(vector_BE: Tensor) -> Tensor:
    """Length 1, and no NaN at 0."""
    length_B1 = vector_BE.square().sum(dim=-1, keepdim=True).clamp(min=1e-12).sqrt()
    return vector_BE / length_B1


def same(targets_B2: Tensor) -> Tensor:
    """Whether two rows have the same left or the same right (B, B); a digest of 0 is like no other."""
    equal_BB2 = (targets_B2[:, None] == targets_B2[None]) & (targets_B2[:, None] != 0)
    return equal_BB2.any(dim=2)
