"""What a perfect judge would say: posteriors and best possible accuracy. Never read by training.

Dimensions: N rows, C diagnoses.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.demo.statement import CLASSES, MODALITIES, PRIOR
from fuseline.errors import FuselineError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Best:
    """The Bayes rule's accuracy on some rows.

    Attributes:
        rows: how many rows were judged.
        reached: share of these very rows that the Bayes rule gets right: what a model's accuracy is compared with.
        expected: mean of the largest posterior: the same figure with the luck of the labels averaged out.
    """

    rows: int
    reached: float
    expected: float


@dataclass(frozen=True)
class DemoTruth:
    """Labels and evidence of every row of the generated table, in the table's order."""

    labels: Array
    """[N] index into CLASSES"""
    evidence: dict[str, Array]
    """modality -> [N, C] log-likelihood of what the row's cells show; zero where all of them are absent"""
    present: dict[str, Array]
    """modality -> [N] whether the row has any cell of it"""

    def posterior(self, subset: Collection[str] = MODALITIES, rows: Sequence[int] | None = None) -> Array:
        """P(diagnosis | present cells of the modalities in `subset`), float64 [N, C], by Bayes' rule."""
        unknown = sorted(set(subset) - set(MODALITIES))
        if unknown:
            raise FuselineError("unknown_kind", f"the demo has no modality {unknown[0]!r}", f"known: {MODALITIES}")
        at = np.arange(len(self.labels)) if rows is None else np.asarray(rows, dtype=np.int64)
        log_NC = np.log(PRIOR) + sum(self.evidence[m][at] for m in subset) + np.zeros((len(at), 1))
        odds_NC = np.exp(log_NC - log_NC.max(axis=1, keepdims=True))
        return np.asarray(odds_NC / odds_NC.sum(axis=1, keepdims=True))

    def bayes_accuracy(self, subset: Collection[str] = MODALITIES, rows: Sequence[int] | None = None) -> Best:
        """Best possible accuracy on `rows` (default: all) for a judge who sees only `subset`.

        A row without any cell of the subset is judged by the prior, as a model must.
        """
        posterior_NC = self.posterior(subset, rows)
        labels_N = self.labels if rows is None else self.labels[np.asarray(rows, dtype=np.int64)]
        right_N = posterior_NC.argmax(axis=1) == labels_N
        return Best(len(labels_N), float(right_N.mean()), float(posterior_NC.max(axis=1).mean()))

    def save(self, path: Path) -> None:
        """Write truth.csv: a row a visit, with its posterior and each modality's evidence."""
        posterior_NC = self.posterior()
        with path.open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(_header())
            for n, label in enumerate(self.labels):
                cells: list[Any] = [n, CLASSES[label], *(repr(float(p)) for p in posterior_NC[n])]
                for m in MODALITIES:
                    cells += [int(self.present[m][n]), *(repr(float(e)) for e in self.evidence[m][n])]
                out.writerow(cells)


def _header() -> list[str]:
    head = ["row", "diagnosis", *(f"posterior.{c}" for c in CLASSES)]
    for m in MODALITIES:
        head += [f"{m}.present", *(f"{m}.{c}" for c in CLASSES)]
    return head


def load_truth(folder: str | Path) -> DemoTruth:
    """Read what :func:`fuseline.demo.generate` wrote to `folder`."""
    path = Path(folder) / "truth.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise FuselineError("no_such_file", f"no demo truth at {path}", "make a demo with `fuseline demo`") from None
    if not rows or list(rows[0]) != _header():
        raise FuselineError("bad_table", f"{path} was not written by this version's demo", "generate the demo again")
    return DemoTruth(
        np.array([CLASSES.index(r["diagnosis"]) for r in rows]),
        {m: np.array([[float(r[f"{m}.{c}"]) for c in CLASSES] for r in rows]) for m in MODALITIES},
        {m: np.array([r[f"{m}.present"] == "1" for r in rows]) for m in MODALITIES},
    )
