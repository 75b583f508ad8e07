"""How many operations a node of a graph takes, from its shapes: products of matrices and convolutions.

A multiplication and an addition are two. What is no product counts as none: beside them it is little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = Sequence[int]

_PRODUCTS = {"MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
_PRODUCTS |= {"QLinearMatMul", "Gemm", "FusedGemm", "QGemm"}
_CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger", "Convolution"}
_OPAQUE = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "LSTMSequence", "GRUSequence", "RNNSequence"}
_OPAQUE |= {"ConvTranspose", "ConvolutionBackpropData", "DeformConv", "GroupQueryAttention", "SparseAttention"}
"""what multiplies matrices in a way that is not told apart here"""
INTEGER = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"}
INTEGER |= {"QLinearConv", "ConvInteger", "QAttention"}
"""onnxruntime's products of 8-bit integers"""


def flops(op: str, inputs: Sequence[Shape], outputs: Sequence[Shape], equation: str = "") -> float | None:
    """Of one run; None where it cannot be told.

    Args:
        op: the node's type, of ONNX, of onnxruntime's own or of OpenVINO.
        inputs: shapes, in order; those of scales and zero points may stand between them.
        outputs: shapes.
        equation: of an Einsum.
    """
    matrices = [s for s in inputs if len(s) >= 2]
    if op in _OPAQUE:
        return None
    if op in _PRODUCTS:
        return product(matrices[0], matrices[1], outputs[0]) if len(matrices) >= 2 and outputs else None
    if op in _CONVOLUTIONS:  # weights are (out channels, in channels of a group, window)
        return 2.0 * math.prod(outputs[0]) * math.prod(matrices[1][1:]) if len(matrices) >= 2 and outputs else None
    match op:
        case "GroupConvolution":  # (groups, out channels, in channels of a group, window)
            return 2.0 * math.prod(outputs[0]) * math.prod(matrices[1][2:])
        case "MatMulNBits":  # weights are packed: (out, blocks, bytes)
            return 2.0 * math.prod(outputs[0]) * inputs[0][-1]
        case "Einsum":
            return einsum(equation, inputs)
        case "Attention" | "QAttention" if len(matrices) >= 2 and len(matrices[1]) == 2:
            # onnxruntime's own: the products that make queries, keys and values are inside
            batch, tokens, _ = matrices[0]
            return 2.0 * batch * tokens * math.prod(matrices[1]) + attention(
                (batch, tokens, matrices[1][1] // 3), (batch, tokens, matrices[1][1] // 3), outputs[0]
            )
        case "Attention" | "MultiHeadAttention":
            if len(inputs) >= 3 and len({len(s) for s in inputs[:3]}) == 1 and len(inputs[0]) in (3, 4):
                return attention(inputs[0], inputs[1], inputs[2])
            return None
        case "QAttention":
            return None
    return 0.0


def product(a: Shape, b: Shape, out: Shape) -> float | None:
    """Of matrices either of which may stand transposed: each element of `out` is a sum over the other side of `a`."""
    if a[-2] == out[-2]:
        shared = a[-1]
    elif a[-1] == out[-2]:
        shared = a[-2]
    elif a[-1] in b[-2:]:  # rows and heads of `a` stand in another order
        shared = a[-1]
    else:
        return None
    return 2.0 * math.prod(out) * shared


def attention(queries: Shape, keys: Shape, values: Shape) -> float:
    """softmax(QKᵀ)V of (B, tokens, width) or (B, heads, tokens, width of a head)."""
    return 2.0 * math.prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1])


def einsum(equation: str, inputs: Sequence[Shape]) -> float | None:
    """Over two arrays, all letters named; None for others."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) != 2 or [len(t) for t in terms] != [len(s) for s in inputs]:
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        sizes |= dict(zip(term, shape, strict=True))
    return 2.0 * math.prod(sizes.values())
