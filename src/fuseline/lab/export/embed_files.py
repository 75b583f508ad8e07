"""Files of a batch inside the graph. Dimensions: B batch, N bytes of all files, n bytes of one.

The files come one after the other in one tensor of bytes, with the size of each beside it, so that a batch may hold
files of any sizes; a loop decodes one at a time. A size of 0 is an absent file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from fuseline.lab.export.nodes import Nodes


class Stacked(NamedTuple):
    """Names of the graph's values."""

    values: tuple[str, ...]
    """one a declared output, each with a first axis of B"""
    given_B: str
    """bool"""


def each_file(
    nodes: Nodes,
    bytes_N: str,
    sizes_B: str,
    decode: Callable[[Nodes, str], Sequence[str]],
    absent: Sequence[np.ndarray],
) -> Stacked:
    """Decode every file to values of fixed shapes, and stack them.

    Args:
        nodes: to add to.
        bytes_N: the value of uint8.
        sizes_B: the value of int64.
        decode: adds the nodes that turn one file (n,) into its values.
        absent: the values of an absent file, which also tell every value's type and shape.
    """
    each = Nodes(f"{nodes.prefix}/each")
    first = each.const([0])
    size = each.op("Unsqueeze", each.op("Gather", sizes_B, "step"), first)
    end = each.op("Unsqueeze", each.op("Gather", f"{nodes.prefix}/ends", "step"), first)
    file_n = each.slice(bytes_N, each.op("Sub", end, size), end, 0)
    there, gone = Nodes(f"{nodes.prefix}/there"), Nodes(f"{nodes.prefix}/absent")
    decoded = decode(there, file_n)
    blank = [gone.op("Identity", gone.const(value, value.dtype)) for value in absent]
    names = each.op(
        "If",
        each.op("Squeeze", each.op("Greater", size, first)),
        outputs=len(absent),
        then_branch=there.body("there", [], _infos(decoded, absent)),
        else_branch=gone.body("absent", [], _infos(blank, absent)),
    )
    values = [names] if len(absent) == 1 else list(names)
    go_on = each.op("Identity", "go")
    counters = [_info("step", TensorProto.INT64, []), _info("go", TensorProto.BOOL, [])]
    body = each.body("each", counters, [_info(go_on, TensorProto.BOOL, []), *_infos(values, absent)])
    nodes.nodes.append(helper.make_node("CumSum", [sizes_B, nodes.const(0)], [f"{nodes.prefix}/ends"]))
    count = nodes.op("Squeeze", nodes.axis(sizes_B, 0))
    out = nodes.op("Loop", count, nodes.const(True, bool), outputs=len(absent), body=body)
    given_B = nodes.op("Greater", sizes_B, nodes.const([0]))
    return Stacked((out,) if len(absent) == 1 else tuple(out), given_B)


def refused_unless(nodes: Nodes, good: str, file_n: str, why: str) -> str:
    """The file, or an error of the runtime that names the node and so says why: decoders of the extensions end the
    whole process, or never return, on some files that are not what they take them for.
    """
    size = nodes.op("Shape", file_n)
    shape = nodes.op("Where", good, size, nodes.op("Add", size, nodes.const([1])))
    return str(nodes.op("Reshape", file_n, shape, name=f"{nodes.prefix}/refused: {why}"))


def starts_with(nodes: Nodes, file_n: str, magic: bytes, at: int = 0) -> str:
    """(1,) bool"""
    end = at + len(magic)
    padded = nodes.op("Concat", file_n, nodes.const([0] * end, np.uint8), axis=0)  # a file may be shorter than that
    return _same(nodes, nodes.slice(padded, nodes.const([at]), nodes.const([end]), 0), magic)


def ends_with(nodes: Nodes, file_n: str, magic: bytes) -> str:
    """(1,) bool"""
    padded = nodes.op("Concat", nodes.const([0] * len(magic), np.uint8), file_n, axis=0)
    return _same(nodes, nodes.slice(padded, nodes.const([-len(magic)]), nodes.const([2**31]), 0), magic)


def _same(nodes: Nodes, part: str, magic: bytes) -> str:
    equal = nodes.op("Equal", nodes.op("Cast", part, to=TensorProto.INT32), nodes.const(list(magic), np.int32))
    least = nodes.op("ReduceMin", nodes.op("Cast", equal, to=TensorProto.INT32), nodes.const([0]), keepdims=1)
    return str(nodes.op("Cast", least, to=TensorProto.BOOL))


def _info(name: str, dtype: int, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def _infos(names: Sequence[str], like: Sequence[np.ndarray]) -> list[onnx.ValueInfoProto]:
    return [
        _info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, like, strict=True)
    ]
