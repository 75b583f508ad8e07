"""Detection: boxes with labels on one picture. Dimensions: N rows, B batch, K boxes of a row, Q queries, C classes.

Targets are encoded as (K, 5) float32: class number and x1 y1 x2 y2, in the units of the cell (pixels of the stored
picture as it is seen, its EXIF orientation applied; or, `normalised`, shares of it), rows of class -1 behind them.

Outputs: `logits` (B, Q, C), a sigmoid each; `boxes` (B, Q, 4) x1 y1 x2 y2 as shares of the picture; `picture` (B, 2)
its width and height in pixels, 0 where the row has no picture. An answer is in pixels of the picture that was sent.

What is scored and how is said in :mod:`fuseline.tasks.detection_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fuseline.errors import FuselineError
from fuseline.recipe import Stratify
from fuseline.tasks.base import Decoded, Scores, TaskConfig
from fuseline.tasks.bootstrap import Measure
from fuseline.tasks.boxes import Box, Form, parse_boxes, suppress
from fuseline.tasks.detection_scores import MOST, Found, Sheet, Truth, agreement, best_threshold
from fuseline.tasks.labels import Label, classes_of, find, text_of
from fuseline.tasks.scored import scored

THING = "object"
"""the class where no box has a label"""
DEFAULT_THRESHOLD = 0.5
LOWEST = 1e-3
"""score below which a box is not even a candidate"""
TOLD = 0.05
"""score from which on a candidate is told of beside the answer"""


class DetectionConfig(TaskConfig):
    """Options of the detection task."""

    target: str = Field(min_length=1, description="the column with the boxes: a JSON list, or a list of structs")
    image: str | None = Field(None, description="the input whose picture the boxes are on, where there are several")
    format: Form = Field("xyxy", description="what four numbers mean where the cell does not say: corners, or a size")
    normalised: bool = Field(False, description="boxes are shares of the picture's width and height, not pixels")
    classes: tuple[Label, ...] | None = Field(None, description="all classes, in order; default: those of training")
    max_boxes: int | None = Field(
        None, ge=1, le=300, description="most boxes of a row; default: half as many again as in training, at least 10"
    )
    queries: int | None = Field(
        None,
        ge=1,
        le=900,
        description="boxes that the model proposes; default: three times a training row's most, at least 6",
    )
    threshold: float | Literal["auto"] = Field(
        "auto", description="score from which on a box is answered; auto: that of the best F1 on validation rows"
    )
    nms: float | None = Field(
        0.7, gt=0, le=1, description="overlap above which the worse of two boxes of one label is dropped; null: never"
    )
    layers: int = Field(3, ge=1, le=12, description="decoder layers; each refines the boxes of the one before")
    mirror: bool = Field(False, description="mirror half of the pictures while training")
    mirror_labels: dict[str, str] = Field(
        default_factory=dict, description="labels that change places in a mirrored picture, e.g. {left: right}"
    )
    zoom: float = Field(
        0.15,
        ge=0,
        le=0.8,
        description="pictures are zoomed and shifted by up to this share in training, boxes along",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,)


class Detection:
    """Boxes to arrays and the model's proposals back to boxes."""

    Config: ClassVar[type[TaskConfig]] = DetectionConfig
    stratify: ClassVar[Stratify] = "none"
    name = "detection"
    mode = ""

    def __init__(
        self,
        config: DetectionConfig,
        *,
        classes: Sequence[Label],
        counts: Sequence[int],
        rows: int,
        most: int,
        threshold: float,
    ) -> None:
        """`counts`: training boxes of each class; `rows`: training rows with a target; `most`: boxes of a target."""
        self.config, self.classes, self.counts, self.rows = config, list(classes), list(counts), rows
        self.max_boxes, self.threshold = most, threshold
        self.names = [text_of(c) for c in self.classes]
        self._index = {name: i for i, name in enumerate(self.names)}
        self.columns: tuple[str, ...] = (config.target,)
        self.metric = "map_50_95"
        for label in (*config.mirror_labels, *config.mirror_labels.values()):
            if label not in self._index:
                message = f"task.mirror_labels names {label!r}, which is no class"
                raise FuselineError("bad_recipe", message, f"classes: {', '.join(self.names[:10])}")

    @classmethod
    def fit(cls, config: DetectionConfig, targets: Mapping[str, Sequence[Any]]) -> Detection:
        """The classes of the training rows. Raises FuselineError ``bad_cell``, ``no_target``, ``bad_recipe``."""
        column = config.target
        parsed = (parse_boxes(cell, column, config.format, config.normalised) for cell in targets[column])
        rows = [boxes for boxes in parsed if boxes is not None]
        every = [box for boxes in rows for box in boxes]
        if not every:
            raise FuselineError("no_target", "no training row has a box", "is it the right column?", column=column)
        if not config.normalised and max(max(box.xyxy) for box in every) <= 1.0:
            message = "every box lies between 0 and 1: these are no pixels"
            raise FuselineError("bad_recipe", message, "set `task.normalised: true`", column=column)
        if len({box.label is None for box in every}) > 1:
            message = "some boxes of training rows have a label and others have none"
            raise FuselineError("bad_recipe", message, "give all of them one, or none", column=column)
        classes, counts = classes_of(_label(box) for box in every)
        if config.classes is not None:
            classes = list(config.classes)
            index = {text_of(c): i for i, c in enumerate(classes)}
            for text in counts:
                find(text, index, column)
        longest = max(map(len, rows))
        most = config.max_boxes or min(300, max(10, longest * 3 // 2))
        if longest > most:
            message = f"a training row has {longest} boxes, more than task.max_boxes {most}"
            raise FuselineError("bad_recipe", message, "raise it, or leave the row out", column=column)
        threshold = DEFAULT_THRESHOLD if config.threshold == "auto" else config.threshold
        return cls(
            config.model_copy(update={"queries": config.queries or int(np.clip(3 * longest, 6, 900))}),
            classes=classes,
            counts=[counts[text_of(c)] for c in classes],
            rows=len(rows),
            most=most,
            threshold=threshold,
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Detection:
        keys = ("classes", "counts", "rows", "most", "threshold")
        return cls(DetectionConfig.model_validate(state["config"]), **{k: state[k] for k in keys})

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "classes": self.classes,
            "counts": self.counts,
            "rows": self.rows,
            "most": self.max_boxes,
            "threshold": self.threshold,
        }

    def picture_of(self, inputs: Mapping[str, Any]) -> str:
        """The input that the boxes are on. Raises FuselineError ``bad_recipe`` where that is not one picture."""
        pictures = [name for name, modality in inputs.items() if modality.name == "image"]
        wanted = self.config.image
        if wanted is not None and wanted not in pictures:
            raise FuselineError("bad_recipe", f"task.image: {wanted!r} is no image input", f"of {', '.join(pictures)}")
        if wanted is None and len(pictures) != 1:
            message = f"detection needs one picture, and the recipe has {len(pictures)} image inputs"
            raise FuselineError("bad_recipe", message, "name one in `task.image`" if pictures else "add an image input")
        return wanted or pictures[0]

    def check(self, inputs: Mapping[str, Any]) -> None:
        self.picture_of(inputs)

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """`counts`: part -> label -> boxes; `empty`: part -> rows whose picture holds nothing."""
        counts: dict[str, dict[str, int]] = {}
        empty: dict[str, int] = {}
        for part, columns in cells.items():
            rows = [boxes for cell in columns[self.config.target] if (boxes := self._parsed(cell)) is not None]
            texts = [text_of(_label(box)) for boxes in rows for box in boxes]
            counts[part] = {name: texts.count(name) for name in self.names if name in texts}
            empty[part] = sum(not boxes for boxes in rows)
        return {"counts": counts, "empty": empty}

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        column = self.columns[0]
        boxes = self._parsed(cells.get(column))
        if boxes is None:
            return None
        if len(boxes) > self.max_boxes:
            message = f"{len(boxes)} boxes, more than task.max_boxes {self.max_boxes}"
            raise FuselineError("bad_cell", message, "set task.max_boxes", column=column)
        target_K5 = np.zeros((self.max_boxes, 5), dtype=np.float32)
        target_K5[:, 0] = -1
        for k, box in enumerate(boxes):
            target_K5[k] = (find(_label(box), self._index, column), *box.xyxy)
        return target_K5

    def _parsed(self, cell: Any) -> list[Box] | None:
        return parse_boxes(cell, self.columns[0], self.config.format, self.config.normalised)

    def found(self, outputs: Mapping[str, np.ndarray]) -> list[Found]:
        """Every row's candidates, best first, as shares of the picture; none where there is no picture."""
        logits_BQC = np.asarray(outputs["logits"], dtype=np.float64)
        boxes_BQ4 = np.clip(np.asarray(outputs["boxes"], dtype=np.float64), 0.0, 1.0)
        there_B = np.asarray(outputs["picture"]).reshape(len(logits_BQC), 2).min(axis=1) > 0
        scores_BQC = np.exp(-np.logaddexp(0, -logits_BQC))
        return [
            self._candidates(scores_QC, boxes_Q4) if there else _nothing()
            for scores_QC, boxes_Q4, there in zip(scores_BQC, boxes_BQ4, there_B, strict=True)
        ]

    def _candidates(self, scores_QC: np.ndarray, boxes_Q4: np.ndarray) -> Found:
        flat = scores_QC.ravel()
        order = np.argsort(-flat, kind="mergesort")
        order = order[flat[order] >= LOWEST][: 4 * MOST]
        query, label = np.divmod(order, scores_QC.shape[1])
        boxes_D4 = boxes_Q4[query]
        keep = (boxes_D4[:, 2] > boxes_D4[:, 0]) & (boxes_D4[:, 3] > boxes_D4[:, 1])
        if self.config.nms is not None:
            # Over all that is left: a box that is empty overlaps nothing, and suppresses nothing.
            keep &= suppress(boxes_D4, label, self.config.nms)
        kept = np.flatnonzero(keep)[:MOST]
        return Found(boxes_D4[kept], label[kept], flat[order[kept]])

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        """Boxes above the threshold in pixels, best first; beside them all candidates of a score of 0.05."""
        sizes_B2 = np.asarray(outputs["picture"], dtype=np.float64).reshape(-1, 2)
        answers = []
        for got, size_2 in zip(self.found(outputs), sizes_B2, strict=True):
            if size_2.min() <= 0:
                answers.append(Decoded([], notes=["no picture, so no boxes"]))
                continue
            told = [
                {"box": box.tolist(), "label": self.classes[label], "score": float(score)}
                for box, label, score in zip(got.boxes_D4 * np.tile(size_2, 2), got.labels_D, got.scores_D, strict=True)
                if score >= min(TOLD, self.threshold)
            ]
            details = {
                "boxes": told,
                "threshold": self.threshold,
                "width": float(size_2[0]),
                "height": float(size_2[1]),
            }
            answers.append(Decoded([box for box in told if box["score"] >= self.threshold], details=details))
        return answers

    def truths(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[Truth]:
        """Every row's true boxes, as shares of the picture (overlaps do not depend on the unit)."""
        targets_NK5 = np.asarray(targets, dtype=np.float64).reshape(len(targets), -1, 5)
        sizes_N2 = np.asarray(outputs["picture"], dtype=np.float64).reshape(-1, 2)
        if self.config.normalised:
            sizes_N2 = np.ones_like(sizes_N2)
        out = []
        for target_K5, size_2 in zip(targets_NK5, sizes_N2, strict=True):
            real = target_K5[:, 0] >= 0
            # Where there is no picture there are no answers either, and any unit does.
            unit_4 = np.tile(np.where(size_2 > 0, size_2, 1.0), 2)
            out.append(Truth(target_K5[real, 1:] / unit_4, target_K5[real, 0].astype(int)))
        return out

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """Choose the threshold on rows that training did not see. Returns what is to be said of it."""
        if self.config.threshold != "auto":
            return []
        found = best_threshold(self._sheet(targets, outputs))
        self.threshold = DEFAULT_THRESHOLD if found is None else found
        why = "no box of the validation rows was right" if found is None else "the best F1 of the validation rows"
        return [f"boxes are answered from a score of {self.threshold:.3f} on: {why}"]

    def score(
        self,
        targets: np.ndarray,
        outputs: Mapping[str, np.ndarray],
        *,
        bootstrap: int = 0,
        seed: int = 0,
        groups: np.ndarray | None = None,
        details: bool = True,
    ) -> Scores:
        """See :mod:`fuseline.tasks.detection_scores`. `targets` (N, K, 5)."""
        sheet, rows, finite = self._sheet(targets, outputs), len(targets), self._finite(outputs)
        scores = scored(sheet.measure, rows, resamples=bootstrap, seed=seed, groups=groups, defined=finite)
        if details and finite:
            scores.details = {**sheet.details(), "threshold": self.threshold, "notes": []}
        return scores

    def _sheet(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Sheet:
        clean = {k: np.nan_to_num(np.asarray(outputs[k], np.float64)) for k in ("logits", "boxes", "picture")}
        return Sheet(self.names, self.truths(targets, clean), self.found(clean), self.threshold)

    @staticmethod
    def _finite(outputs: Mapping[str, np.ndarray]) -> bool:
        return all(bool(np.isfinite(outputs[k]).all()) for k in ("logits", "boxes"))

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        sheet, finite = self._sheet(targets, outputs), self._finite(outputs)
        return lambda weights_RN: sheet.measure(weights_RN if finite else np.zeros_like(weights_RN))

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Each proposal's scores, and its edges by its best score (B, Q · (C + 4)): a box that nobody sees may move."""
        scores_BQC = np.exp(-np.logaddexp(0, -np.asarray(outputs["logits"], np.float64)))
        edges_BQ4 = np.asarray(outputs["boxes"], np.float64) * scores_BQC.max(axis=2, keepdims=True)
        return np.concatenate([scores_BQC, edges_BQ4], axis=2).reshape(len(scores_BQC), -1)

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        """error: 1 - panoptic quality of the row's answer (Kirillov et al. 2019), 2 · Σ overlap / (true + answered)."""
        errors = []
        for truth, got in zip(self.truths(targets, outputs), self.found(outputs), strict=True):
            _, overlap = agreement(truth, got, self.threshold)
            every = int((got.scores_D >= self.threshold).sum()) + len(truth.labels_K)
            errors.append(1.0 - 2 * overlap / every if every else 0.0)
        return {"error": errors}


def _label(box: Box) -> Label:
    return THING if box.label is None else box.label


def _nothing() -> Found:
    return Found(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
