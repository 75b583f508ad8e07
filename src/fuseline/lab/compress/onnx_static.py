"""Static int8 for onnxruntime: activations in uint8 with fixed ranges, weights in int8 with a scale an output channel.

Written as QuantizeLinear and DequantizeLinear around float nodes (QDQ), which onnxruntime turns into integer kernels
when it loads: Conv to QLinearConv, Add to QLinearAdd, MatMul to MatMulIntegerToFloat. Dimensions: O I output and input
channels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from fuseline.lab.compress.calibrate import Method, Watched, watch
from fuseline.lab.compress.onnx_graph import Graph, attributes, replace_input
from fuseline.lab.compress.onnx_run import Arrays
from fuseline.progress import Voice

JOINING: Final = ("Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool")
"""nodes with an integer kernel of their own; between two convolutions they had better not go through float"""
ABSORBED: Final = ("Relu", "Clip")
"""what a range that begins at 0 does by itself"""
LARGEST_BIAS: Final = 2.0**30


@dataclass
class Plan:
    """Which tensors go through uint8."""

    products: list[onnx.NodeProto]
    """nodes with a weight"""
    inputs: dict[str, int] = field(default_factory=dict)
    """tensor that they read -> axis of its channels"""
    outlets: dict[str, None] = field(default_factory=dict)
    """tensors that all users read rounded: what integer kernels give"""


def make_static(
    graph: Graph,
    nodes: Collection[str],
    parts: Collection[str],
    batches: Sequence[Arrays],
    method: Method = "percentile",
    voice: Voice | None = None,
) -> None:
    """Rewrite nodes (Conv, or MatMul with a constant matrix) to static int8.

    Args:
        graph: prepared (:func:`fuseline.lab.compress.fusions.prepare`); in float as far as `nodes` depend on it.
        nodes: names.
        parts: those whose sums and poolings may be rounded, too.
        batches: rows that set the ranges.
        method: how ranges are set.
        voice: told how far calibration is.
    """
    plan = make_plan(graph, nodes, parts)
    axes: dict[str, int | None] = {**dict.fromkeys(plan.outlets), **plan.inputs}
    watched = watch(graph, axes, batches, voice)
    users = graph.users()
    chosen = set(nodes)
    for tensor in axes:
        low, high = watched[tensor].range(method)
        rounded = _round_trip(graph, tensor, low, high, _owner(graph, tensor, users))
        for user in users[tensor]:
            if tensor in plan.outlets or user.name in chosen:
                replace_input(user, tensor, rounded)
    for node in plan.products:
        scale = float(graph.arrays[_scale_of(graph, node.input[0])])
        source = node.input[0].removesuffix("/rounded")
        if node.op_type == "Conv":
            _round_convolution(graph, node, scale, watched[source])
        else:
            _round_product(graph, node, watched[source], users)


def make_plan(graph: Graph, nodes: Collection[str], parts: Collection[str]) -> Plan:
    users = graph.users()
    plan = Plan([graph.nodes[name] for name in nodes])
    for node in plan.products:
        plan.inputs[node.input[0]] = 1 if node.op_type == "Conv" else -1
        if node.op_type == "Conv":
            plan.outlets[_outlet(node.output[0], users)] = None
    for node in graph.sorted():
        if (
            node.op_type in JOINING
            and graph.part(node) in parts
            and len(node.output) == 1
            and all(name in plan.outlets for name in node.input)
        ):
            plan.outlets[_outlet(node.output[0], users)] = None
    return plan


def _outlet(tensor: str, users: dict[str, list[onnx.NodeProto]]) -> str:
    """The tensor behind the activation that the integer kernel takes in, or the tensor itself."""
    readers = users.get(tensor, [])
    if len(readers) == 1 and readers[0].op_type in ABSORBED:
        return str(readers[0].output[0])
    return tensor


def _owner(graph: Graph, tensor: str, users: dict[str, list[onnx.NodeProto]]) -> str:
    """The name that new nodes of a tensor begin with: its maker's, so that they count to the same module."""
    maker = graph.makers().get(tensor)
    return maker.name if maker is not None else users[tensor][0].name


