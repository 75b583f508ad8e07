"""Gives each part of a prepared float graph its number format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from fuseline.lab.compress import onnx_dynamic, onnx_weights
from fuseline.lab.compress.calibrate import Method, watch
from fuseline.lab.compress.fusions import WEIGHTED
from fuseline.lab.compress.onnx_bias import channel_axis
from fuseline.lab.compress.onnx_graph import Graph
from fuseline.lab.compress.onnx_run import Arrays
from fuseline.lab.compress.onnx_static import make_plan, make_static
from fuseline.progress import Voice

BITS: Final = {"weights-int8": 8, "weights-int4": 4}
ROUNDING: Final = ("int8", "int8-dynamic", *BITS)
"""formats in which a part's tables become int8"""
FEW: Final = 1024
"""a matrix with fewer weights stays in float"""
TABLE_BYTES: Final = 16 * 1024
"""a smaller table stays in float"""


@dataclass
class Sorted:
    """The nodes that change, by what becomes of them."""

    static: list[str] = field(default_factory=list)
    dynamic: list[str] = field(default_factory=list)
    products: dict[str, int] = field(default_factory=dict)
    """-> bits of their weights"""
    convolutions: list[str] = field(default_factory=list)
    """whose filters are stored in int8"""
    tables: list[str] = field(default_factory=list)


def round_graph(
    graph: Graph,
    precision: Mapping[str, str],
    keep_float: Sequence[str],
    calibration: Sequence[Arrays],
    method: Method,
    voice: Voice | None = None,
) -> list[str]:
    """Rewrite a prepared graph; gives what is to be said of it.

    Args:
        graph: float.
        precision: part -> format; a part without stays as it is.
        keep_float: paths of modules that stay in float.
        calibration: batches of graph inputs; may be empty where no part is in int8.
        method: how static ranges are set.
        voice: told how far calibration is.
    """
    chosen = sort(graph, precision, keep_float)
    plan = make_plan(graph, chosen.static, [part for part, p in precision.items() if p == "int8"])
    tensors: dict[str, int | None] = {**dict.fromkeys(plan.outlets), **plan.inputs}
    if any(len(batch["present"]) for batch in calibration):
        for name in (*chosen.dynamic, *chosen.products, *chosen.convolutions):
            tensors[graph.nodes[name].input[0]] = channel_axis(graph.nodes[name])
    watched = watch(graph, tensors, calibration, voice) if tensors else {}
    make_static(graph, plan, watched, method)
    # Whatever reads a tensor may read it rounded by now; what was seen of it is known by its first name.
    users = graph.users()
    for name in chosen.dynamic:
        node = graph.nodes[name]
        onnx_dynamic.round_product(graph, node, watched.get(_first(node)), users)
    for name, bits in chosen.products.items():
        node = graph.nodes[name]
        onnx_weights.round_product(graph, node, bits, watched.get(_first(node)), users)
    for name in chosen.convolutions:
        node = graph.nodes[name]
        onnx_weights.store_convolution(graph, node, watched.get(_first(node)))
    for name in chosen.tables:
        onnx_weights.round_table(graph, graph.nodes[name])
    return _notes(graph, precision, chosen)


def _first(node: onnx.NodeProto) -> str:
    return str(node.input[0]).removesuffix("/rounded")


def sort(graph: Graph, precision: Mapping[str, str], keep_float: Sequence[str]) -> Sorted:
    """Only trained weights are touched, never what the options say (mel filters, Fourier bases). With integer
    activations the head stays in float: it is small, and its rounding goes straight into the answer."""
    out = Sorted()
    for name, node in graph.nodes.items():
        wanted = precision.get(graph.part(node) or "", "float32")
        if wanted not in ROUNDING or _kept(name, keep_float):
            continue
        if node.op_type == "Gather":
            if is_table(graph, node):
                out.tables.append(name)
        elif node.op_type in WEIGHTED and _has_weight(graph, node):
            convolution = node.op_type == "Conv"
            if wanted == "int8" and not name.startswith("head."):
                out.static.append(name)
            elif wanted == "int8-dynamic" and not convolution and not name.startswith("head."):
                out.dynamic.append(name)
            elif wanted in BITS and convolution:
                out.convolutions.append(name)
            elif wanted in BITS:
                out.products[name] = BITS[wanted]
    return out


def _kept(name: str, keep_float: Sequence[str]) -> bool:
    scope = name.split("/", 1)[0]
    return any(scope == path or scope.startswith(path + ".") for path in keep_float)


def _has_weight(graph: Graph, node: onnx.NodeProto) -> bool:
    weight = graph.arrays.get(node.input[1])
    if weight is None or weight.dtype != np.float32 or not graph.learnt(node.input[1]):
        return False
    if node.op_type == "Conv":
        return len(node.input) < 3 or node.input[2] in graph.arrays
    return node.op_type == "MatMul" and weight.ndim == 2 and weight.size >= FEW


def is_table(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a Gather reads rows of a trained matrix (an embedding)."""
    table = graph.arrays.get(node.input[0])
    if table is None or table.ndim != 2 or table.dtype != np.float32 or table.nbytes < TABLE_BYTES:
        return False
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    return axis == 0 and graph.learnt(node.input[0])


def _notes(graph: Graph, precision: Mapping[str, str], chosen: Sorted) -> list[str]:
    """What a part did not get of what was asked."""
    changed = (*chosen.static, *chosen.dynamic, *chosen.products, *chosen.convolutions, *chosen.tables)
    touched = {graph.part(graph.nodes[name]) for name in changed}
    notes = [
        f"{part} has no weights that {wanted} is for, it stays in float"
        for part, wanted in precision.items()
        if wanted in ROUNDING and part not in touched
    ]
    if chosen.dynamic:
        notes.append("int8-dynamic: a row's answer depends a little on the other rows of its batch")
    return notes
