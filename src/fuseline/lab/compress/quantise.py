"""Number formats of the exported graph: the door. See onnx_static, onnx_weights, onnx_dynamic for what each one is.

Which to choose, by measurement (MiniLM with EfficientNet-Lite0, see openvino_ir): int8 for convolutions and for
Transformers. Weights of few bits are for size alone; int8-dynamic where there are no rows to calibrate with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from fuseline.errors import FuselineError, unknown_kind
from fuseline.lab.compress import graph_check, openvino_ir
from fuseline.lab.compress.calibrate import METHODS
from fuseline.lab.compress.fusions import prepare
from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.onnx_graph import Graph
from fuseline.lab.compress.onnx_rounding import round_graph
from fuseline.progress import Silent, Voice
from fuseline.runtime.backend import BACKENDS

PRECISIONS = ("float32", "bfloat16", "int8", "int8-dynamic", "weights-int8", "weights-int4")
CANNOT: Final = {
    ("onnxruntime", "bfloat16"): "onnxruntime has no bfloat16 on processors; choose weights-int8, or openvino",
    ("openvino", "int8-dynamic"): "OpenVINO takes int8 with fixed ranges only; choose int8 or weights-int8",
}


@dataclass(frozen=True)
class Quantised:
    """What was written."""

    files: tuple[str, ...]
    bytes: int
    precision: dict[str, str]
    """of every part"""
    notes: tuple[str, ...]
    runtime: dict[str, Any]
    """what goes to compression.json["runtime"]"""


@dataclass(frozen=True)
class _Order:
    source: Path
    names: tuple[str, ...]
    backend: str
    keep_float: tuple[str, ...]
    calibration: tuple[Mapping[str, np.ndarray], ...]
    method: Literal["percentile", "entropy", "minmax"]
    voice: Voice


def quantise(
    source: Path,
    target: Path,
    *,
    names: Sequence[str],
    backend: str,
    precision: Mapping[str, str],
    keep_float: Sequence[str] = (),
    calibration: Sequence[Mapping[str, np.ndarray]],
    method: Literal["percentile", "entropy", "minmax"] = "percentile",
    voice: Voice | None = None,
) -> Quantised:
    """Write the graph of a float model in other number formats. The same input gives the same bytes.

    Args:
        source: holds graph.onnx and weights.safetensors.
        target: an existing, empty folder; gets graph.onnx, with weights.bin where they are not small, or openvino.xml
            and openvino.bin. Inputs, outputs and names of nodes are those of the source; batch and lengths stay open.
        names: inputs of the fused model in its order.
        backend: onnxruntime or openvino.
        precision: part (an input, or fusion.head) -> one of PRECISIONS; a part that is left out is float32. In
            OpenVINO bfloat16 is of the whole graph: float32 parts compute in it as well.
        keep_float: paths of modules that stay in float whatever their part.
        calibration: batches of real rows by graph input, `present` included, as RowParser.arrays gives them. They set
            the ranges of int8 and correct biases of all formats. Batches may differ in size and lengths.
        method: how ranges are set: by percentile (99.999 on either side), entropy, or smallest and largest value.
        voice: told how far calibration is.

    Raises:
        FuselineError: ``unknown_kind`` for a backend, part, precision or method there is not, ``bad_precision`` for one
            that the backend cannot do, ``no_calibration`` for int8 without rows, ``missing_extra`` without OpenVINO,
            ``quantise_failed`` where the result's outputs are not finite or all the same, naming the part.
    """
    wanted = _checked(tuple(names), backend, precision, method)
    if backend == "openvino":
        openvino_ir.library()
    order = _Order(source, tuple(names), backend, tuple(keep_float), tuple(calibration), method, voice or Silent())
    files, notes = _write(order, wanted, target)
    if {"bfloat16", "float32"} <= set(wanted.values()):
        notes.append("parts in float32 compute in bfloat16, too: OpenVINO has one float format for the whole graph")
    runtime = _runtime(backend, wanted)
    notes += _guard(order, wanted, target, runtime)
    size = sum((target / name).stat().st_size for name in files)
    return Quantised(files, size, wanted, tuple(notes), runtime)


def _checked(names: tuple[str, ...], backend: str, precision: Mapping[str, str], method: str) -> dict[str, str]:
    if backend not in BACKENDS:
        raise unknown_kind("runtime backend", backend, BACKENDS)
    if method not in METHODS:
        raise unknown_kind("calibration method", method, METHODS)
    parts = (*names, FUSION)
    for part, wanted in precision.items():
        if part not in parts:
            raise unknown_kind("part", part, parts)
        if wanted not in PRECISIONS:
            raise unknown_kind("precision", wanted, PRECISIONS)
        if (backend, wanted) in CANNOT:
            raise FuselineError("bad_precision", f"{part}: no {wanted} with {backend}", CANNOT[backend, wanted])
    return {part: precision.get(part, "float32") for part in parts}


def _write(order: _Order, precision: Mapping[str, str], target: Path) -> tuple[tuple[str, ...], list[str]]:
    graph = Graph.read(order.source, order.names)
    prepare(graph)
    notes = round_graph(graph, precision, order.keep_float, order.calibration, order.method, order.voice)
    if order.backend == "onnxruntime":
        return graph.write(target), notes
    with tempfile.TemporaryDirectory() as folder:
        graph.write(Path(folder))
        return openvino_ir.convert(Path(folder), target, half="bfloat16" in precision.values()), notes


def _runtime(backend: str, precision: Mapping[str, str]) -> dict[str, Any]:
    used = [p for p in PRECISIONS if p in precision.values() and p != "float32"]
    return {"backend": backend, "precision": "+".join(used) or "float32", "options": {}}


def _guard(order: _Order, precision: Mapping[str, str], target: Path, runtime: Mapping[str, Any]) -> list[str]:
    if not any(len(batch["present"]) for batch in order.calibration):
        return ["not compared with the float graph: there were no rows"]
    before = graph_check.outputs_of(order.source, {"backend": "onnxruntime"}, order.calibration)
    after = graph_check.outputs_of(target, runtime, order.calibration)
    why = graph_check.broken(before, after)
    if why is not None:
        raise FuselineError(
            "quantise_failed",
            f"{_culprit(order, precision, before)}: {why}",
            "leave this part in float32, or calibrate it by another method",
        )
    moved = graph_check.change(before, after)
    return [f"{name} moved by {value:.2g} of its spread on the calibration rows" for name, value in moved.items()]


def _culprit(order: _Order, precision: Mapping[str, str], before: Mapping[str, np.ndarray]) -> str:
    """The part that fails alone, with its format; all of them where none does."""
    rounded = {part: wanted for part, wanted in precision.items() if wanted != "float32"}
    for part, wanted in rounded.items():
        with tempfile.TemporaryDirectory() as folder:
            alone = {part: wanted}
            _write(order, alone, Path(folder))
            after = graph_check.outputs_of(Path(folder), _runtime(order.backend, alone), order.calibration)
            if graph_check.broken(before, after) is not None:
                return f"{part} in {wanted}"
    return "the parts together (" + ", ".join(f"{part} in {wanted}" for part, wanted in rounded.items()) + ")"
