"""Classification: one of two, one of many, or any number of labels. Dimensions: N rows, B batch, C classes.

What is scored and how is said in :mod:`fuseline.tasks.classification_scores`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from fuseline.errors import FuselineError
from fuseline.recipe import Stratify
from fuseline.tasks.base import Decoded, Metric, Scores, TaskConfig
from fuseline.tasks.bootstrap import Measure, intervals
from fuseline.tasks.calibration import Calibration, complete
from fuseline.tasks.classification_scores import Sheet
from fuseline.tasks.labels import Label, classes_of, find, is_list, parse_label, parse_labels, positive_of, text_of

Mode = Literal["binary", "multiclass", "multilabel"]

MOST_CLASSES = 1000
RANKING_CELLS = 2e9
"""rows · classes · resamples above which AUROC and AUPRC, which cost the most, get no interval"""


class ClassificationConfig(TaskConfig):
    """Options of the classification task."""

    target: str = Field(min_length=1, description="the column to predict")
    mode: Literal["auto", "binary", "multiclass", "multilabel"] = Field(
        "auto",
        description="auto: multilabel where cells are lists, binary where there are two classes, else multiclass",
    )
    classes: tuple[Label, ...] | None = Field(
        None, description="all classes, in order; default: those of the training rows"
    )
    positive: Label | None = Field(
        None,
        description="binary: the positive class; default: the one that says 1, true, yes or positive, else the second",
    )
    separator: str = Field(";", min_length=1, description="multilabel: between labels of a text cell")
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description="weight of each class in the loss; balanced: inverse to its frequency"
    )
    focal_gamma: float = Field(0.0, ge=0, le=10, description="focal loss (Lin et al. 2017); 0: cross entropy")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="share of the target spread over all classes")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    @field_validator("class_weights", mode="before")
    @classmethod
    def _keys_are_texts(cls, given: Any) -> Any:
        # YAML reads the keys 1 and true as a number and a boolean.
        return {text_of(k): v for k, v in given.items()} if isinstance(given, dict) else given

    @field_validator("class_weights")
    @classmethod
    def _weights_are_positive(cls, given: Any) -> Any:
        if isinstance(given, dict) and not all(0 < w < float("inf") for w in given.values()):
            raise ValueError("a class weight is a number above 0")
        return given


class Classification:
    """Labels to class numbers and logits back to labels."""

    Config: ClassVar[type[TaskConfig]] = ClassificationConfig
    stratify: ClassVar[Stratify] = "classes"
    name = "classification"

    def __init__(
        self, config: ClassificationConfig, *, mode: Mode, classes: Sequence[Label], counts: Sequence[int], rows: int
    ) -> None:
        """`counts`: training rows of each class; `rows`: training rows with a target."""
        self.config, self.mode, self.classes = config, str(mode), list(classes)
        self.counts, self.rows = list(counts), rows
        self.calibration = Calibration()
        self.labels = [text_of(c) for c in self.classes]
        self._index = {label: i for i, label in enumerate(self.labels)}
        self.columns: tuple[str, ...] = (config.target,)
        self.metric = "auroc" if mode == "binary" else "macro_f1"
        self.positive = 1
        if mode == "binary":
            self.positive = positive_of(self.classes)
            if config.positive is not None or config.classes is not None:
                self.positive = 1 if config.positive is None else self._index[text_of(config.positive)]

    @classmethod
    def fit(cls, config: ClassificationConfig, targets: Mapping[str, Sequence[Any]]) -> Classification:
        """The classes of the training rows.

        Raises FuselineError ``bad_cell``, ``no_target``, ``one_class``, ``too_many_classes``, ``bad_recipe``.
        """
        column = config.target
        rows = _rows_of(config, targets[column])
        if not rows:
            raise FuselineError("no_target", "no training row has a target", "is it the right column?", column=column)
        multilabel = config.mode == "multilabel" or (config.mode == "auto" and any(is_list(c) for c in targets[column]))
        classes, counts = classes_of(label for labels in rows for label in labels)
        if config.classes is not None:
            classes = list(config.classes)
            index = {text_of(c): i for i, c in enumerate(classes)}
            if len(index) != len(classes):
                raise FuselineError("bad_recipe", "task.classes names a class twice", "", column=column)
            for text in counts:
                find(text, index, column)
        _check_number(classes, counts, len(rows), column, multilabel=multilabel, given=config.classes is not None)
        if config.mode == "binary" and len(classes) != 2:
            message = f"task.mode is binary, but the target has {len(classes)} classes"
            raise FuselineError("bad_recipe", message, "use `mode: multiclass` or `auto`", column=column)
        mode: Mode = "multilabel" if multilabel else "binary" if len(classes) == 2 else "multiclass"
        if config.mode == "multiclass":
            mode = "multiclass"
        _check_names(config, mode, [text_of(c) for c in classes])
        return cls(config, mode=mode, classes=classes, counts=[counts[text_of(c)] for c in classes], rows=len(rows))

    @property
    def notes(self) -> tuple[str, ...]:
        """Classes that are probably one: people type labels."""
        alike: dict[str, list[str]] = {}
        for text in self.labels:
            alike.setdefault(" ".join(text.casefold().split()), []).append(repr(text))
        said = "differ only in case or white space: are they one?"
        return tuple(f"the classes {', '.join(some)} {said}" for some in alike.values() if len(some) > 1)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Classification:
        config = ClassificationConfig.model_validate(state["config"])
        out = cls(config, mode=state["mode"], classes=state["classes"], counts=state["counts"], rows=state["rows"])
        if "calibration" in state:
            out.calibration = Calibration.from_dict(state["calibration"])
        return out

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "mode": self.mode,
            "classes": self.classes,
            "counts": self.counts,
            "rows": self.rows,
            **({} if self.calibration.method == "none" else {"calibration": self.calibration.to_dict()}),
        }

    def class_weights(self) -> np.ndarray | None:
        """Weight of each class in the loss (C,), None where all are 1.

        Binary and multiclass: scaled so that the mean over training rows is 1 and the loss keeps its size. Multilabel:
        the weight of a label's positive rows, as they stand or (balanced) negatives / positives.
        """
        weights, counts = self.config.class_weights, np.array(self.counts, dtype=np.float64)
        if weights == "none":
            return None
        if weights == "balanced" and self.mode == "multilabel":
            return np.asarray((self.rows - counts) / np.maximum(counts, 1.0))
        raw = 1 / np.maximum(counts, 1.0)
        if isinstance(weights, dict):
            raw = np.array([weights.get(label, 1.0) for label in self.labels])
        return raw if self.mode == "multilabel" else np.asarray(raw * counts.sum() / (raw * counts).sum())

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Any inputs will do."""

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """Nothing is left to choose; `calibration` is set where the recipe asks for it (:mod:`fuseline.lab.sure`)."""
        return []

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """`counts`: part -> label -> rows."""
        counts: dict[str, dict[str, int]] = {}
        for part, columns in cells.items():
            values, numbers = np.unique([str(v) for v in columns[self.config.target]], return_counts=True)
            counts[part] = {str(v): int(n) for v, n in zip(values, numbers, strict=True)}
        return {"counts": counts}

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        again = [self.encode({self.config.target: d.value}) for d in decoded]
        return {"correct": [a is not None and bool(np.array_equal(a, b)) for a, b in zip(again, targets, strict=True)]}

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        column = self.columns[0]
        cell = cells.get(column)
        if self.mode != "multilabel":
            label = parse_label(cell, column)
            return None if label is None else np.array(find(label, self._index, column), dtype=np.int64)
        labels = parse_labels(cell, column, self.config.separator)
        if labels is None:
            return None
        target_C = np.zeros(len(self.classes), dtype=np.float32)
        target_C[[find(label, self._index, column) for label in labels]] = 1.0
        return target_C

    def log_chances(self, outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of each class's chance and of its complement, (B, C) each, without a chance rounding to 0.
        Calibrated, where that was fitted."""
        return self.calibration.apply(*self.raw_log_chances(outputs), multilabel=self.mode == "multilabel")

    def raw_log_chances(self, outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The same as the model says it, never calibrated."""
        logits_BC = np.asarray(outputs["logits"], dtype=np.float64)
        if self.mode == "multilabel":
            return -np.logaddexp(0, -logits_BC), -np.logaddexp(0, logits_BC)
        return complete(logits_BC)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        """The class of highest chance, or all labels of at least one half."""
        chances_BC = np.exp(self.log_chances(outputs)[0])
        answers = []
        for row in chances_BC:
            chances = dict(zip(self.labels, row.tolist(), strict=True))
            if self.mode == "multilabel":
                answers.append(Decoded([c for c, p in zip(self.classes, row, strict=True) if p >= 0.5], chances))
            else:
                answers.append(Decoded(self.classes[int(row.argmax())], chances))
        return answers

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
        """See :mod:`fuseline.tasks.classification_scores`. `targets` (N,) or (N, C), `outputs["logits"]` (N, C)."""
        sheet, finite = self._sheet(targets, outputs)
        rows = len(sheet.truth_NC)
        scores, notes = Scores(rows), []
        # A diverged model has no order of rows: its metrics are undefined, not whatever sorting NaN gives.
        point = sheet.measure(np.ones((1, rows)) if finite else np.zeros((1, rows)))
        if not finite:
            notes.append("the model's outputs are not finite")
        ranking = rows * len(sheet.ranked) * bootstrap <= RANKING_CELLS
        if bootstrap and not ranking:
            notes.append(f"no intervals of auroc and auprc: {rows} rows of {len(self.classes)} classes cost too much")
        bounds = intervals(
            lambda weights_RN: sheet.measure(weights_RN, ranking=ranking),
            rows,
            resamples=bootstrap if finite else 0,
            seed=seed,
            groups=groups,
        )
        for name, value in point.items():
            low, high = bounds.get(name, (None, None))
            worse_when_higher = name in ("log_loss", "brier", "ece")
            scores.metrics[name] = Metric(name, float(value[0]), low, high, not worse_when_higher)
        if details:
            scores.details = {**(sheet.details() if finite and rows else {}), "notes": notes}
        return scores

    def _sheet(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> tuple[Sheet, bool]:
        logits_NC = np.asarray(outputs["logits"], dtype=np.float64)
        finite = bool(np.isfinite(logits_NC).all())
        return Sheet(self, np.asarray(targets), {"logits": logits_NC if finite else np.zeros_like(logits_NC)}), finite

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        sheet, finite = self._sheet(targets, outputs)
        return lambda weights_RN: sheet.measure(weights_RN if finite else np.zeros_like(weights_RN))

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Chances (B, C)."""
        return np.asarray(np.exp(self.log_chances(outputs)[0]))


def _rows_of(config: ClassificationConfig, cells: Iterable[Any]) -> list[list[Label]]:
    """The labels of each row that has a target."""
    cells = list(cells)
    if config.mode == "multilabel" or (config.mode == "auto" and any(is_list(c) for c in cells)):
        found = (parse_labels(c, config.target, config.separator) for c in cells)
        return [labels for labels in found if labels is not None]
    ones = (parse_label(c, config.target) for c in cells)
    return [[label] for label in ones if label is not None]


def _check_number(
    classes: Sequence[Label], counts: Mapping[str, int], rows: int, column: str, *, multilabel: bool, given: bool
) -> None:
    number = len(classes)
    if multilabel and (number == 0 or (number == 1 and not given and counts[text_of(classes[0])] == rows)):
        message = (
            "no training row has a label" if number == 0 else f"every training row has the one label {classes[0]!r}"
        )
        raise FuselineError("one_class", message, "there is nothing to learn", column=column)
    if not multilabel and len(counts) < 2:
        message = f"every training row has the class {next(iter(counts))!r}: there is nothing to learn"
        raise FuselineError("one_class", message, "give rows of another class, or another target", column=column)
    crowded = not given and not multilabel and number > 2 and 2 * number > rows
    if number > MOST_CLASSES or crowded:
        numeric = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in classes)
        hint = (
            "numbers to predict are `task.kind: regression`"
            if numeric
            else "is it an id or free text? choose another target"
        )
        if crowded:
            hint += "; or list the classes in `task.classes`"
        raise FuselineError("too_many_classes", f"{number} classes in {rows} training rows", hint, column=column)


def _check_names(config: ClassificationConfig, mode: Mode, labels: Sequence[str]) -> None:
    """That `positive` and `class_weights` name classes."""
    if config.positive is not None and mode != "binary":
        message = f"task.positive is for binary targets; this one is {mode}"
        raise FuselineError("bad_recipe", message, "remove it", column=config.target)
    wanted = [text_of(config.positive)] if config.positive is not None else []
    if isinstance(config.class_weights, dict):
        wanted += list(config.class_weights)
    for text in wanted:
        if text not in labels:
            message = f"task.positive or task.class_weights names {text!r}, which is no class"
            hint = f"classes: {', '.join(labels[:10])} (put a word such as yes in quotes in YAML)"
            raise FuselineError("bad_recipe", message, hint, column=config.target)
