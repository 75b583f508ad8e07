"""Forecasts: the next K steps of one series or of C, with quantiles. Dimensions: N rows, B batch, K steps, C channels,
Q quantiles.

Outputs: `forecast` (B, K, C, Q) in the series' own units, `naive` and `seasonal` (B, K, C): the last known number of
the row's history, and the number one season before. A row's value is the list of the K medians, or channel -> list;
its details are `quantiles` (name -> the same shape), and `steps` where no history was there to start from.

`Scores.metrics`: mae and rmse of the median, mape, smape (percent), mase, pinball (mean over the quantiles), coverage
and width of the widest interval, naive_mae, seasonal_mae. `Scores.details["per_step"]`: these for each step ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from fuseline.data.series import NEXT, read_series
from fuseline.errors import FuselineError
from fuseline.recipe import Stratify
from fuseline.tasks import series
from fuseline.tasks.base import Decoded, Scores, TaskConfig
from fuseline.tasks.bootstrap import Measure
from fuseline.tasks.scored import scored

DIGITS = 6
"""significant digits of an answer's numbers"""


class ForecastConfig(TaskConfig):
    """Options of the forecast task."""

    target: str = Field(min_length=1, description="the column of what comes next, a series a row")
    input: str | None = Field(
        None,
        description="the timeseries input that holds the target's own past, channel by channel; default: the one whose "
        f"column is `target` without its {NEXT}",
    )
    quantiles: tuple[float, ...] = Field((0.1, 0.5, 0.9), description="which to forecast, rising, 0.5 among them")
    season: int = Field(1, ge=1, description="steps after which the series repeats itself, e.g. 24 of hourly numbers")
    channels: tuple[str, ...] = Field((), description="names of the target's channels; default: those of its past")

    @field_validator("quantiles")
    @classmethod
    def _rising(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if list(given) != sorted(set(given)) or 0.5 not in given or not all(0 < q < 1 for q in given):
            raise ValueError("quantiles rise from above 0 to below 1, with 0.5 among them")
        return given

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,)


