"""One ruler for all candidates: the same rows, every subset of inputs, interleaved times.

What is measured is the written package through its own backend, never the model in torch: what was chosen is what is
served. Dimensions: N rows, M inputs, B batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Reader
from fuseline.modalities.rows import lengths_of
from fuseline.progress import Voice
from fuseline.runtime import Predictor
from fuseline.tasks.degradation import subsets
from fuseline.tasks.paired import agreement, drop

BATCH = 16
ROUNDS, SECONDS = 20, 2.0
"""interleaved rounds of a timing at most, and the time after which it ends where single answers are slow"""
FEWEST_ROUNDS, TIMED, REST = 7, 3, 0.03
"""rounds at least; timed answers of each round, behind one that is not; seconds of rest before them"""
SMALLEST_SUBSET = 20
"""rows below which a subset's drop is shown and not judged: it is noise"""

Subset = tuple[str, ...]
Outputs = dict[Subset, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Verdict:
    """One package against the float one on the same rows. Plain JSON inside."""

    score: float
    drop: dict[str, float | None]
    subsets: list[dict[str, Any]]
    same_answer: float | None
    change: float


class Ruler:
    """Rows read once, asked of every package."""

    def __init__(
        self,
        prepared: Prepared,
        rows: np.ndarray,
        *,
        metric: str,
        bootstrap: int = 300,
        seed: int = 0,
    ) -> None:
        self.prepared, self.metric, self.bootstrap, self.seed = prepared, metric, bootstrap, seed
        self.names = prepared.parser.names
        self.subsets = subsets(self.names)
        read = prepared.reader.read(rows)
        for row in read:
            if row.error is not None:
                raise row.error
        read.sort(key=lambda row: float(lengths_of(prepared.parser.modalities, row.values).sum()))
        self.rows = np.array([row.index for row in read])
        self.targets = np.stack([row.target for row in read if row.target is not None])
        self.present_NM = prepared.parser.present([row.values for row in read])
        self.groups = None if prepared.groups is None else prepared.groups[self.rows]

    def values(self, predictor: Predictor) -> list[dict[str, Any]]:
        """The rows as a package reads them: its words may have other numbers, and it may have fewer inputs."""
        base = self.prepared
        reader = Reader(base.table, predictor.rows, base.task, base.reader.media, base.reader.cache)
        read = reader.read(self.rows)
        for row in read:
            if row.error is not None:
                raise row.error
        return [row.values for row in read]

    def outputs(self, predictor: Predictor, voice: Voice, title: str) -> Outputs:
        """What a package answers when only some inputs may be seen, for every subset. One pass of its graph each."""
        parts: dict[Subset, list[dict[str, np.ndarray]]] = {subset: [] for subset in self.subsets}
        values = self.values(predictor)
        with voice.track(title, len(values)) as advance:
            for start in range(0, len(values), BATCH):
                chunk = values[start : start + BATCH]
                for subset in self.subsets:
                    seen = [{n: v if n in subset else None for n, v in row.items()} for row in chunk]
                    parts[subset].append(predictor.run(seen))
                advance(len(chunk))
        return {s: {k: np.concatenate([p[k] for p in got]) for k in got[0]} for s, got in parts.items()}

    def compare(self, before: Outputs, after: Outputs) -> Verdict:
        """How much worse `after` is, over all rows and for every subset (rows that have any of it)."""
        task, full = self.prepared.task, self.subsets[0]
        whole = drop(
            task,
            self.metric,
            self.targets,
            before[full],
            after[full],
            bootstrap=self.bootstrap,
            seed=self.seed,
            groups=self.groups,
        )
        table = []
        for subset in self.subsets:
            chosen = [i for i, n in enumerate(self.names) if n in subset]
            some_N = np.asarray(self.present_NM[:, chosen].any(axis=1))
            if not some_N.any():
                continue
            first, second = ({k: v[some_N] for k, v in outputs[subset].items()} for outputs in (before, after))
            groups = None if self.groups is None else self.groups[some_N]
            worse = drop(
                task,
                self.metric,
                self.targets[some_N],
                first,
                second,
                bootstrap=self.bootstrap // 3,
                seed=self.seed,
                groups=groups,
            )
            table.append(
                {
                    "present": list(subset),
                    "rows": int(some_N.sum()),
                    "base": self._score(some_N, first),
                    "score": self._score(some_N, second),
                    "drop": worse.to_dict(),
                }
            )
        same, change = agreement(task, before[full], after[full])
        everything = np.ones(len(self.targets), bool)
        return Verdict(self._score(everything, after[full]), whole.to_dict(), table, same, change)

    def _score(self, some_N: np.ndarray, outputs: Mapping[str, np.ndarray]) -> float:
        scores = self.prepared.task.score(self.targets[some_N], outputs, details=False)
        return scores.metrics[self.metric].value

    def typical(self, predictor: Predictor, batch: int) -> list[dict[str, Any]]:
        """Rows to time, as a package reads them: of middle length, those that have every input first."""
        complete = np.flatnonzero(self.present_NM.all(axis=1))
        chosen = complete if len(complete) else np.arange(len(self.rows))
        start = max(0, min(len(chosen) // 2 - batch // 2, len(chosen) - batch))
        some = chosen[start : start + batch]
        values = self.values(predictor)
        return [values[some[i % len(some)]] for i in range(batch)]

    def race(self, predictors: Sequence[Predictor], batch: int) -> list[np.ndarray]:
        """Milliseconds of the same rows through each package in turn: see :func:`interleaved`."""
        return interleaved(predictors, [self.typical(p, batch) for p in predictors])


def interleaved(
    predictors: Sequence[Predictor], rows: Sequence[Sequence[Mapping[str, Any]]], *, rounds: int = ROUNDS
) -> list[np.ndarray]:
    """Milliseconds of answering decoded rows, each predictor in turn in every round, so that a busy machine slows all
    alike. Collating and decoding of answers are inside, reading files is not.

    `rows`: one list a predictor, as it reads them. Returns one array of times a predictor.
    """
    for predictor, own_rows in zip(predictors, rows, strict=True):
        for _ in range(2):  # the first runs allocate
            _answer(predictor, own_rows)
    times: list[list[float]] = [[] for _ in predictors]
    began = time.perf_counter()
    for done in range(rounds):
        for predictor, own_rows, own in zip(predictors, rows, times, strict=True):
            # onnxruntime's threads spin on when they have nothing to do: after 10 ms they still took a third of the
            # speed of whatever ran next, after 30 ms nothing.
            time.sleep(REST)
            _answer(predictor, own_rows)
            for _ in range(TIMED):
                start = time.perf_counter()
                _answer(predictor, own_rows)
                own.append(1000 * (time.perf_counter() - start))
        if done + 1 >= FEWEST_ROUNDS and time.perf_counter() - began > SECONDS * len(predictors):
            break
    return [np.array(own) for own in times]


def _answer(predictor: Predictor, rows: Sequence[Mapping[str, Any]]) -> None:
    predictor.task.decode(predictor.run(rows))


def quartiles(times: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(times, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}
