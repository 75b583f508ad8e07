"""Several tasks in one model. Dimensions: N rows, B batch, P packed numbers, K tasks.

A row teaches the tasks whose targets it has. What is encoded of it is one float64 array: each task's own target, one
after the other, then K numbers that say which of them the row has. Outputs are named ``<task>.<output>``, metrics
``<task>.<metric>``.

`Scores.metrics`: every task's own, and `score`, which is watched: the mean over tasks of R² where there is one, else of
the task's watched metric (where lower is better, of 1 / (1 + it)). A task of which no row has the target is left out.
`Scores.details["tasks"]`: by task its `rows` and its own details.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from fuseline.errors import FuselineError
from fuseline.recipe import Component, Stratify, read_options
from fuseline.tasks import Task, metrics, task_class
from fuseline.tasks.base import Decoded, Metric, Scores, TaskConfig
from fuseline.tasks.bootstrap import Measure, intervals
from fuseline.tasks.classification import RANKING_CELLS

KINDS = ("classification", "regression", "detection", "retrieval")
"""tasks that can be one of several: their targets are numbers of one shape, and the head of several hands on what each
one asks for"""


class MultiConfig(TaskConfig):
    """Options of the multi task."""

    targets_may_be_absent: ClassVar[bool] = True

    tasks: dict[str, Component] = Field(
        min_length=2, description="name -> a task with its `kind` and options; `target` is the name unless it is given"
    )
    weights: Literal["learned", "equal"] | dict[str, float] = Field(
        "learned",
        description="of the tasks' losses. learned: by each task's own noise (Kendall et al. 2018); or numbers by name",
    )

    @model_validator(mode="after")
    def _tasks_hold(self) -> MultiConfig:
        for name, spec in self.tasks.items():
            if not name or "." in name or not name.isprintable():
                raise ValueError(f"tasks.{name}: a name may not be empty or hold a dot")
            if spec.kind not in KINDS:
                known = ", ".join(KINDS)
                raise ValueError(f"tasks.{name}: {spec.kind!r} cannot be one of several tasks; known: {known}")
            if spec.kind == "generation":
                raise ValueError(f"tasks.{name}: a text is written step by step, by a model of its own")
        if isinstance(self.weights, dict):
            if set(self.weights) != set(self.tasks):
                raise ValueError("`weights` gives one number to each of `tasks`")
            if not all(0 <= w < float("inf") for w in self.weights.values()) or not any(self.weights.values()):
                raise ValueError("a weight is a number from 0 on, and one is above 0")
        _ = self.configs
        return self

    @cached_property
    def configs(self) -> dict[str, Any]:
        """Each task's own config. Raises FuselineError ``bad_recipe``, ``unknown_kind``."""
        out = {}
        for name, spec in self.tasks.items():
            config, options = task_class(spec.kind).Config, spec.options
            if "target" in config.model_fields and not options.keys() & {"target", "targets"}:
                options["target"] = name
            out[name] = read_options(config, options, f"task.tasks.{name}")
        return out

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c for config in self.configs.values() for c in config.columns))

    @property
    def spread(self) -> dict[str, Stratify]:
        """Of every task, by its first target."""
        kinds = {name: task_class(spec.kind) for name, spec in self.tasks.items()}
        return {own.columns[0]: kinds[name].stratify for name, own in self.configs.items() if own.columns}


