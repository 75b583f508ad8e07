"""The metrics of classification over weighted rows. Dimensions: R resamples, N rows, C classes.

`Scores.metrics` of all modes: accuracy (multilabel: all labels of a row right), macro_ and weighted_ precision, recall
and f1, auroc, auprc, log_loss, brier, ece. Binary adds precision, recall, f1 and specificity of the positive class, and
its auroc, auprc and brier are those of the positive class; elsewhere auroc and auprc are one-vs-rest means over the
classes where they are defined, multiclass brier is the sum over classes (Brier 1950), multilabel log_loss and brier are
means over labels. Binary and multiclass have balanced_accuracy, multilabel micro_f1. ece has 15 bins of equal mass, or
fewer below 150 rows, of the positive class's chance (binary), the answer's (multiclass) or every label's (multilabel).

`Scores.details`: labels; positive (binary); confusion {labels, counts: true × answered} (not multilabel); per_class
[{label, precision, recall, f1, auroc, auprc, support}]; roc [{label, fpr, tpr, auroc}] and pr [{label, recall,
precision, auprc}] of the positive class, or of the ten most frequent; reliability {bins: [{confidence, accuracy,
count}], ece}; notes [text].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fuseline.tasks import metrics

if TYPE_CHECKING:
    from fuseline.tasks.classification import Classification

CURVES = 10


class Sheet:
    """All that the metrics of one set of rows need, computed once."""

    def __init__(self, task: Classification, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        self.task, self.mode = task, task.mode
        classes = len(task.classes)
        self.log_NC, self.log_not_NC = task.log_chances(outputs)
        self.chance_NC = np.exp(self.log_NC)
        # What ranks rows is the log odds: unlike a chance near 1 it has no ties from rounding.
        self.odds_NC = self.log_NC - self.log_not_NC
        self.positive = task.positive
        if self.mode == "multilabel":
            self.truth_NC = targets.reshape(-1, classes) > 0.5
            self.answer_NC = self.chance_NC >= 0.5
        else:
            self.truth_N, self.answer_N = targets.reshape(-1).astype(np.int64), self.chance_NC.argmax(axis=1)
            self.truth_NC = self.truth_N[:, None] == np.arange(classes)
            self.answer_NC = self.answer_N[:, None] == np.arange(classes)
        self.ranked = [self.positive] if self.mode == "binary" else list(range(classes))
        self.right_N = (self.truth_NC == self.answer_NC).all(axis=1)
        self.losses_N, self.briers_N = self._losses(), self._briers()
        self.calibration = metrics.calibration(*self._stated())

    def _stated(self) -> tuple[np.ndarray, np.ndarray]:
        if self.mode == "multilabel":
            return self.chance_NC, self.truth_NC
        if self.mode == "binary":
            return self.chance_NC[:, self.positive], self.truth_NC[:, self.positive]
        return self.chance_NC.max(axis=1), self.truth_N == self.answer_N

    def _losses(self) -> np.ndarray:
        if self.mode != "multilabel":
            out: np.ndarray = -self.log_NC[np.arange(len(self.truth_N)), self.truth_N]
            return out
        return np.asarray(-np.where(self.truth_NC, self.log_NC, self.log_not_NC).mean(axis=1))

    def _briers(self) -> np.ndarray:
        square_NC = (self.chance_NC - self.truth_NC) ** 2
        if self.mode == "binary":
            return np.asarray(square_NC[:, self.positive])
        return np.asarray(square_NC.mean(axis=1) if self.mode == "multilabel" else square_NC.sum(axis=1))

    def areas(self, number: int, weights_RN: np.ndarray) -> metrics.Areas:
        """auroc and auprc of one class against the rest."""
        return metrics.areas(self.truth_NC[:, number], self.odds_NC[:, number], weights_RN)

    def measure(self, weights_RN: np.ndarray, *, ranking: bool = True) -> dict[str, np.ndarray]:
        """name -> one value a resample (R,)."""
        out: dict[str, np.ndarray] = {}
        if ranking:
            areas = [self.areas(c, weights_RN) for c in self.ranked]
            for name in metrics.Areas._fields:
                out[name] = metrics.mean_defined(np.stack([getattr(a, name) for a in areas], axis=1))
        counts = metrics.counts(self.truth_NC, self.answer_NC, weights_RN)
        out["accuracy"] = metrics.mean(self.right_N, weights_RN)
        if self.mode != "multilabel":
            out["balanced_accuracy"] = counts.balanced_accuracy
        for name in ("precision", "recall", "f1"):
            values_RC = getattr(counts, name)
            if self.mode == "binary":
                out[name] = values_RC[:, self.positive]
            out[f"macro_{name}"] = metrics.mean_defined(values_RC)
            out[f"weighted_{name}"] = counts.weighted(values_RC)
        if self.mode == "binary":
            out["specificity"] = counts.specificity[:, self.positive]
        if self.mode == "multilabel":
            out["micro_f1"] = counts.micro_f1
        out["log_loss"] = metrics.mean(self.losses_N, weights_RN)
        out["brier"] = metrics.mean(self.briers_N, weights_RN)
        out["ece"] = self.calibration.ece(weights_RN)
        return out

    def details(self) -> dict[str, Any]:
        """See the head of this file; plain JSON values."""
        task, once_1N = self.task, np.ones((1, len(self.truth_NC)))
        counts = metrics.counts(self.truth_NC, self.answer_NC, once_1N)
        every = list(range(len(task.classes)))
        areas = [{n: metrics.plain(v[0]) for n, v in self.areas(c, once_1N)._asdict().items()} for c in every]
        shown = [self.positive] if self.mode == "binary" else sorted(every, key=lambda c: -counts.truths[0, c])[:CURVES]
        out: dict[str, Any] = {"labels": task.labels}
        if self.mode == "binary":
            out["positive"] = task.labels[self.positive]
        if self.mode != "multilabel":
            matrix = metrics.confusion(self.truth_N, self.answer_N, len(every))
            out["confusion"] = {"labels": task.labels, "counts": matrix.tolist()}
        out["per_class"] = [
            {
                "label": task.labels[c],
                **{name: metrics.plain(getattr(counts, name)[0, c]) for name in ("precision", "recall", "f1")},
                **areas[c],
                "support": int(counts.truths[0, c]),
            }
            for c in every
        ]
        for name, area, points in (("roc", "auroc", metrics.roc_points), ("pr", "auprc", metrics.pr_points)):
            found = ((c, points(self.truth_NC[:, c], self.odds_NC[:, c])) for c in sorted(shown))
            out[name] = [{"label": task.labels[c], **curve, area: areas[c][area]} for c, curve in found if curve]
        ece = metrics.plain(self.calibration.ece(once_1N)[0])
        out["reliability"] = {"bins": self.calibration.bins(), "ece": ece}
        return out
