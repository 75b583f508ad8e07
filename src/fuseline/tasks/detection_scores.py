"""The metrics of detection by COCO's rules, over weighted rows. Dimensions: R resamples, N rows, D detections, U IoUs.

A detection is right at an IoU threshold where it is the best-scored one left that overlaps a box of its label, not yet
taken, by at least as much: in the order of scores, each takes the box that it overlaps most. Average precision is the
mean, over recalls of 0, 0.01 ... 1, of the highest precision at that recall or a higher one; labels without a true box
are left out. At most 100 detections a row. Equal to pycocotools' `bbox` without crowds and sizes (tested).

`Scores.metrics`: map_50_95 (mean over IoU 0.5, 0.55 ... 0.95), map_50, map_75; of the boxes that are answered, above
the threshold, at an IoU of 0.5: precision, recall, f1; and iou, the mean overlap of those that are right.
`Scores.details`: per_class [{label, ap_50_95, ap_50, ap_75, support}], pr [{label, recall, precision, ap}] at IoU 0.5,
notes [text].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fuseline.tasks import metrics
from fuseline.tasks.boxes import iou

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""detections of a row that count"""
CELLS = 5_000_000
POINTS = 200


class Found(NamedTuple):
    """A row's detections, best first, and no more than count."""

    boxes_D4: np.ndarray
    labels_D: np.ndarray
    scores_D: np.ndarray


class Truth(NamedTuple):
    boxes_K4: np.ndarray
    labels_K: np.ndarray


def match(overlap_DK: np.ndarray, least: float) -> np.ndarray:
    """The box that each detection, best first, takes; -1: none (D,)."""
    taken_D = np.full(len(overlap_DK), -1)
    left_K = np.ones(overlap_DK.shape[1], dtype=bool)
    for d, row in enumerate(overlap_DK):
        if not left_K.any():
            break
        best = int(np.where(left_K, row, -1.0).argmax())
        if row[best] >= least:
            taken_D[d], left_K[best] = best, False
    return taken_D


class _Label(NamedTuple):
    """All rows' detections of one label, best first; `right_UD` at each IoU threshold."""

    row_D: np.ndarray
    score_D: np.ndarray
    right_UD: np.ndarray
    truths_N: np.ndarray


