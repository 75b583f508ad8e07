"""Retrieval: which of one side's rows belongs to this one of the other. Dimensions: N rows, B batch, E embedding.

No column is a target: a row's two sides belong together, and to no other row's. What is encoded of a row is two digests
of its sides' cells, by which the loss and the metrics know that two rows hold the same (the same text twice, the same
file): such rows are no wrong answers of each other. Cells are compared as they stand, a file by its path.

`Scores.metrics`: recall_at_1, recall_at_5, recall_at_10, mrr and ndcg_at_10, each the mean of both directions, and each
direction's own (`mrr_left_to_right`, ...). A row's candidates are the scored rows that have both sides; the others are
left out, and counted. Intervals resample the queries, against the same candidates.
`Scores.details`: `candidates`, `left_out`, `shared` (queries with several right answers), `median_rank` by direction,
and `chance`: the metrics of an order drawn by lot.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from fuseline.errors import FuselineError
from fuseline.recipe import Stratify
from fuseline.tasks import metrics
from fuseline.tasks.base import Decoded, Scores, TaskConfig
from fuseline.tasks.bootstrap import Measure
from fuseline.tasks.ranking import NAMES, place
from fuseline.tasks.scored import scored

SIDES = ("left", "right")
WAYS = ("left_to_right", "right_to_left")
DIGITS = 6
"""of the vectors in an answer"""


class RetrievalConfig(TaskConfig):
    """Options of the retrieval task."""

    left: tuple[str, ...] = Field(min_length=1, description="inputs (their names) that are fused to the one vector")
    right: tuple[str, ...] = Field(min_length=1, description="inputs that are fused to the other")
    loss: Literal["infonce", "siglip"] = Field(
        "infonce",
        description="infonce: softmax over the batch, both ways (CLIP); siglip: a sigmoid a pair (Zhai et al. 2023)",
    )
    dim: int = Field(128, ge=2, le=4096, description="E: numbers of a side's vector")
    locked: Literal["none", "left", "right"] = Field(
        "none",
        description="a side of one frozen input that keeps its encoder's own vector, and the other learns to meet it "
        "(LiT, Zhai et al. 2022): for few rows. E is then that encoder's width",
    )
    temperature: float = Field(
        0.07, gt=0, le=10, description="what similarities are divided by at the start; it is learned"
    )

    @model_validator(mode="after")
    def _sides_are_apart(self) -> RetrievalConfig:
        names = [*self.left, *self.right]
        if len(set(names)) != len(names):
            raise ValueError("`left` and `right` name an input twice")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return ()


class Retrieval:
    """Two vectors a row, near where they belong together."""

    Config: ClassVar[type[TaskConfig]] = RetrievalConfig
    stratify: ClassVar[Stratify] = "none"
    name = "retrieval"
    mode = ""
    metric = "mrr"
    columns: tuple[str, ...] = ()

    def __init__(self, config: RetrievalConfig, *, sides: Mapping[str, Sequence[str]] | None = None) -> None:
        """`sides`: the table's columns of each side."""
        self.config = config
        self.sides = {side: tuple((sides or {}).get(side, ())) for side in SIDES}

    @property
    def also(self) -> tuple[str, ...]:
        """Columns that `encode` reads although they are no targets."""
        return tuple(dict.fromkeys(c for columns in self.sides.values() for c in columns))

    @classmethod
    def fit(cls, config: RetrievalConfig, targets: Mapping[str, Sequence[Any]]) -> Retrieval:
        """Nothing to fit; `check` learns which columns the sides read."""
        del targets
        return cls(config)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Retrieval:
        return cls(RetrievalConfig.model_validate(state["config"]), sides=state["sides"])

    def state(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json"), "sides": {k: list(v) for k, v in self.sides.items()}}

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Every input is on a side. Raises FuselineError ``bad_recipe``."""
        known = f"inputs: {', '.join(inputs)}"
        for side in SIDES:
            for name in getattr(self.config, side):
                if name not in inputs:
                    raise FuselineError("bad_recipe", f"task.{side} names {name!r}, which is no input", known)
        if self.config.locked != "none" and len(getattr(self.config, self.config.locked)) != 1:
            hint = f"leave one input in task.{self.config.locked}, or set locked: none"
            raise FuselineError("bad_recipe", "task.locked: a locked side is one input", hint)
        idle = [n for n in inputs if n not in (*self.config.left, *self.config.right)]
        if idle:
            hint = "name it in task.left or task.right, or remove it"
            raise FuselineError("bad_recipe", f"inputs.{idle[0]} is on neither side", hint)
        self.sides = {side: tuple(c for n in getattr(self.config, side) for c in inputs[n].columns) for side in SIDES}

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        """A digest a side, int64 (2,); 0 where every cell of the side is absent."""
        return np.array([digest([cells.get(c) for c in self.sides[side]]) for side in SIDES], dtype=np.int64)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        """`value`: the cosine of the row's two sides, None where it lacks one. The vectors are in `details`."""
        left_BE, right_BE = (np.asarray(outputs[side], dtype=np.float64) for side in SIDES)
        there = [present(x) for x in (left_BE, right_BE)]
        alike_B = (left_BE * right_BE).sum(axis=1)
        answers = []
        for i, alike in enumerate(alike_B.tolist()):
            both = bool(there[0][i] and there[1][i])
            vectors = {
                side: np.round(x[i], DIGITS).tolist() if here[i] else None
                for side, x, here in zip(SIDES, (left_BE, right_BE), there, strict=True)
            }
            answers.append(Decoded(alike if both else None, details=vectors))
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
        """See the head of this file. `targets` (N, 2), `outputs` `left` and `right` (N, E)."""
        rows = len(targets)
        values, both_N = self._placed(targets, outputs)
        resamples = bootstrap if both_N.any() else 0
        scores = scored(_measure(values, both_N), rows, resamples=resamples, seed=seed, groups=groups)
        if details:
            scores.details = self._details(targets, values, both_N)
        return scores

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Measure:
        return _measure(*self._placed(targets, outputs))

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        """`error`: how many wrong candidates stand before the right one, mean of both directions."""
        del decoded
        values, _ = self._placed(targets, outputs)
        before_N = np.mean([values[way]["rank"] - 1 for way in WAYS], axis=0)
        return {"error": [float(v) if np.isfinite(v) else None for v in before_N]}

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        """Nothing is left to choose."""
        return []

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        """`sides`: the columns of each."""
        del cells
        return {"sides": {side: list(columns) for side, columns in self.sides.items()}}

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Both vectors, one after the other (B, 2E)."""
        return np.concatenate([np.asarray(outputs[side], dtype=np.float64) for side in SIDES], axis=1)

    def _placed(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
        """Each way's values of each row (NaN where it lacks a side), and which rows have both."""
        targets = np.asarray(targets).reshape(-1, 2)
        left_NE, right_NE = (np.asarray(outputs[side], dtype=np.float64) for side in SIDES)
        both_N = present(left_NE) & present(right_NE)
        if not (np.isfinite(left_NE).all() and np.isfinite(right_NE).all()):
            both_N = np.zeros(len(targets), dtype=bool)  # a diverged model: every metric is undefined
        left_N, right_N = _codes(targets[both_N, 0]), _codes(targets[both_N, 1])
        found = {
            WAYS[0]: place(left_NE[both_N], right_NE[both_N], left_N, right_N),
            WAYS[1]: place(right_NE[both_N], left_NE[both_N], right_N, left_N),
        }
        out = {}
        for way, values in found.items():
            out[way] = {name: np.full(len(targets), np.nan) for name in values}
            for name, some in values.items():
                out[way][name][both_N] = some
        return out, both_N

    def _details(
        self, targets: np.ndarray, values: Mapping[str, Mapping[str, np.ndarray]], both_N: np.ndarray
    ) -> dict[str, Any]:
        number = int(both_N.sum())
        out: dict[str, Any] = {"candidates": number, "left_out": len(both_N) - number}
        if not number:
            return out
        left_N, right_N = (_codes(np.asarray(targets).reshape(-1, 2)[both_N, i]) for i in (0, 1))
        lots = {way: place(np.zeros((number, 1)), np.zeros((number, 1)), left_N, right_N) for way in WAYS[:1]}
        out["shared"] = int(((_sizes(left_N) > 1) | (_sizes(right_N) > 1)).sum())
        out["median_rank"] = {way: float(np.median(values[way]["rank"][both_N])) for way in WAYS}
        out["chance"] = {name: float(lots[WAYS[0]][name].mean()) for name in NAMES}
        return out


def present(vectors_NE: np.ndarray) -> np.ndarray:
    """Which rows have the side: the vector of an absent one is all zero. (N,)"""
    there_N: np.ndarray = np.abs(vectors_NE).max(axis=1, initial=0.0) > 0
    return there_N


def _measure(values: Mapping[str, Mapping[str, np.ndarray]], both_N: np.ndarray) -> Measure:
    ways = {way: {name: np.nan_to_num(values[way][name]) for name in NAMES} for way in WAYS}

    def measured(weights_RN: np.ndarray) -> dict[str, np.ndarray]:
        counted_RN = weights_RN * both_N
        out = {name: metrics.mean((ways[WAYS[0]][name] + ways[WAYS[1]][name]) / 2, counted_RN) for name in NAMES}
        return out | {f"{name}_{way}": metrics.mean(ways[way][name], counted_RN) for way in WAYS for name in NAMES}

    return measured


def _codes(digests_N: np.ndarray) -> np.ndarray:
    """Digests as codes; one that is 0 (a row whose cells said absent, and its model not) is alone."""
    unknown_N = digests_N == 0
    return np.where(unknown_N, -1 - np.arange(len(digests_N)), digests_N)


def _sizes(codes_N: np.ndarray) -> np.ndarray:
    _, back, counts = np.unique(codes_N, return_inverse=True, return_counts=True)
    return np.asarray(counts[back])


def digest(cells: Sequence[Any]) -> int:
    """52 bits of the cells' content, so that a float64 holds it exactly, too; 0 where every cell is absent."""
    if all(cell is None or (isinstance(cell, float) and cell != cell) for cell in cells):
        return 0
    text = hashlib.blake2b(digest_size=8)
    for cell in cells:
        content = _content(cell)
        text.update(len(content).to_bytes(8, "little"))
        text.update(content)
    return (int.from_bytes(text.digest(), "little") & (2**52 - 1)) or 1


def _content(cell: Any) -> bytes:
    if isinstance(cell, dict) and (cell.get("bytes") or cell.get("path")):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, (bytes, bytearray)):
        return bytes(cell)
    if isinstance(cell, np.ndarray):
        return cell.tobytes()
    if isinstance(cell, str):
        return unicodedata.normalize("NFC", cell.strip()).encode("utf-8", "surrogatepass")
    return repr(cell.item() if isinstance(cell, np.generic) else cell).encode()
