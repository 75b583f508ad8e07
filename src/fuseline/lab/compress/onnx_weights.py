"""Weights of few bits, activations as they are. Dimensions: V rows of a table, K N input and output channels, G blocks
of K, S their size."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from fuseline.lab.compress.calibrate import Watched
from fuseline.lab.compress.onnx_bias import Users, convolution_shift, correct_product
from fuseline.lab.compress.onnx_graph import CONTRIB, Graph

BLOCK: Final = {8: 128, 4: 32}
"""weights that share a scale. Mean error of a product of random matrices: 0.6 and 0.7 % for 8 bits in blocks of 32 and
128, 6.9 and 8.4 % for 4 bits; blocks of 128 are a tenth to a fifth faster"""
SHRINKS: Final = (1.0, 0.95, 0.9, 0.85, 0.8)
"""with 4 bits, the largest weight of a block may be cut off a little where that serves all others"""
FLOAT: Final = onnx.TensorProto.FLOAT


def round_product(graph: Graph, node: onnx.NodeProto, bits: int, seen: Watched | None, users: Users) -> None:
    """A MatMul with a constant matrix as MatMulNBits: weights in blocks, activations rounded to int8 in the same blocks
    of a row while it runs (accuracy_level 4), so that no row sees another. OpenVINO reads it, too."""
    weight_KN = graph.arrays[node.input[1]].astype(np.float32)
    K, N = weight_KN.shape
    size = BLOCK[bits]
    values_NGS, scale_NG1 = blocks(weight_KN, bits, size)
    rounded_KN = (values_NGS * scale_NG1).reshape(N, -1)[:, :K].T
    correct_product(graph, node, rounded_KN.astype(np.float64) - weight_KN, seen, users)
    stored = (values_NGS + 2 ** (bits - 1)).astype(np.uint8)
    if bits == 4:
        stored = stored[..., ::2] | (stored[..., 1::2] << 4)
    name = f"{node.name}/weight"
    inputs = [
        node.input[0],
        graph.constant(f"{name}/values", stored),
        graph.constant(f"{name}/scale", scale_NG1[..., 0]),
    ]
    graph.remove(node)
    more = {"K": K, "N": N, "bits": bits, "block_size": size, "accuracy_level": 4}
    graph.add("MatMulNBits", inputs, node.output[0], node.name, domain=CONTRIB, **more)


def blocks(weight_KN: np.ndarray, bits: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers (N, G, S) and float32 scales (N, G, 1) whose product is the weight, the last block filled with 0.

    The largest magnitude of a block becomes the lowest value, the only one that has no counterpart: the scale takes its
    sign. Among SHRINKS of it, the one of least squared error.
    """
    K, N = weight_KN.shape
    count, lowest = -(-K // size), -(2 ** (bits - 1))
    w_NGS = np.pad(weight_KN.T, ((0, 0), (0, count * size - K))).reshape(N, count, size)
    place = np.abs(w_NGS).argmax(axis=2)[..., None]
    peak_NG1 = np.take_along_axis(w_NGS, place, axis=2) / lowest
    peak_NG1 = np.where(peak_NG1 == 0, np.float32(1.0), peak_NG1)
    values, scales, least = _rounded(w_NGS, peak_NG1, lowest)
    for shrink in SHRINKS[1:] if bits < 8 else ():
        other, scale, error = _rounded(w_NGS, peak_NG1 * np.float32(shrink), lowest)
        better = error < least
        values, scales = np.where(better, other, values), np.where(better, scale, scales)
        least = np.minimum(error, least)
    return values, scales


def _rounded(w_NGS: np.ndarray, scale_NG1: np.ndarray, lowest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scale = scale_NG1.astype(np.float32)
    values = np.rint(w_NGS / scale).clip(lowest, -lowest - 1)
    return values, scale, np.square(values * scale - w_NGS).sum(axis=2, keepdims=True)


def round_table(graph: Graph, node: onnx.NodeProto) -> None:
    """A Gather of a table's rows (an embedding) with an int8 table, one scale a row: the rows that are read become
    float, the table never does."""
    name, ids = node.input[0], node.input[1]
    if f"{name}/values" not in graph.arrays:  # several may read the same table
        values, scale_V1 = by_channel(graph.arrays[name], 0)
        graph.constant(f"{name}/values", values)
        graph.constant(f"{name}/scale", scale_V1)
    graph.remove(node)
    graph.add("Gather", [f"{name}/values", ids], f"{node.name}/int8", node.name)
    graph.add("Cast", [f"{node.name}/int8"], f"{node.name}/wide", f"{node.name}/cast", to=FLOAT)
    graph.add("Gather", [f"{name}/scale", ids], f"{node.name}/scales", f"{node.name}/scale")
    graph.add("Mul", [f"{node.name}/wide", f"{node.name}/scales"], node.output[0], f"{node.name}/multiply")


def store_convolution(graph: Graph, node: onnx.NodeProto, seen: Watched | None) -> None:
    """A convolution's filters kept in int8 with a scale an output channel and made float again by Cast and Mul, which
    onnxruntime folds when it loads: a smaller file at the speed of float. It has no kernel for rounded filters with
    float activations, nor has OpenVINO."""
    name = f"{node.name}/weight"
    weight = graph.arrays[node.input[1]]
    values, scale = by_channel(weight, 0)
    shift_O = convolution_shift(node, values * scale.astype(np.float64) - weight, seen)
    bias_O = graph.arrays[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    graph.constant(f"{name}/values", values)
    graph.constant(f"{name}/scale", scale)
    graph.add("Cast", [f"{name}/values"], f"{name}/wide", f"{name}/cast", to=FLOAT)
    graph.add("Mul", [f"{name}/wide", f"{name}/scale"], f"{name}/float", f"{name}/multiply")
    bias = graph.constant(f"{name}/bias", (bias_O - shift_O).astype(np.float32))
    node.input[:] = [node.input[0], f"{name}/float", bias]


def by_channel(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 values, and float32 scales of the same number of axes (1 everywhere but at `axis`)."""
    rest = tuple(i for i in range(array.ndim) if i != axis)
    scale = np.maximum(np.abs(array).max(axis=rest, keepdims=True) / 127, 1e-30).astype(np.float32)
    return np.rint(array / scale).clip(-127, 127).astype(np.int8), scale
