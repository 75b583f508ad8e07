"""Proposed boxes with their classes' chances. Dimensions: N rows, B batch, Q the student's queries, R the teacher's, C
classes, L layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.compress.answers.base import Answers, Arrays, reordered, same_task
from fuseline.lab.compress.answers.chances import two_outcomes
from fuseline.lab.heads.base import Head
from fuseline.lab.heads.box_loss import CLASS, EDGE, OVERLAP, overlaps
from fuseline.lab.heads.box_views import centred, corners, ratio_of, to_square
from fuseline.lab.heads.detection import NOTHING, DetectionHead
from fuseline.tasks import Task
from fuseline.tasks.detection import Detection


class Boxes(Answers):
    """{"logits": (N, R, C), "boxes": (N, R, 4)}: corners in shares of the picture.

    One teacher only: two models' proposals are in no common order, and none of two overlapping boxes is their mean.
    """

    task: Detection

    def of(self, outputs: Mapping[str, np.ndarray]) -> Arrays:
        return {key: np.asarray(outputs[key], np.float64) for key in ("logits", "boxes")}

    def mean(self, parts: Sequence[Arrays], weights: Sequence[int]) -> Arrays:
        if len(parts) > 1:
            message = "boxes of several teachers cannot be averaged"
            raise FuselineError("bad_teacher", message, "a detector is taught by one model: leave out the others")
        return dict(parts[0])

    def ordered(self, given: Task, told: Arrays) -> Arrays:
        """A class that the teacher does not know is NaN."""
        same_task(given, self.task)
        assert isinstance(given, Detection)
        return {"logits": reordered(given.names, self.task.names, told["logits"], np.nan), "boxes": told["boxes"]}

    def distance(
        self,
        head: Head,
        outputs: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        known_B: Tensor,
        temperature: float,
    ) -> Tensor:
        """Of each layer's proposals, matched one to one with the teacher's (as DETRDistill, Chang et al. 2023), in
        the weights of the head's own loss; mean over the layers. With w a proposal's best chance by the teacher:

        (2 · Σ T²·KL of each class's two outcomes + Σ w·(5 · L1 + 2 · (1 - GIoU))) / max(1, Σ w).

        A proposal of the student that is left without a match shall be no box. Rows without a picture teach nothing.
        """
        assert isinstance(head, DetectionHead)
        sides_B2 = outputs["picture"]
        known_B = known_B & (sides_B2.amin(dim=1) > 0) & ~told["boxes"].isnan().flatten(1).any(1)
        logits_LBQC, boxes_LBQ4 = head.proposals(outputs)
        logits_BRC = torch.where(known_B[:, None, None], told["logits"], NOTHING)
        corners_BR4 = to_square(
            torch.where(known_B[:, None, None], told["boxes"], 0.0), ratio_of(sides_B2, head.resize)
        )
        logits_BRC, boxes_BR4 = _surest(logits_BRC, centred(corners_BR4), logits_LBQC.shape[2])
        gaps = [
            _apart(logits_BQC, boxes_BQ4, logits_BRC, boxes_BR4, temperature)
            for logits_BQC, boxes_BQ4 in zip(logits_LBQC, boxes_LBQ4, strict=True)
        ]
        return torch.where(known_B, torch.stack(gaps).mean(0), 0.0)


def _surest(logits_BRC: Tensor, boxes_BR4: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The proposals of highest chance, where the student has fewer to match them with."""
    if logits_BRC.shape[1] <= most:
        return logits_BRC, boxes_BR4
    best_BM = logits_BRC.nan_to_num(NOTHING).amax(dim=2).topk(most, dim=1).indices[..., None]
    classes = logits_BRC.shape[2]
    return logits_BRC.gather(1, best_BM.expand(-1, -1, classes)), boxes_BR4.gather(1, best_BM.expand(-1, -1, 4))


def _apart(logits_BQC: Tensor, boxes_BQ4: Tensor, logits_BRC: Tensor, boxes_BR4: Tensor, temperature: float) -> Tensor:
    """One layer's distance (B,)."""
    weight_BR = logits_BRC.nan_to_num(NOTHING).sigmoid().amax(dim=2)
    at = _matched(logits_BQC, boxes_BQ4, logits_BRC, boxes_BR4, weight_BR)
    row_N, query_N, taught_N = at
    told_BQC = torch.full_like(logits_BQC, NOTHING)
    told_BQC[row_N, query_N] = logits_BRC[row_N, taught_N]
    told_BQC = torch.where(logits_BRC.isnan().any(dim=1, keepdim=True), torch.nan, told_BQC)
    known_BQC = ~told_BQC.isnan()
    kl_BQC = two_outcomes(logits_BQC / temperature, torch.where(known_BQC, told_BQC, 0.0) / temperature)
    classes_B = temperature**2 * torch.where(known_BQC, kl_BQC, 0.0).sum(dim=(1, 2))
    own_N4, wanted_N4 = boxes_BQ4[row_N, query_N], boxes_BR4[row_N, taught_N]
    edges_N = (own_N4 - wanted_N4).abs().sum(dim=1)
    _, giou_N = overlaps(corners(own_N4), corners(wanted_N4))
    placed_N = weight_BR[row_N, taught_N] * (EDGE * edges_N + OVERLAP * (1 - giou_N))
    placed_B = torch.zeros_like(classes_B).index_add(0, row_N, placed_N)
    return (CLASS * classes_B + placed_B) / weight_BR.sum(dim=1).clamp(min=1.0)


@torch.no_grad()
def _matched(
    logits_BQC: Tensor, boxes_BQ4: Tensor, logits_BRC: Tensor, boxes_BR4: Tensor, weight_BR: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The cheapest one-to-one match (Kuhn 1955) of queries and proposals: numbers of the matches' rows, queries and
    proposals (N,) each. Where a box is does not matter for what the teacher takes for none."""
    apart_BQR = torch.cdist(logits_BQC.sigmoid(), logits_BRC.nan_to_num(NOTHING).sigmoid(), p=1)
    edge_BQR = torch.cdist(boxes_BQ4, boxes_BR4, p=1)
    _, giou_BQR = overlaps(corners(boxes_BQ4)[:, :, None], corners(boxes_BR4)[:, None])
    cost_BQR = CLASS * apart_BQR + weight_BR[:, None] * (EDGE * edge_BQR + OVERLAP * (1 - giou_BQR))
    rows, queries, taught = [], [], []
    for b, cost_QR in enumerate(torch.nan_to_num(cost_BQR, 1e6, 1e6, -1e6).cpu().numpy()):
        found, taken = linear_sum_assignment(cost_QR)
        rows += [b] * len(found)
        queries += found.tolist()
        taught += taken.tolist()
    at_3N = torch.tensor([rows, queries, taught], dtype=torch.long, device=logits_BQC.device)
    return at_3N[0], at_3N[1], at_3N[2]
