"""What every task promises. numpy only. Dimensions: N rows, B batch, C classes, K targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from fuseline.recipe import Frozen, Stratify

if TYPE_CHECKING:  # siblings meet in types only
    from fuseline.modalities.base import Modality


class TaskConfig(Frozen):
    """Abstract: the options of a task."""

    targets_may_be_inputs: ClassVar[bool] = False
    """whether a target column may be an input, too"""
    targets_may_be_absent: ClassVar[bool] = False
    """whether a row that lacks the first target is a row like any other; `spread` says what is stratified then"""

    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns that are read as targets. None: every row has a target, which `encode({})` gives."""
        raise TypeError("TaskConfig is abstract")

    @property
    def spread(self) -> dict[str, Stratify]:
        """Where no single target is needed: columns whose classes a split spreads over the parts, and how."""
        return {}


@dataclass
class Decoded:
    """One row's answer before it is joined with what it was based on."""

    value: Any
    """label, list of labels (multilabel), number, or dict of numbers (many targets); each task's file says it"""
    probabilities: dict[str, float] | None = None
    interval: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)
    """what the answer says of itself, e.g. why it is empty"""
    details: dict[str, Any] | None = None
    """JSON values that belong to the answer, e.g. the quantiles of each step of a forecast"""


@dataclass
class Metric:
    """A named score. `higher_is_better` tells a search and early stopping which way to go."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True


@dataclass
class Scores:
    """All that an evaluation of one set of rows says; plain JSON values in `details`."""

    rows: int
    metrics: dict[str, Metric] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """confusion, per_class, roc, pr, reliability, residuals ...: each documented in the task's file"""

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "metrics": {k: vars(m) for k, m in self.metrics.items()},
            "details": self.details,
        }


class Task(Protocol):
    """Targets, decoding and metrics of one kind of answer."""

    Config: ClassVar[type[TaskConfig]]
    stratify: ClassVar[Stratify]
    """how a split spreads the rows by their (first) target"""
    name: str
    mode: str
    """which of its forms the task has, "" where it has one"""
    columns: tuple[str, ...]
    """the target columns"""
    metric: str
    """the metric that early stopping watches unless the recipe names another"""

    @classmethod
    def fit(cls, config: Any, targets: Mapping[str, Sequence[Any]]) -> Task:
        """`targets`: column -> all training cells (None where absent). Raises FuselineError on one class, no value."""
        ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Task: ...

    def state(self) -> dict[str, Any]: ...

    def check(self, inputs: Mapping[str, Modality]) -> None:
        """Raises FuselineError ``bad_recipe`` where these (fitted) inputs and the task do not go together."""
        ...

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """The targets in data.json, JSON values. `cells`: part -> column -> cells of that part's rows."""
        ...

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        """How well each row was answered, as columns of predictions.parquet: `correct` (bool) or `error` (float, the
        larger the worse); or neither."""
        ...

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """After training, on validation rows: choose what is left to choose (a threshold). What is to be said of it."""
        ...

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        """One row's target as a fixed-shape array (class: int64 scalar; multilabel: float32 [C]; numbers: float32 [K]).

        None where the row has no target. FuselineError("bad_cell") on a value that cannot be one.
        """
        ...

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        """Head outputs of a batch to answers."""
        ...

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
        """Metrics over rows. `targets`: encoded targets stacked on axis 0. NaN where a metric is not defined.

        `groups` (N,): bootstrap resamples whole groups (patients), not rows.
        """
        ...

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], Any]:
        """The metrics of `score` as a function of how often each row counts: (R, N) -> name -> (R,). For intervals of
        what is made of two models' metrics on the same rows."""
        ...

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answers as numbers of about unit size, (B, C) or (B, K): what two models' answers are compared on."""
        ...


def read_columns(task: Task) -> tuple[str, ...]:
    """What `encode` reads of a row: the targets, and what the task calls `also` (retrieval: both sides' columns)."""
    return (*task.columns, *getattr(task, "also", ()))


Targets = Iterable[np.ndarray]