class Forecast:
    """The next K steps of C channels."""

    Config: ClassVar[type[TaskConfig]] = ForecastConfig
    stratify: ClassVar[Stratify] = "none"

    def __init__(
        self,
        config: ForecastConfig,
        *,
        steps: int,
        mean: Sequence[float],
        std: Sequence[float],
        scale: Sequence[float],
    ) -> None:
        """`mean`, `std`, `scale` (C,): of the training targets; see :func:`series.naive_scale`."""
        self.name, self.mode, self.metric = "forecast", "", "mae"
        self.config, self.columns = config, config.columns
        self.steps = steps
        self.mean, self.std, self.mase_scale = tuple(mean), tuple(std), tuple(scale)
        self.size = len(self.mean)
        self.channels = config.channels or tuple(str(i + 1) for i in range(self.size))
        self.quantiles_Q = np.array(config.quantiles)
        self.middle = config.quantiles.index(0.5)

    @classmethod
    def fit(cls, config: ForecastConfig, targets: Mapping[str, Sequence[Any]]) -> Forecast:
        """Steps and channels of the training targets. Raises FuselineError ``bad_cell``, ``no_target``."""
        column = config.target
        rows = [read_series(cell, column, None) for cell in targets[column]]
        known = [row for row in rows if row is not None]
        if not known:
            raise FuselineError("no_target", "no training row has a target", "is it the right column?", column=column)
        steps, size = max(len(r) for r in known), known[0].shape[1]
        if config.channels and len(config.channels) != size:
            message = f"task.channels names {len(config.channels)} channels, the target has {size}"
            raise FuselineError("bad_recipe", message, "", column=column)
        truth_NKC = np.full((len(known), steps, size), np.nan, np.float32)
        for i, row in enumerate(known):
            _check_size(row, size, column)
            truth_NKC[i, : len(row)] = row
        count_C = np.maximum((~np.isnan(truth_NKC)).sum(axis=(0, 1)), 1)
        mean_C = np.nansum(truth_NKC, axis=(0, 1), dtype=np.float64) / count_C
        std_C = np.sqrt(np.nansum((truth_NKC - mean_C) ** 2, axis=(0, 1), dtype=np.float64) / count_C)
        std_C = np.where(std_C > 1e-6 * np.maximum(1.0, np.abs(mean_C)), std_C, 1.0)
        return cls(
            config,
            steps=steps,
            mean=mean_C.tolist(),
            std=std_C.tolist(),
            scale=series.naive_scale(truth_NKC).tolist(),
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Forecast:
        given = {k: v for k, v in state.items() if k != "config"}
        return cls(ForecastConfig.model_validate(state["config"]), **given)

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "steps": self.steps,
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": list(self.mase_scale),
        }

    def history(self, inputs: Mapping[str, Any]) -> str | None:
        """The input that holds the target's own past, by the recipe or by its column's name."""
        if self.config.input is not None:
            return self.config.input
        past = self.config.target.removesuffix(NEXT)
        found = [n for n, m in inputs.items() if m.name == "timeseries" and m.columns == (past,)]
        return found[0] if found and past != self.config.target else None

    def check(self, inputs: Mapping[str, Any]) -> None:
        name = self.history(inputs)
        if name is None:
            return
        if name not in inputs or inputs[name].name != "timeseries":
            near = [n for n, m in inputs.items() if m.name == "timeseries"]
            hint = f"timeseries inputs: {', '.join(near) or 'none'}"
            raise FuselineError("bad_recipe", f"task.input: {name} is no timeseries input", hint)
        if inputs[name].size_C != self.size:
            raise FuselineError(
                "bad_recipe",
                f"task.input: {name} has {inputs[name].size_C} channels, the target has {self.size}",
                "the target's own past has the target's channels, in the same order",
            )
        if not self.config.channels:
            self.channels = inputs[name].channels
            self.config = self.config.model_copy(update={"channels": self.channels})

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """Nothing is left to choose."""
        return []

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """`quantiles`: eleven of all numbers of the training targets."""
        rows = (read_series(cell, self.config.target, None) for cell in cells["train"][self.config.target])
        values = np.concatenate([r.ravel() for r in rows if r is not None] or [np.zeros(0)])
        values = values[~np.isnan(values)]
        return {"quantiles": [float(q) for q in np.quantile(values, np.linspace(0, 1, 11))] if len(values) else []}

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        gaps_NKC = np.abs(np.asarray(outputs["forecast"])[..., self.middle] - targets)
        known_NKC = ~np.isnan(gaps_NKC)
        total_N = np.where(known_NKC, gaps_NKC, 0.0).sum(axis=(1, 2))
        return {"error": (total_N / np.maximum(known_NKC.sum(axis=(1, 2)), 1)).tolist()}

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        """(K, C) float32, NaN where not known."""
        found_KC = read_series(cells.get(self.config.target), self.config.target, None)
        if found_KC is None:
            return None
        _check_size(found_KC, self.size, self.config.target)
        out_KC = np.full((self.steps, self.size), np.nan, dtype=np.float32)
        out_KC[: len(found_KC)] = found_KC[: self.steps]
        return None if np.isnan(out_KC).all() else out_KC

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        rows_BKCQ = np.asarray(outputs["forecast"], dtype=np.float64)
        answers = []
        for row_KCQ in rows_BKCQ:
            quantiles = {f"{q:g}": self.said(row_KCQ[..., i]) for i, q in enumerate(self.config.quantiles)}
            answers.append(Decoded(self.said(row_KCQ[..., self.middle]), details={"quantiles": quantiles}))
        return answers

    def said(self, numbers_KC: np.ndarray) -> Any:
        texts = [[float(f"{v:.{DIGITS}g}") for v in column] for column in numbers_KC.T.tolist()]
        return texts[0] if self.size == 1 else dict(zip(self.channels, texts, strict=True))

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
        """See the head of this file. `targets` (N, K, C)."""
        truth_NKC, finite = self._truth(targets, outputs)
        scores = scored(
            self._measure(truth_NKC, outputs),
            len(truth_NKC),
            resamples=bootstrap,
            seed=seed,
            groups=groups,
            higher=lambda name: name == "coverage",
            defined=finite,
        )
        if details:
            scores.details = {"per_step": self._per_step(truth_NKC, outputs)}
            if not finite:
                scores.details["notes"] = ["the model's outputs are not finite"]
        return scores

    def _truth(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, bool]:
        """A diverged model has no metrics: as if no row had a target."""
        truth_NKC = np.asarray(targets, dtype=np.float64)
        finite = bool(np.isfinite(outputs["forecast"]).all())
        return (truth_NKC if finite else np.full_like(truth_NKC, np.nan)), finite

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        return self._measure(self._truth(targets, outputs)[0], outputs)

    def _measure(self, truth_NKC: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        means = {name: series.weighted(values) for name, values in self._errors(truth_NKC, outputs).items()}

        def measured(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
            out = {name: mean(weights_RN) for name, mean in means.items()}
            return {"mae": out.pop("mae"), "rmse": np.sqrt(out.pop("square")), **out}

        return measured

    def _errors(self, truth_NKC: np.ndarray, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """(N, K, C) each."""
        answer_NKCQ = np.nan_to_num(np.asarray(outputs["forecast"], dtype=np.float64))
        middle_NKC = answer_NKCQ[..., self.middle]
        gap_NKC = np.abs(truth_NKC - middle_NKC)
        out = {
            "mae": gap_NKC,
            "square": gap_NKC**2,
            "mape": series.percentage(truth_NKC, middle_NKC),
            "smape": series.symmetric_percentage(truth_NKC, middle_NKC),
            "mase": gap_NKC / np.array(self.mase_scale),
            "pinball": series.pinball(truth_NKC, answer_NKCQ, self.quantiles_Q),
        }
        if len(self.quantiles_Q) > 1:
            low_NKC, high_NKC = answer_NKCQ[..., 0], answer_NKCQ[..., -1]
            out["coverage"] = series.covered(truth_NKC, low_NKC, high_NKC)
            out["width"] = np.where(np.isnan(truth_NKC), np.nan, high_NKC - low_NKC)
        for name in ("naive", "seasonal"):
            out[f"{name}_mae"] = np.abs(truth_NKC - np.asarray(outputs[name], dtype=np.float64))
        return out

    def _per_step(self, truth_NKC: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = [{"step": k + 1} for k in range(self.steps)]
        for name, values_NKC in self._errors(truth_NKC, outputs).items():
            for k, step in enumerate(steps):
                known = values_NKC[:, k][~np.isnan(values_NKC[:, k])]
                mean = float(known.mean()) if len(known) else None
                if name == "square":
                    step["rmse"] = None if mean is None else float(np.sqrt(mean))
                else:
                    step[name] = mean
        return steps

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Forecasts in standard deviations of the training target (B, K·C·Q)."""
        rows_BKCQ = np.asarray(outputs["forecast"], np.float64)
        scaled = (rows_BKCQ - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return np.asarray(scaled.reshape(len(rows_BKCQ), -1))


def _check_size(found_KC: np.ndarray, size: int, column: str) -> None:
    if found_KC.shape[1] != size:
        message = f"a step has {found_KC.shape[1]} numbers, other rows have {size}"
        raise FuselineError("bad_cell", message, "one number a channel", column=column)
