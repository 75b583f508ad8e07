"""Static int8: activations in uint8 with fixed ranges, weights in int8 with a scale an output channel.

Written as QuantizeLinear and DequantizeLinear around float nodes (QDQ). onnxruntime turns them into integer kernels
when it loads (Conv to QLinearConv, Add to QLinearAdd, MatMul to MatMulIntegerToFloat), OpenVINO when it compiles.
Dimensions: K O input and output channels.

Not `onnxruntime.quantization.quantize_static`, by measurement on MiniLM with EfficientNet-Lite0 (mean change of the
probability): 0.060 for the convolutions alone, since it corrects no bias; it rounds between a convolution and its Clip
where that costs a pass through float; it keeps all activations of all rows in memory. Not SmoothQuant (Xiao et al.
2023): with alpha 0, 0.25, 0.5, 0.7 the change of static int8 MiniLM was 0.0034, 0.0041, 0.0057, 0.0031, which is noise
around nothing gained. Sums of attention, softmax and LayerNorm stay in float: they are 3 % of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from fuseline.lab.compress.calibrate import Method, Watched
from fuseline.lab.compress.onnx_bias import Users, channel_axis, convolution_shift, correct_product
from fuseline.lab.compress.onnx_graph import Graph, replace_input

JOINING: Final = ("Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool")
"""nodes with an integer kernel of their own; between two convolutions they had better not go through float"""
ABSORBED: Final = ("Relu", "Clip")
"""what a range that begins at 0 does by itself"""
LARGEST_BIAS: Final = 2.0**30


@dataclass
class Plan:
    """Which tensors go through uint8."""

    nodes: tuple[str, ...]
    """Conv and MatMul with constant weights"""
    inputs: dict[str, int] = field(default_factory=dict)
    """tensor that these read -> axis of its channels"""
    outlets: dict[str, None] = field(default_factory=dict)
    """tensors that all users read rounded: what integer kernels give"""


def make_plan(graph: Graph, nodes: Collection[str], parts: Collection[str]) -> Plan:
    """`parts`: those whose sums and poolings between convolutions are rounded, too."""
    users = graph.users()
    plan = Plan(tuple(nodes))
    for node in (graph.nodes[name] for name in nodes):
        plan.inputs[node.input[0]] = channel_axis(node)
        if node.op_type == "Conv":
            plan.outlets[_outlet(node.output[0], users)] = None
    for node in graph.sorted():
        if node.op_type in JOINING and graph.part(node) in parts and all(n in plan.outlets for n in node.input):
            plan.outlets[_outlet(node.output[0], users)] = None
    return plan


def _outlet(tensor: str, users: Users) -> str:
    """The tensor behind the activation that the integer kernel takes in, or the tensor itself."""
    readers = users.get(tensor, [])
    if len(readers) == 1 and readers[0].op_type in ABSORBED and readers[0].input[0] == tensor:
        return str(readers[0].output[0])
    return tensor


def make_static(graph: Graph, plan: Plan, watched: Mapping[str, Watched], method: Method) -> None:
    """Rewrite the plan's nodes. `watched`: of all its tensors, in float."""
    users, makers, chosen = graph.users(), graph.makers(), set(plan.nodes)
    scales: dict[str, float] = {}
    for tensor in {**plan.outlets, **plan.inputs}:
        owner = makers[tensor] if tensor in makers else users[tensor][0]
        rounded, scales[tensor] = _round_trip(graph, tensor, watched[tensor].range(method), owner.name)
        for user in users[tensor]:
            if tensor in plan.outlets or user.name in chosen:
                replace_input(user, tensor, rounded)
    for node in (graph.nodes[name] for name in plan.nodes):
        source = node.input[0].removesuffix(ROUNDED)
        if node.op_type == "Conv":
            _round_convolution(graph, node, scales[source], watched[source])
        else:
            _round_product(graph, node, watched[source], users)


ROUNDED: Final = "/rounded"


def _round_trip(graph: Graph, tensor: str, ends: tuple[float, float], owner: str) -> tuple[str, float]:
    """The tensor through uint8, and the scale. New nodes are named after the tensor's maker: same module, same part."""
    low, high = ends
    scale = np.float32((high - low) / 255) or np.float32(1.0)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    names = [graph.constant(f"{tensor}/scale", np.array(scale)), graph.constant(f"{tensor}/zero", np.array(zero))]
    owner = graph.fresh(f"{owner}/quantise")
    graph.add("QuantizeLinear", [tensor, *names], f"{tensor}/uint8", owner)
    graph.add("DequantizeLinear", [f"{tensor}/uint8", *names], tensor + ROUNDED, f"{owner}/back")
    return tensor + ROUNDED, float(scale)


def _round_convolution(graph: Graph, node: onnx.NodeProto, scale: float, seen: Watched) -> None:
    weight = graph.arrays[node.input[1]].astype(np.float64)
    flat_OK = weight.reshape(len(weight), -1)
    bias_O = np.zeros(len(weight)) if len(node.input) < 3 else graph.arrays[node.input[2]].astype(np.float64)
    # A channel of weights near zero with a large bias: the bias must fit into int32 at the product of both scales.
    scale_O = np.maximum(np.abs(flat_OK).max(axis=1) / 127, np.abs(bias_O) / (scale * LARGEST_BIAS))
    scale_O = np.maximum(scale_O, 1e-30).astype(np.float32)
    rounded_OK = np.rint(flat_OK / scale_O[:, None]).clip(-127, 127).astype(np.int8)
    error = (rounded_OK * scale_O[:, None] - flat_OK).reshape(weight.shape)
    bias_scale_O = scale_O * np.float32(scale)
    shifted_O = np.rint((bias_O - convolution_shift(node, error, seen)) / bias_scale_O)
    bias = shifted_O.clip(-(2**31) + 1, 2**31 - 1).astype(np.int32)
    inputs = [
        _dequantised(graph, f"{node.name}/weight", rounded_OK.reshape(weight.shape), scale_O, 0),
        _dequantised(graph, f"{node.name}/bias", bias, bias_scale_O, 0),
    ]
    node.input[:] = [node.input[0], *inputs]


def _round_product(graph: Graph, node: onnx.NodeProto, seen: Watched, users: Users) -> None:
    weight_KO = graph.arrays[node.input[1]].astype(np.float64)
    scale_O = np.maximum(np.abs(weight_KO).max(axis=0) / 127, 1e-30).astype(np.float32)
    rounded_KO = np.rint(weight_KO / scale_O).clip(-127, 127).astype(np.int8)
    correct_product(graph, node, rounded_KO * scale_O - weight_KO, seen, users)
    node.input[1] = _dequantised(graph, f"{node.name}/weight", rounded_KO, scale_O, 1)


def _dequantised(graph: Graph, name: str, values: np.ndarray, scale_O: np.ndarray, axis: int) -> str:
    names = [
        graph.constant(f"{name}/values", values),
        graph.constant(f"{name}/scale", scale_O),
    ]
    if values.dtype == np.int8:
        # All 0, which is what its absence means. Where onnxruntime makes unsigned weights of them (processors without
        # VNNI) it takes one that is not there for a single number, and refuses the graph.
        names.append(graph.constant(f"{name}/zero", np.zeros(len(scale_O), np.int8)))
    graph.add("DequantizeLinear", names, f"{name}/float", name, axis=axis)
    return f"{name}/float"
