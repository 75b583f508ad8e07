"""Rows without targets, as a task: what pretraining measures of held-out rows.

Dimensions: N rows, M inputs, E numbers of a contrasted vector.

What is encoded of a row is a digest of each input's cells, by which the contrast and the measures know that two rows
hold the same. `Scores.metrics`, all but recall_at_1 better where lower: `loss` (the weighted sum), `contrast`, `masked`
(mean over inputs) and `masked.NAME`, `recall_at_1` (mean over pairs and directions) and `recall_at_1.A.B` (of the rows
that have both, how often A's vector finds its own row's B and the other way round, mean of both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from fuseline.modalities import Modality
from fuseline.recipe import PretrainSpec, Stratify
from fuseline.tasks import Decoded, Metric, Scores, TaskConfig
from fuseline.tasks.ranking import place
from fuseline.tasks.retrieval import digest, present

MOST = 1000
"""rows among which a row's other half is looked for, at most"""


class UnlabelledConfig(TaskConfig):
    @property
    def columns(self) -> tuple[str, ...]:
        return ()


class Unlabelled:
    """Follows the Task protocol as far as training goes: nothing is ever answered."""

    Config: ClassVar[type[TaskConfig]] = UnlabelledConfig
    stratify: ClassVar[Stratify] = "none"
    name = "unlabelled"
    mode = ""
    metric = "loss"
    columns: tuple[str, ...] = ()

    def __init__(self, spec: PretrainSpec, names: Sequence[str] = ()) -> None:
        self.spec, self.names = spec, tuple(names)
        self.sources: dict[str, tuple[str, ...]] = {}
        self.pairs = list(combinations(self.names, 2)) if spec.contrast else []
        self.told = (
            *(("contrast", "recall_at_1", *(f"recall_at_1.{a}.{b}" for a, b in self.pairs)) if self.pairs else ()),
            *(("masked", *(f"masked.{n}" for n in self.names)) if spec.masked else ()),
        )

    @property
    def also(self) -> tuple[str, ...]:
        """Columns that `encode` reads although they are no targets."""
        return tuple(dict.fromkeys(c for columns in self.sources.values() for c in columns))

    @classmethod
    def fit(cls, config: Any, targets: Mapping[str, Sequence[Any]]) -> Unlabelled:
        raise TypeError("made from a recipe's `pretrain`, not fitted")

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Unlabelled:
        return cls(PretrainSpec.model_validate(state["spec"]), state["names"])

    def state(self) -> dict[str, Any]:
        return {"spec": self.spec.model_dump(mode="json"), "names": list(self.names)}

    def check(self, inputs: Mapping[str, Modality]) -> None:
        self.sources = {name: tuple(inputs[name].columns) for name in self.names}

    def encode(self, cells: Mapping[str, Any]) -> np.ndarray | None:
        """int64 (M,); 0 where every cell of the input is absent."""
        return np.array([digest([cells.get(c) for c in self.sources[n]]) for n in self.names], dtype=np.int64)

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
        """`targets` (N, M) digests; `outputs`: contrast (N,), masked (N, M), NaN where a row has none of it, and
        vectors (N, M, E), 0 where an input is absent."""
        found: dict[str, float] = {"loss": 0.0}
        if self.pairs:
            found["contrast"] = _mean(outputs["contrast"])
            found |= self._recall(targets, outputs["vectors"])
            found["loss"] += self.spec.contrast * np.nan_to_num(found["contrast"])
        if self.spec.masked:
            each = {f"masked.{n}": _mean(outputs["masked"][:, i]) for i, n in enumerate(self.names)}
            found |= {"masked": _mean(np.array(list(each.values()))), **each}
            found["loss"] += self.spec.masked * np.nan_to_num(found["masked"])
        scores = Scores(len(targets))
        scores.metrics = {k: Metric(k, v, higher_is_better=k.startswith("recall")) for k, v in found.items()}
        return scores

    def _recall(self, digests_NM: np.ndarray, vectors_NME: np.ndarray) -> dict[str, float]:
        out = {}
        for a, b in self.pairs:
            i, j = self.names.index(a), self.names.index(b)
            rows = np.flatnonzero(present(vectors_NME[:, i]) & present(vectors_NME[:, j]))[:MOST]
            left, right = vectors_NME[rows, i], vectors_NME[rows, j]
            ids = digests_NM[rows, i], digests_NM[rows, j]
            there = place(left, right, *ids)["recall_at_1"], place(right, left, *ids[::-1])["recall_at_1"]
            out[f"recall_at_1.{a}.{b}"] = _mean(np.concatenate(there))
        return {"recall_at_1": _mean(np.array(list(out.values()))), **out}

    def chance(self, digests_NM: np.ndarray, present_NM: np.ndarray) -> dict[str, float]:
        """recall_at_1.A.B of an order drawn by lot, over the same rows."""
        out = {}
        for a, b in self.pairs:
            i, j = self.names.index(a), self.names.index(b)
            rows = np.flatnonzero(present_NM[:, i] & present_NM[:, j])[:MOST]
            none = np.zeros((len(rows), 1))
            out[f"recall_at_1.{a}.{b}"] = _mean(place(none, none, *digests_NM[rows][:, [i, j]].T)["recall_at_1"])
        return out

    def summary(self, cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
        return {}

    def settle(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> list[str]:
        return []

    def judge(
        self, targets: np.ndarray, outputs: Mapping[str, np.ndarray], decoded: Sequence[Decoded]
    ) -> dict[str, list[Any]]:
        return {}

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Decoded]:
        raise TypeError("rows without a target have no answer")

    def measure(self, targets: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], Any]:
        raise TypeError("rows without a target have no answer")

    def scale(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        raise TypeError("rows without a target have no answer")


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