class Sheet:
    """All that the metrics of one set of rows need, computed once."""

    def __init__(
        self, labels: Sequence[str], truths: Sequence[Truth], found: Sequence[Found], threshold: float
    ) -> None:
        self.labels, self.rows = list(labels), len(truths)
        self.per_label = [self._gather(c, truths, found) for c in range(len(labels))]
        self.hits_N, self.answers_N, self.truths_N, self.overlap_N = (np.zeros(self.rows) for _ in range(4))
        for n, (truth, got) in enumerate(zip(truths, found, strict=True)):
            hits, overlap = agreement(truth, got, threshold)
            self.hits_N[n], self.overlap_N[n] = hits, overlap
            self.answers_N[n], self.truths_N[n] = (got.scores_D >= threshold).sum(), len(truth.labels_K)

    @staticmethod
    def _gather(label: int, truths: Sequence[Truth], found: Sequence[Found]) -> _Label:
        rows, scores, rights = [], [], []
        for n, (truth, got) in enumerate(zip(truths, found, strict=True)):
            mine = got.labels_D == label
            overlap_DK = iou(got.boxes_D4[mine], truth.boxes_K4[truth.labels_K == label])
            rows.append(np.full(int(mine.sum()), n))
            scores.append(got.scores_D[mine])
            rights.append(np.stack([match(overlap_DK, u) >= 0 for u in IOUS]))
        counts_N = np.array([(t.labels_K == label).sum() for t in truths], dtype=np.float64)
        if not rows:
            return _Label(np.zeros(0, int), np.zeros(0), np.zeros((len(IOUS), 0), bool), counts_N)
        score_D = np.concatenate(scores)
        order = np.argsort(-score_D, kind="mergesort")
        return _Label(np.concatenate(rows)[order], score_D[order], np.concatenate(rights, axis=1)[:, order], counts_N)

    def precisions(self, label: int, weights_RN: np.ndarray) -> np.ndarray:
        """Average precision (R, U) of one label; NaN where no drawn row has a true box of it."""
        own = self.per_label[label]
        total_R = weights_RN @ own.truths_N
        out_RU = np.full((len(weights_RN), len(IOUS)), np.nan)
        step = max(1, CELLS // max(1, len(own.row_D)))
        for start in range(0, len(weights_RN), step):
            some = slice(start, start + step)
            weight_RD = weights_RN[some][:, own.row_D]
            seen_RD = np.cumsum(weight_RD, axis=1)
            for u, right_D in enumerate(own.right_UD):
                out_RU[some, u] = _average(np.cumsum(weight_RD * right_D, axis=1), seen_RD, total_R[some])
        return out_RU

    def measure(self, weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        """name -> one value a resample (R,)."""
        ap_RCU = np.stack([self.precisions(c, weights_RN) for c in range(len(self.labels))], axis=1)
        mean_RU = np.stack([metrics.mean_defined(ap_RCU[:, :, u]) for u in range(len(IOUS))], axis=1)
        hits_R, answers_R, truths_R, overlap_R = (
            weights_RN @ x for x in (self.hits_N, self.answers_N, self.truths_N, self.overlap_N)
        )
        return {
            "map_50_95": mean_RU.mean(axis=1),
            "map_50": mean_RU[:, 0],
            "map_75": mean_RU[:, 5],
            "precision": _share(hits_R, answers_R, np.where(truths_R > 0, 0.0, np.nan)),
            "recall": _share(hits_R, truths_R, np.nan),
            "f1": _share(2 * hits_R, answers_R + truths_R, np.nan),
            "iou": _share(overlap_R, hits_R, np.nan),
        }

    def details(self) -> dict[str, Any]:
        """See the head of this file; plain JSON values."""
        once_1N = np.ones((1, self.rows))
        per_class, curves = [], []
        for c, label in enumerate(self.labels):
            ap_U, own = self.precisions(c, once_1N)[0], self.per_label[c]
            per_class.append(
                {
                    "label": label,
                    "ap_50_95": metrics.plain(ap_U.mean()),
                    "ap_50": metrics.plain(ap_U[0]),
                    "ap_75": metrics.plain(ap_U[5]),
                    "support": int(own.truths_N.sum()),
                }
            )
            if own.truths_N.sum() and len(own.row_D):
                hits_D = np.cumsum(own.right_UD[0])
                keep = np.unique(np.linspace(0, len(hits_D) - 1, POINTS).astype(int))
                recall, precision = hits_D / own.truths_N.sum(), hits_D / np.arange(1, len(hits_D) + 1)
                curves.append(
                    {
                        "label": label,
                        "recall": recall[keep].tolist(),
                        "precision": precision[keep].tolist(),
                        "ap": metrics.plain(ap_U[0]),
                    }
                )
        return {"per_class": per_class, "pr": curves}


def agreement(truth: Truth, got: Found, threshold: float) -> tuple[int, float]:
    """Of a row's answered boxes: how many are right at an IoU of 0.5, and the sum of their overlaps."""
    answered = got.scores_D >= threshold
    boxes_D4, labels_D = got.boxes_D4[answered], got.labels_D[answered]
    overlap_DK = iou(boxes_D4, truth.boxes_K4) * (labels_D[:, None] == truth.labels_K[None, :])
    taken_D = match(overlap_DK, 0.5)
    hit = taken_D >= 0
    return int(hit.sum()), float(overlap_DK[hit, taken_D[hit]].sum())


def best_threshold(sheet: Sheet) -> float | None:
    """The score from which on the most boxes are right: the highest F1 at an IoU of 0.5 over all labels.

    Half-way to the next lower score, so that the last one counted is not on the edge. None without anything right.
    """
    score_D = np.concatenate([own.score_D for own in sheet.per_label])
    right_D = np.concatenate([own.right_UD[0] for own in sheet.per_label])
    if not right_D.any():
        return None
    order = np.argsort(-score_D, kind="mergesort")
    score_D, hits_D = score_D[order], np.cumsum(right_D[order])
    f1_D = 2 * hits_D / (np.arange(1, len(hits_D) + 1) + sheet.truths_N.sum())
    f1_D[:-1][score_D[:-1] == score_D[1:]] = -1.0  # equal scores are in or out together
    best = int(f1_D.argmax())
    below = float(score_D[best + 1]) if best + 1 < len(score_D) else 0.0
    return (float(score_D[best]) + below) / 2


def _average(right_RD: np.ndarray, seen_RD: np.ndarray, total_R: np.ndarray) -> np.ndarray:
    """COCO's 101-point average precision (R,), from running sums of right and of all detections."""
    columns = right_RD.shape[1]
    out_R = np.where(total_R > 0, 0.0, np.nan)
    if columns == 0:
        return out_R
    precision_RD = np.divide(right_RD, seen_RD, out=np.zeros_like(right_RD), where=seen_RD > 0)
    best_RD = np.maximum.accumulate(precision_RD[:, ::-1], axis=1)[:, ::-1]
    for r in np.flatnonzero(total_R > 0):
        at = np.searchsorted(right_RD[r] / total_R[r], RECALLS, side="left")
        out_R[r] = best_RD[r][at[at < columns]].sum() / len(RECALLS)
    return out_R


def _share(top_R: np.ndarray, bottom_R: np.ndarray, otherwise: Any) -> np.ndarray:
    out: np.ndarray = np.divide(
        top_R, bottom_R, out=np.broadcast_to(np.asarray(otherwise, float), top_R.shape).copy(), where=bottom_R > 0
    )
    return out
