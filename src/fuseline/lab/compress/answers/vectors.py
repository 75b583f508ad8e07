"""Two vectors a row, by what they are near to. Dimensions: N rows, B batch, E numbers of a vector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.compress.answers.base import Answers, Arrays, same_task
from fuseline.lab.heads.base import Head
from fuseline.lab.heads.retrieval import SHARPEST, RetrievalHead
from fuseline.tasks import Task
from fuseline.tasks.retrieval import SIDES, Retrieval


class Vectors(Answers):
    """{"left": (N, E), "right": (N, E)}: unit vectors, 0 where a row lacks the side.

    The axes of two models' vectors have nothing to do with each other, and E may differ: what is taught is how near the
    rows of a batch are to each other. Several teachers: the mean of their similarities, which is that of their vectors
    put side by side. A row that one of them cannot read is then not taught.
    """

    task: Retrieval

    def of(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        return {side: np.asarray(outputs[side], np.float64) for side in SIDES}

    def mean(self, parts: Sequence[Arrays], weights: Sequence[int]) -> Arrays:
        shares = np.sqrt(np.asarray(weights, np.float64) / np.sum(weights))
        out = {}
        for side in SIDES:
            joined_NE = np.concatenate([s * p[side] for s, p in zip(shares, parts, strict=True)], axis=1)
            out[side] = np.where(np.isnan(joined_NE).any(axis=1, keepdims=True), np.nan, joined_NE)
        return out

    def ordered(self, given: Task, told: Arrays) -> Arrays:
        same_task(given, self.task)
        assert isinstance(given, Retrieval)
        if given.sides != self.task.sides:
            message = "teacher and student bring other columns together"
            raise FuselineError("bad_teacher", message, "give both one task: its `left` and `right`")
        return told

    def distance(
        self,
        head: Head,
        outputs: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        known_B: Tensor,
        temperature: float,
    ) -> Tensor:
        """T² · KL(softmax_j(t_ij / τT) ‖ softmax_j(s_ij / τT)), mean of left to right and right to left, with s and t
        the cosines of left i and right j (contrastive relational distillation: CLIP-KD, Yang et al. 2024), and τ
        the student's own temperature: its head's loss, not this one, says how sharp it is to be.

        Rows that lack a side for either, or that the teacher does not know, are in no sum.
        """
        assert isinstance(head, RetrievalHead)
        s = {side: outputs[side].float() for side in SIDES}
        t = {side: told[side].nan_to_num() for side in SIDES}
        both_B = known_B.clone()
        for side in SIDES:
            both_B &= (s[side].detach() != 0).any(dim=1) & (t[side] != 0).any(dim=1)
        scale = head.sharpness.detach().clamp(max=math.log(SHARPEST)).exp() / temperature
        s_BB, t_BB = (v["left"] @ v["right"].T * scale for v in (s, t))
        one_way_B, other_way_B = _apart(s_BB, t_BB, both_B), _apart(s_BB.T, t_BB.T, both_B)
        return temperature**2 * (one_way_B + other_way_B) / 2


def _apart(s_BB: Tensor, t_BB: Tensor, both_B: Tensor) -> Tensor:
    """KL of each row's softmax over the rows that count (B,); 0 for a row that does not."""
    least = torch.finfo(s_BB.dtype).min
    log_s_BB, log_t_BB = (v.masked_fill(~both_B, least).log_softmax(1) for v in (s_BB, t_BB))
    kl_BB = F.kl_div(log_s_BB, log_t_BB, reduction="none", log_target=True)
    return torch.where(both_B[:, None] & both_B, kl_BB, 0.0).sum(1)
