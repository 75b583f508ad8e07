"""What makes proposed boxes right. Dimensions: B batch, Q queries, K true boxes of a row, N matches, C classes."""

from __future__ import annotations

import numpy as np
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
def assign(logits_BQC: Tensor, boxes_BQ4: Tensor, true_BK4: Tensor, labels_BK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cheapest one-to-one match (Kuhn 1955) of each row's queries and true boxes: numbers of the matches' rows,
    queries and true boxes (N,) each. `labels_BK`: -1 where there is no box."""
    classes_BQK = labels_BK.clamp(min=0)[:, None].expand(-1, logits_BQC.shape[1], -1)
    score_BQK = logits_BQC.sigmoid().gather(2, classes_BQK)
    edge_BQK = torch.cdist(boxes_BQ4, true_BK4, p=1)
    _, giou_BQK = overlaps(corners(boxes_BQ4)[:, :, None], corners(true_BK4)[:, None])
    cost_BQK = torch.nan_to_num(EDGE * edge_BQK - CLASS * score_BQK - OVERLAP * giou_BQK, 1e6, 1e6, -1e6).cpu().numpy()
    rows, queries, truths = [], [], []
    for b, real in enumerate((labels_BK >= 0).cpu().numpy()):
        found, taken = linear_sum_assignment(cost_BQK[b][:, real])
        rows += [b] * len(found)
        queries += found.tolist()
        truths += np.flatnonzero(real)[taken].tolist()
    device = logits_BQC.device
    at_3N = torch.tensor([rows, queries, truths], dtype=torch.long, device=device)
    return at_3N[0], at_3N[1], at_3N[2]


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
    row_N, query_N, truth_N = assign(logits_BQC, boxes_BQ4, true_BK4, labels_BK)
    at, of = (row_N, query_N), (row_N, truth_N)
    count = max(1, len(row_N))
    iou_N, giou_N = overlaps(corners(boxes_BQ4[at]), corners(true_BK4[of]))
    edges = F.l1_loss(boxes_BQ4[at], true_BK4[of], reduction="sum")
    placed = (EDGE * edges + OVERLAP * (1 - giou_N).sum()) / count
    wanted_BQC = torch.zeros_like(logits_BQC)
    wanted_BQC[(*at, labels_BK[of])] = iou_N.detach().clamp(min=0.01)
    chance_BQC = logits_BQC.detach().sigmoid()
    weight_BQC = torch.where(wanted_BQC > 0, wanted_BQC, EASY * chance_BQC.square())
    each_BQC = F.binary_cross_entropy_with_logits(logits_BQC, wanted_BQC, weight=weight_BQC, reduction="none")
    classes = torch.where(there_B[:, None, None], each_BQC, 0.0).sum() / count
    return CLASS * classes + placed