def _round_trip(graph: Graph, tensor: str, low: float, high: float, owner: str) -> str:
    scale = np.float32((high - low) / 255) or np.float32(1.0)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    names = [graph.constant(f"{tensor}/scale", np.array(scale)), graph.constant(f"{tensor}/zero", np.array(zero))]
    graph.add("QuantizeLinear", [tensor, *names], f"{tensor}/uint8", f"{owner}/quantise")
    graph.add("DequantizeLinear", [f"{tensor}/uint8", *names], f"{tensor}/rounded", f"{owner}/dequantise")
    return f"{tensor}/rounded"


def _scale_of(graph: Graph, rounded: str) -> str:
    return rounded.removesuffix("/rounded") + "/scale"


def _round_convolution(graph: Graph, node: onnx.NodeProto, scale: float, seen: Watched) -> None:
    name = node.input[1]
    weight = graph.arrays[name].astype(np.float64)
    channels = weight.shape[0]
    bias_O = np.zeros(channels) if len(node.input) < 3 else graph.arrays[node.input[2]].astype(np.float64)
    flat = weight.reshape(channels, -1)
    # A channel of weights near zero with a large bias: the bias must fit into int32 at the product of both scales.
    scale_O = np.maximum(np.abs(flat).max(axis=1) / 127, np.abs(bias_O) / (scale * LARGEST_BIAS))
    scale_O = np.maximum(scale_O, 1e-30).astype(np.float32)
    rounded = np.rint(flat / scale_O[:, None]).clip(-127, 127).astype(np.int8).reshape(weight.shape)
    error = rounded * scale_O.reshape(-1, *[1] * (weight.ndim - 1)) - weight
    groups = int(attributes(node).get("group", 1))
    mean_GI = seen.mean_C.reshape(groups, -1)
    error_GOI = error.reshape(groups, channels // groups, mean_GI.shape[1], -1).sum(axis=-1)
    bias_O = bias_O - np.einsum("goi,gi->go", error_GOI, mean_GI).reshape(-1)
    bias_scale_O = (scale_O * np.float32(scale)).astype(np.float32)
    bias = np.rint(bias_O / bias_scale_O).clip(-(2**31) + 1, 2**31 - 1).astype(np.int32)
    inputs = [
        _dequantised(graph, f"{node.name}/weight", rounded, scale_O, 0),
        _dequantised(graph, f"{node.name}/bias", bias, bias_scale_O, 0),
    ]
    node.input[:] = [node.input[0], *inputs]


def _round_product(graph: Graph, node: onnx.NodeProto, seen: Watched, users: dict[str, list[onnx.NodeProto]]) -> None:
    weight = graph.arrays[node.input[1]].astype(np.float64)
    scale_O = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-30).astype(np.float32)
    rounded = np.rint(weight / scale_O).clip(-127, 127).astype(np.int8)
    shift_O = seen.mean_C @ (rounded * scale_O - weight)
    node.input[1] = _dequantised(graph, f"{node.name}/weight", rounded, scale_O, 1)
    readers = users[node.output[0]]
    if len(readers) == 1 and readers[0].op_type == "Add":
        add = readers[0]
        for i, name in enumerate(add.input):
            bias = graph.arrays.get(name)
            if bias is not None and bias.ndim == 1 and bias.shape == shift_O.shape:
                add.input[i] = graph.constant(f"{add.name}/bias", (bias - shift_O).astype(np.float32))


def _dequantised(graph: Graph, name: str, values: np.ndarray, scale_O: np.ndarray, axis: int) -> str:
    names = [
        graph.constant(f"{name}/values", values),
        graph.constant(f"{name}/scale", scale_O),
        graph.constant(f"{name}/zero", np.zeros(scale_O.shape, values.dtype)),
    ]
    graph.add("DequantizeLinear", names, f"{name}/float", f"{name}", axis=axis)
    return f"{name}/float"
