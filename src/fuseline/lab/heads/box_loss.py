"""What makes proposed boxes right. Dimensions: B batch, Q queries, K true boxes of a row, N matches, C classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fuseline.lab.heads.box_views import corners

CLASS, EDGE, OVERLAP = 2.0, 5.0, 2.0
"""weights of the parts, in the cost of a match as in the loss (DETR, Carion et al. 2020)"""
EASY = 0.75
"""weight of what is no box (varifocal loss, Zhang et al. 2021)"""


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of corners (..., 4) that broadcast."""
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    union = _area(a) + _area(b) - both
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    iou = both / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


@torch.no_grad()
def assign(logits_QC: Tensor, boxes_Q4: Tensor, true_K4: Tensor, labels_K: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest one-to-one match (Kuhn 1955) of queries and true boxes: their numbers (N,) and (N,)."""
    score_QK = logits_QC.sigmoid()[:, labels_K]
    edge_QK = torch.cdist(boxes_Q4, true_K4, p=1)
    _, giou_QK = overlaps(corners(boxes_Q4)[:, None], corners(true_K4)[None])
    cost_QK = -CLASS * score_QK + EDGE * edge_QK - OVERLAP * giou_QK
    queries, truths = linear_sum_assignment(torch.nan_to_num(cost_QK, 1e6, 1e6, -1e6).cpu().numpy())
    device = logits_QC.device
    return torch.as_tensor(queries, device=device), torch.as_tensor(truths, device=device)


def box_loss(logits_BQC: Tensor, boxes_BQ4: Tensor, true_BK4: Tensor, labels_BK: Tensor, there_B: Tensor) -> Tensor:
    """Of one layer's proposals: varifocal class loss towards each match's overlap, L1 and 1 - GIoU of the matches, all
    by the number of true boxes of the batch.

    Args:
        logits_BQC: of the classes.
        boxes_BQ4: cx cy w h.
        true_BK4: likewise.
        labels_BK: class numbers, -1 where there is no box.
        there_B: which rows have a picture; others count for nothing.
    """
    rows, queries, truths = [], [], []
    for b in range(len(logits_BQC)):
        real = torch.nonzero(labels_BK[b] >= 0)[:, 0]
        if len(real):
            q, k = assign(logits_BQC[b], boxes_BQ4[b], true_BK4[b, real], labels_BK[b, real])
            rows.append(torch.full_like(q, b))
            queries.append(q)
            truths.append(real[k])
    wanted_BQC = torch.zeros_like(logits_BQC)
    count = max(1, sum(map(len, rows)))
    placed = logits_BQC.new_zeros(())
    if rows:
        at = (torch.cat(rows), torch.cat(queries))
        of = (at[0], torch.cat(truths))
        iou_N, giou_N = overlaps(corners(boxes_BQ4[at]), corners(true_BK4[of]))
        edges = F.l1_loss(boxes_BQ4[at], true_BK4[of], reduction="sum")
        placed = (EDGE * edges + OVERLAP * (1 - giou_N).sum()) / count
        wanted_BQC[(*at, labels_BK[of])] = iou_N.detach().clamp(min=0.01)
    chance_BQC = logits_BQC.detach().sigmoid()
    weight_BQC = torch.where(wanted_BQC > 0, wanted_BQC, EASY * chance_BQC.square())
    each_BQC = F.binary_cross_entropy_with_logits(logits_BQC, wanted_BQC, weight=weight_BQC, reduction="none")
    classes = torch.where(there_B[:, None, None], each_BQC, 0.0).sum() / count
    return CLASS * classes + placed