class Place(NamedTuple):
    """Where a task's target lies in the packed array."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    stop: int


class Multi:
    """Tasks by name, each fitted on its own columns."""

    Config: ClassVar[type[TaskConfig]] = MultiConfig
    stratify: ClassVar[Stratify] = "none"
    name = "multi"
    mode = ""
    metric = "score"

    def __init__(
        self, config: MultiConfig, *, tasks: Mapping[str, Task], arrays: Mapping[str, tuple[Sequence[int], str]]
    ) -> None:
        """`arrays`: shape and dtype of each task's encoded target."""
        self.config = config
        self.tasks = dict(tasks)
        self.columns: tuple[str, ...] = config.columns
        self.places: dict[str, Place] = {}
        at = 0
        for name, (shape, dtype) in arrays.items():
            self.places[name] = Place(tuple(shape), dtype, at, at + prod(shape))
            at = self.places[name].stop
        self.width = at

    @property
    def also(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c for task in self.tasks.values() for c in getattr(task, "also", ())))

    @classmethod
    def fit(cls, config: MultiConfig, targets: Mapping[str, Sequence[Any]]) -> Multi:
        tasks: dict[str, Task] = {}
        arrays: dict[str, tuple[Sequence[int], str]] = {}
        for name, spec in config.tasks.items():
            own = config.configs[name]
            cells = {c: targets[c] for c in own.columns}
            tasks[name] = task_class(spec.kind).fit(own, cells)
            found = _first(tasks[name], cells)
            arrays[name] = (found.shape, found.dtype.str)
        return cls(config, tasks=tasks, arrays=arrays)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Multi:
        own = state["tasks"]
        return cls(
            MultiConfig.model_validate(state["config"]),
            tasks={name: task_class(one["kind"]).from_state(one["state"]) for name, one in own.items()},
            arrays={name: (one["shape"], one["dtype"]) for name, one in own.items()},
        )

    def state(self) -> dict[str, Any]:
        own = {
            name: {
                "kind": task.name,
                "state": task.state(),
                "shape": list(self.places[name].shape),
                "dtype": self.places[name].dtype,
            }
            for name, task in self.tasks.items()
        }
        return {"config": self.config.model_dump(mode="json"), "tasks": own}

    def check(self, inputs: Mapping[str, Any]) -> None:
        for task in self.tasks.values():
            task.check(inputs)

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """What each task has to choose."""
        own = {name: self._own(name, np.asarray(targets), outputs) for name in self.tasks}
        return [f"{name}: {said}" for name, task in self.tasks.items() for said in task.settle(*own[name])]

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        """float64 (P + K,); None where the row has none of the targets."""
        packed = np.full(self.width + len(self.tasks), np.nan)
        for i, (name, task) in enumerate(self.tasks.items()):
            target = task.encode(cells)
            packed[self.width + i] = target is not None
            if target is not None:
                packed[self.places[name].start : self.places[name].stop] = target.reshape(-1)
        return packed if packed[self.width :].any() else None

    def known(self, name: str, packed: np.ndarray) -> np.ndarray:
        """Which rows of `packed` (N, P + K) have the task's target (N,)."""
        return np.asarray(packed[:, self.width + list(self.tasks).index(name)] > 0)

    def unpack(self, name: str, packed: np.ndarray) -> np.ndarray:
        """The task's own targets of rows that have one, as its `encode` gave them, stacked."""
        at = self.places[name]
        return np.asarray(packed[:, at.start : at.stop]).reshape(-1, *at.shape).astype(at.dtype)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        """`value`: task -> value. `details`: task -> its `probabilities`, `interval` and details, those it has."""
        by_task = {name: task.decode(own_outputs(name, outputs)) for name, task in self.tasks.items()}
        answers = []
        for row in zip(*by_task.values(), strict=True):
            parts = dict(zip(by_task, row, strict=True))
            details = {name: told for name, one in parts.items() if (told := _told(one))}
            notes = [f"{name}: {note}" for name, one in parts.items() for note in one.notes]
            values = {name: one.value for name, one in parts.items()}
            answers.append(Decoded(values, details=details or None, notes=notes))
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
        """See the head of this file. `targets` (N, P + K)."""
        targets = np.asarray(targets)
        rows = len(targets)
        scores, notes, told = Scores(rows), [], {}
        scores.metrics["score"] = Metric("score", np.nan)
        for name, task in self.tasks.items():
            own = self._own(name, targets, outputs)
            found = task.score(*own, details=details)
            for key, metric in found.metrics.items():
                full = f"{name}.{key}"
                scores.metrics[full] = Metric(full, metric.value, higher_is_better=metric.higher_is_better)
            told[name] = {"kind": task.name, "rows": found.rows, **found.details}
        measure = self.measure(targets, outputs)
        point = measure(np.ones((1, rows)))
        scores.metrics["score"].value = float(point["score"][0])
        columns = sum(v.shape[1] for v in outputs.values() if v.ndim == 2)
        if rows * columns * bootstrap > RANKING_CELLS:
            notes.append(f"no intervals: {rows} rows of {columns} outputs cost too much")
            bootstrap = 0
        for name, bounds in intervals(measure, rows, resamples=bootstrap, seed=seed, groups=groups).items():
            scores.metrics[name].low, scores.metrics[name].high = bounds
        if details:
            scores.details = {"tasks": told, "notes": notes}
        return scores

    def _own(
        self, name: str, targets: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Targets and outputs of the rows that have the task's target."""
        known_N = self.known(name, targets)
        own = {key: np.asarray(value)[known_N] for key, value in own_outputs(name, outputs).items()}
        return self.unpack(name, targets[known_N]), own

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        targets = np.asarray(targets)
        parts = []
        for name, task in self.tasks.items():
            own = self._own(name, targets, outputs)
            higher = {k: m.higher_is_better for k, m in task.score(*own, details=False).metrics.items()}
            watched = "r2" if "r2" in higher else task.metric
            parts.append((name, self.known(name, targets), task.measure(*own), watched, higher[watched]))

        def measured(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
            out: dict[str, np.ndarray] = {}
            goods = []
            for name, known_N, measure, watched, higher in parts:
                found = measure(weights_RN[:, known_N])
                out |= {f"{name}.{key}": value for key, value in found.items()}
                good_R = np.asarray(found[watched], dtype=np.float64)
                goods.append(good_R if higher else 1 / (1 + good_R))
            return {"score": metrics.mean_defined(np.stack(goods, axis=1)), **out}

        return measured

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        """`error`: mean over the row's tasks of 0 or 1 for right or wrong, and of where the row's error stands among
        all rows' (0 best, 1 worst), since errors have units."""
        targets = np.asarray(targets)
        error_NK = np.full((len(targets), len(self.tasks)), np.nan)
        for k, (name, task) in enumerate(self.tasks.items()):
            rows = np.flatnonzero(self.known(name, targets))
            if not len(rows):
                continue
            own, outs = self._own(name, targets, outputs)
            values = task.decode(own_outputs(name, outputs))
            found = task.judge(own, outs, [values[i] for i in rows])
            if "correct" in found:
                error_NK[rows, k] = [not right for right in found["correct"]]
            elif "error" in found:
                error_NK[rows, k] = _standing(np.array(found["error"], dtype=np.float64))
        return {"error": [metrics.plain(v) for v in metrics.mean_defined(error_NK)]}

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """`tasks`: task -> its kind, column and own summary, of the rows that have its target."""
        own = {
            name: {
                "kind": task.name,
                "column": ", ".join(task.columns),
                **task.summary({part: _with_some(columns, task.columns) for part, columns in cells.items()}),
            }
            for name, task in self.tasks.items()
        }
        return {"tasks": own}

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        parts = [task.scale(own_outputs(name, outputs)) for name, task in self.tasks.items()]
        return np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)


def own_outputs(name: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """One task's outputs under their own names."""
    return {key[len(name) + 1 :]: value for key, value in outputs.items() if key.startswith(name + ".")}


def _with_some(cells: Mapping[str, Sequence[Any]], columns: Sequence[str]) -> dict[str, list[Any]]:
    """These columns of the rows that have a cell in one of them."""
    rows = list(zip(*(cells[c] for c in columns), strict=True))
    kept = [row for row in rows if any(cell is not None for cell in row)]
    return {c: [row[i] for row in kept] for i, c in enumerate(columns)}


def _first(task: Task, cells: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """The first target that there is: all of a task's have one shape and dtype."""
    rows = max((len(c) for c in cells.values()), default=1)
    for i in range(rows):
        found = task.encode({column: values[i] for column, values in cells.items()})
        if found is not None:
            return np.asarray(found)
    raise FuselineError("no_target", "no training row has a target", "is it the right column?", column=task.columns[0])


def _told(one: Decoded) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if one.probabilities is not None:
        out["probabilities"] = one.probabilities
    if one.interval is not None:
        out["interval"] = list(one.interval)
    return out | (one.details or {})


def _standing(error_N: np.ndarray) -> np.ndarray:
    """Share of the other rows with a smaller error, ties half."""
    order = np.sort(error_N[~np.isnan(error_N)])
    if len(order) < 2:
        return np.where(np.isnan(error_N), np.nan, 0.0)
    below = (np.searchsorted(order, error_N, "left") + np.searchsorted(order, error_N, "right") - 1) / 2
    return np.where(np.isnan(error_N), np.nan, below / (len(order) - 1))
