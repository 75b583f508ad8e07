"""Float graphs to give other number formats, with batches of real rows. Made once a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import served
from lab.compress.cuttable import subject_of

from fuseline.lab.compress.graph_check import as_package, change
from fuseline.lab.compress.quantise import Quantised, quantise
from fuseline.lab.export.graph import export_graph
from fuseline.modalities import MediaRoot
from fuseline.runtime import load
from fuseline.runtime.backend import open_backend

FUSION = "fusion.head"
Arrays = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]


@dataclass
class Source:
    """A folder with a float graph, the rows of which batches are made, and how."""

    folder: Path
    names: tuple[str, ...]
    rows: list[dict[str, object]]
    parser: object

    def batch(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        return self.parser.arrays([self.rows[i] for i in rows])  # type: ignore[attr-defined]

    def batches(self, size: int = 5) -> list[dict[str, np.ndarray]]:
        """All rows, in batches of other sizes and lengths."""
        return [self.batch(range(i, min(i + size, len(self.rows)))) for i in range(0, len(self.rows), size)]

    def whole(self, precision: str) -> dict[str, str]:
        return dict.fromkeys((*self.names, FUSION), precision)


def package_source(package: Path, rows: int = 24) -> Source:
    """Text, picture, sound and table, `small` encoders."""
    predictor = load(package)
    parsed = [predictor.rows.parse(row, MediaRoot(None)).values for row in served.rows(rows)]
    return Source(package, predictor.names, parsed, predictor.rows)


def exported_source(case: str, folder: Path) -> Source:
    """A case of the conformance suite."""
    subject = subject_of(case, folder)
    graph = folder / "graph"
    graph.mkdir()
    export_graph(subject.model, subject.parser.modalities, graph)
    return Source(graph, tuple(subject.names), [subject.full, subject.other, *subject.rows[:22]], subject.parser)


def make(source: Source, folder: Path, backend: str, precision: Mapping[str, str], **more: object) -> Quantised:
    folder.mkdir(parents=True)
    options = {"calibration": source.batches(), **more}
    return quantise(source.folder, folder, names=source.names, backend=backend, precision=precision, **options)  # type: ignore[arg-type]


def runner_of(folder: Path, made: Quantised | None = None) -> object:
    runtime = {"backend": "onnxruntime"} if made is None else made.runtime
    return open_backend(runtime["backend"], as_package(folder, runtime), threads=1)


def run(backend: object, batch: Arrays) -> Outputs:
    return backend.run(batch)  # type: ignore[attr-defined, no-any-return]


def joined(backend: object, batches: Sequence[Arrays]) -> Outputs:
    parts = [run(backend, batch) for batch in batches]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def moved(source: Source, folder: Path, made: Quantised) -> float:
    """Largest mean change of an output, in units of its spread."""
    batches = source.batches(7)
    return max(change(joined(runner_of(source.folder), batches), joined(runner_of(folder, made), batches)).values())


def nodes_of(folder: Path) -> dict[str, onnx.NodeProto]:
    return {n.name: n for n in onnx.load(folder / "graph.onnx", load_external_data=False).graph.node}
