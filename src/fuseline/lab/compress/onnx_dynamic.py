"""Dynamic int8 for onnxruntime: the range of activations is found while it runs, so no rows are needed to set it.

The range is that of the whole batch, so a row's answer depends a little on its neighbours (MiniLM with
EfficientNet-Lite0: logits up to 0.0036 apart between a row alone and among eight; static int8: 1e-7). It is no faster
than static int8, whose change of the answers is the same: choose it where there are no rows to calibrate with.
"""

from __future__ import annotations

import numpy as np
import onnx

from fuseline.lab.compress.calibrate import Watched
from fuseline.lab.compress.onnx_bias import Users, bias_behind, correct_product
from fuseline.lab.compress.onnx_graph import CONTRIB, Graph


def round_product(graph: Graph, node: onnx.NodeProto, seen: Watched | None, users: Users) -> None:
    """A MatMul with a constant matrix, and the Add of a bias behind it, as one DynamicQuantizeMatMul: int8 weights with
    a scale an output channel, uint8 activations with one scale a batch."""
    weight = graph.arrays[node.input[1]]
    scale_N = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-30).astype(np.float32)
    rounded = np.rint(weight / scale_N).clip(-127, 127).astype(np.int8)
    correct_product(graph, node, rounded * scale_N.astype(np.float64) - weight, seen, users)
    name = f"{node.name}/weight"
    inputs = [node.input[0], graph.constant(f"{name}/values", rounded), graph.constant(f"{name}/scale", scale_N), ""]
    output = node.output[0]
    found = bias_behind(graph, node, users)
    graph.remove(node)
    if found is not None:
        add, place = found
        inputs.append(add.input[place])
        output = add.output[0]
        graph.remove(add)
    graph.add("DynamicQuantizeMatMul", inputs, output, node.name, domain=CONTRIB)
