"""Makes a float graph ready for other number formats: weights that are computed from constants become constants.

The exporter stores the weight of a linear layer as the trained one and a Transpose, and standardised filters as the
trained ones and their standardisation. onnxruntime folds both when it loads; what rounds weights must see them folded.

No other fusion is done here, by measurement. onnxruntime joins, whenever it loads a graph, bias and Gelu (BiasGelu),
residual sum and LayerNorm (SkipLayerNormalization), scale and product (FusedMatMul), convolution and Relu (FusedConv);
its file would be no faster for having that done before. `onnxruntime.transformers.optimizer` finds no attention in what
torch's exporter writes (1.32: BiasGelu 9 and LayerNormalization 23, which we have already, on MiniLM with a fusion of
two layers; Attention 0, MultiHeadAttention 0, SkipLayerNormalization 0). A rewriting of our own to MultiHeadAttention
took 12 nodes a layer (539 to 467 on MiniLM with EfficientNet-Lite0, 667 to 523 on BERT-base with ResNet-50), gave the
same answers to the bit, and won 1 to 2 % of processor time in float (BERT-base with ResNet-50, one row, one thread:
326 to 320 ms) and under 1 % in int8 (25.5 to 25.3 ms with MiniLM); at eight rows it lost as much. At 128 tokens
attention itself is 3 % of the arithmetic. OpenVINO makes ScaledDotProductAttention of it on its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from fuseline.lab.compress.onnx_graph import Graph, attributes, reads
from fuseline.lab.compress.onnx_run import runner

WEIGHTED: Final = ("Conv", "MatMul", "Gemm")
"""nodes whose second input is a weight"""


def prepare(graph: Graph) -> None:
    """Fold weights and tables into constants, and turn Gemm into MatMul and Add."""
    fold(graph)
    for node in [n for n in graph.nodes.values() if n.op_type == "Gemm"]:
        _split_gemm(graph, node)


def fold(graph: Graph) -> None:
    constants = _constants(graph)
    wanted: dict[str, bool] = {}
    for node in graph.nodes.values():
        if node.op_type in WEIGHTED:
            for name in node.input[1:]:
                if name in constants and name not in graph.arrays:
                    wanted[name] = constants[name]
        elif node.op_type == "Gather" and node.input[0] in constants and node.input[0] not in graph.arrays:
            wanted[node.input[0]] = constants[node.input[0]]
    if wanted:
        makers = graph.makers()
        for name, array in runner(graph, list(wanted), constant=True)({}).items():
            maker = makers[name]
            graph.constant(name, array, learnt=wanted[name])
            if len([o for o in maker.output if o]) == 1:
                graph.remove(maker)
            else:  # others of its outputs may be read
                maker.output[:] = [graph.fresh(f"{o}_unused") if o == name else o for o in maker.output]


def _constants(graph: Graph) -> dict[str, bool]:
    """Tensors that depend on constants alone -> whether on trained ones."""
    found = {name: graph.learnt(name) for name in graph.arrays}
    for node in graph.sorted():
        bodies = any(a.HasField("g") or a.graphs for a in node.attribute)
        if not bodies and "Random" not in node.op_type and all(name in found for name in reads(node)):
            found.update(dict.fromkeys(filter(None, node.output), any(found[name] for name in reads(node))))
    return found


def _split_gemm(graph: Graph, node: onnx.NodeProto) -> None:
    """y = x W + b as two nodes, where W is a constant and the factors are 1: what int8 kernels know."""
    told = attributes(node)
    weight = graph.arrays.get(node.input[1])
    plain = told.get("alpha", 1.0) == 1.0 and told.get("beta", 1.0) == 1.0 and not told.get("transA", 0)
    if weight is None or not plain:
        return
    name = node.input[1]
    if told.get("transB", 0):
        turned = f"{name}_turned"
        if turned not in graph.arrays:
            graph.constant(turned, weight.T, learnt=graph.learnt(name))
        name = turned
    x, y, bias = node.input[0], node.output[0], list(node.input[2:])
    graph.remove(node)
    product = f"{node.name}_product" if bias else y
    graph.add("MatMul", [x, name], product, node.name)
    if bias:
        graph.add("Add", [product, *bias], y, f"{node.name}_bias")


def is_float_matrix(graph: Graph, name: str) -> bool:
    array = graph.arrays.get(name)
    return array is not None and array.ndim == 2 and array.dtype == np.float32
