"""Writing ONNX nodes by hand, for what is put in front of a graph: tokenising and decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EXTENSIONS = "ai.onnx.contrib"
"""the domain of ONNX Runtime Extensions' operators on texts and sounds"""
MEDIA = "com.microsoft.extensions"
"""and of those on pictures"""
ML = "ai.onnx.ml"
OPSET = 20
"""StringSplit and If/Loop over strings as used here"""


class NotEmbeddedError(Exception):
    """Why an input's preparation stays outside of the graph: one clause, for the user."""


class Nodes:
    """A growing list of nodes and constants whose names all begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def _name(self, kind: str) -> str:
        return f"{self.prefix}/{kind}_{len(self.nodes) + len(self.constants)}"

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Add a node; its output's name, or a tuple of names where it has several. `name`: the node's own."""
        stem = name or self._name(kind)
        names = [stem] if outputs == 1 else [f"{stem}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=stem, domain=domain, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def ext(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node of ONNX Runtime Extensions."""
        return self.op(kind, *inputs, domain=EXTENSIONS, outputs=outputs, **attributes)

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        array = np.asarray(value, dtype=dtype)
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def text(self, *values: str) -> str:
        """A (n,) constant of strings."""
        name = self._name("text")
        self.constants.append(helper.make_tensor(name, TensorProto.STRING, [len(values)], [v.encode() for v in values]))
        return name

    def replace(self, text: str, pattern: str, by: str) -> str:
        """Every match of an RE2 pattern replaced; groups are written \\1."""
        return str(self.ext("StringRegexReplace", text, self.text(pattern), self.text(by)))

    def axis(self, tensor: str, axis: int) -> str:
        """The size of one axis, as (1,)."""
        return str(self.op("Shape", tensor, start=axis, end=axis + 1))

    def slice(self, tensor: str, start: str, end: str, axis: int) -> str:
        return str(self.op("Slice", tensor, start, end, self.const([axis])))

    def body(self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> Any:
        """These nodes as the subgraph of a Loop or an If."""
        return helper.make_graph(self.nodes, name, inputs, outputs, self.constants)


def quoted(text: str) -> str:
    """A text as an RE2 pattern that matches it."""
    return "".join(f"\\x{{{ord(c):x}}}" for c in text)
