"""Regression of one number or many. Dimensions: N rows, B batch, K targets.

Targets are encoded in their own units; standardising happens in the head, with `mean` and `std` from here.

`Scores.metrics`: rmse, mae, r2 of one target. Of many: the plain means of these over the targets, and `nrmse`, the mean
of RMSE_k / training standard deviation_k, which does not depend on the targets' units and therefore is what is watched.
`Scores.details["per_target"]`: {"target", "mae", "rmse", "r2", "rows"} of each target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from fuseline.errors import FuselineError
from fuseline.recipe import Stratify
from fuseline.tasks import metrics
from fuseline.tasks.base import Decoded, Scores, TaskConfig
from fuseline.tasks.bootstrap import Measure
from fuseline.tasks.scored import scored


class RegressionConfig(TaskConfig):
    """Options of the regression task."""

    target: str | None = Field(None, description="the column to predict")
    targets: tuple[str, ...] = Field((), description="several columns to predict together, instead of `target`")
    loss: Literal["huber", "mse"] = Field("huber", description="on the standardised scale; huber bears outliers")
    huber_delta: float = Field(1.0, gt=0, description="standard deviations at which huber turns from square to linear")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> RegressionConfig:
        if bool(self.target) == bool(self.targets):
            raise ValueError("set `target` to one column, or `targets` to several")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("`targets` names a column twice")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return self.targets or (self.target or "",)


def parse_number(cell: Any, column: str) -> float | None:
    """A finite float32-sized number, or None for None and NaN. Raises FuselineError ``bad_cell``."""
    if cell is None:
        return None
    cell = cell.item() if isinstance(cell, np.generic) else cell
    try:
        if isinstance(cell, bool):
            raise TypeError
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        hint = "a target of words or of yes and no is `task.kind: classification`"
        raise FuselineError("bad_cell", f"{str(cell)[:80]!r} is not a number", hint, column=column) from None
    if math.isnan(number):
        return None
    if abs(number) > float(np.finfo(np.float32).max):
        raise FuselineError(
            "bad_cell", f"{number} is not a finite 32-bit number", "leave it empty, or cut it", column=column
        )
    return number


def _parsed(cell: Any, column: str, row: int) -> float | None:
    try:
        return parse_number(cell, column)
    except FuselineError as error:
        raise error.at(row) from None


class Regression:
    """One number a row, or K numbers of which some may be absent in a row."""

    Config: ClassVar[type[TaskConfig]] = RegressionConfig
    stratify: ClassVar[Stratify] = "numbers"
    name = "regression"

    def __init__(self, config: RegressionConfig, *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.config = config
        self.columns = config.columns
        self.mean, self.std = tuple(mean), tuple(std)
        self.mode = "number" if len(self.columns) == 1 else "numbers"
        self.metric = "rmse" if len(self.columns) == 1 else "nrmse"

    @classmethod
    def fit(cls, config: RegressionConfig, targets: Mapping[str, Sequence[Any]]) -> Regression:
        """Mean and standard deviation of each target. Raises FuselineError ``bad_cell``, whose row counts the cells
        given here, or ``constant_target``."""
        mean, std = [], []
        for column in config.columns:
            parsed = (_parsed(cell, column, i) for i, cell in enumerate(targets[column]))
            values = np.array([v for v in parsed if v is not None], dtype=np.float64)
            if len(values) == 0:
                raise FuselineError(
                    "no_target", "no training row has a target", "is it the right column?", column=column
                )
            if np.float32(values.min()) == np.float32(values.max()):
                raise FuselineError(
                    "constant_target",
                    f"every training row has the target {values[0]:g}: there is nothing to learn",
                    "choose another target column, or give rows with other values",
                    column=column,
                )
            mean.append(float(values.mean()))
            std.append(float(values.std()))
        return cls(config, mean=mean, std=std)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Regression:
        return cls(RegressionConfig.model_validate(state["config"]), mean=state["mean"], std=state["std"])

    def state(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json"), "mean": list(self.mean), "std": list(self.std)}

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Any inputs will do."""

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """Nothing is left to choose."""
        return []

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """`quantiles`: eleven of the first target's training cells."""
        values = np.array([float(v) for v in cells["train"][self.columns[0]] if v is not None])
        return {"quantiles": [float(q) for q in np.quantile(values, np.linspace(0, 1, 11))] if len(values) else []}

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        gaps_NK = np.abs(np.asarray(outputs["prediction"]) - targets.reshape(len(decoded), -1))
        return {"error": [float(g) for g in np.nanmean(gaps_NK, axis=1)]}

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        numbers = [parse_number(cells.get(column), column) for column in self.columns]
        if all(n is None for n in numbers):
            return None
        return np.array([np.nan if n is None else n for n in numbers], dtype=np.float32)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        rows = np.asarray(outputs["prediction"], dtype=np.float64).tolist()
        if len(self.columns) == 1:
            return [Decoded(row[0]) for row in rows]
        return [Decoded(dict(zip(self.columns, row, strict=True))) for row in rows]

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
        """See the head of this file. `targets` (N, K), NaN where absent; `outputs["prediction"]` (N, K)."""
        truth_NK, answer_NK, finite = self._numbers(targets, outputs)
        scores = scored(
            self.measure(targets, outputs),
            len(truth_NK),
            resamples=bootstrap,
            seed=seed,
            groups=groups,
            higher=lambda name: name == "r2",
            defined=finite,
        )
        if details:
            found = metrics.errors(truth_NK, answer_NK, np.ones((1, len(truth_NK))))
            scores.details["per_target"] = [
                {
                    "target": column,
                    **{name: metrics.plain(getattr(found, name)[0, k]) for name in ("mae", "rmse", "r2")},
                    "rows": int((~np.isnan(truth_NK[:, k])).sum()),
                }
                for k, column in enumerate(self.columns)
            ]
        return scores

    def _numbers(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, bool]:
        truth_NK, answer_NK = np.asarray(targets, np.float64), np.asarray(outputs["prediction"], np.float64)
        truth_NK, answer_NK = (x.reshape(-1, len(self.columns)) for x in (truth_NK, answer_NK))
        finite = bool(np.isfinite(answer_NK).all())
        if not finite:  # a diverged model: every metric is undefined, as if no row had a target
            truth_NK, answer_NK = np.full_like(truth_NK, np.nan), np.zeros_like(answer_NK)
        return truth_NK, answer_NK, finite

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        truth_NK, answer_NK, _ = self._numbers(targets, outputs)

        def measured(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
            found = metrics.errors(truth_NK, answer_NK, weights_RN)
            out = {name: metrics.mean_defined(getattr(found, name)) for name in ("rmse", "mae", "r2")}
            if len(self.columns) > 1:
                out = {"nrmse": metrics.mean_defined(found.rmse / np.array(self.std)), **out}
            return out

        return measured

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Predictions in standard deviations of the training target (B, K)."""
        rows_BK = np.asarray(outputs["prediction"], np.float64).reshape(-1, len(self.columns))
        return np.asarray((rows_BK - np.array(self.mean)) / np.array(self.std))
