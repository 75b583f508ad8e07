"""The few fields of an ONNX file that a runtime without the package `onnx` needs, read and written by hand.

Field numbers are those of onnx.proto; the encoding is protobuf's: a key (field number and type), then a varint or a
length and so many bytes. https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6
"""TensorProto.DataType"""


@dataclass
class OnnxNode:
    name: str = ""
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, int | str] = field(default_factory=dict)
    """those that are an integer or a text"""


@dataclass
class OnnxGraph:
    nodes: list[OnnxNode] = field(default_factory=list)
    """in the file's order, a topological one"""
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """shapes of the initialisers"""


def read_onnx(model: bytes) -> OnnxGraph:
    """The main graph of an ONNX file."""
    out = OnnxGraph()
    for graph in (value for number, value in _fields(memoryview(model)) if number == 7):
        for number, value in _fields(graph):
            if number == 1:
                out.nodes.append(_node(value))
            elif number == 5:
                name, shape = _constant(value)
                out.constants[name] = shape
    return out


def _constant(data: memoryview) -> tuple[str, tuple[int, ...]]:
    name, shape = "", []
    for number, value in _fields(data):
        if number == 8:
            name = _text(value)
        elif number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
    return name, tuple(shape)


def _packed(data: memoryview) -> list[int]:
    out, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        out.append(value)
    return out


def _node(data: memoryview) -> OnnxNode:
    out = OnnxNode()
    for number, value in _fields(data):
        match number:
            case 1:
                out.inputs.append(_text(value))
            case 2:
                out.outputs.append(_text(value))
            case 3:
                out.name = _text(value)
            case 4:
                out.op = _text(value)
            case 5:
                found = dict(_fields(value))
                if 3 in found or 4 in found:
                    out.attributes[_text(found[1])] = _text(found[4]) if 4 in found else found[3]
    return out


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, its varint as an int or its bytes as a view); of fixed numbers nothing is read here."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 2:
                size, at = _varint(data, at)
                yield key >> 3, data[at : at + size]
                at += size
            case 1:
                at += 8
            case 5:
                at += 4
            case other:
                raise ValueError(f"no protobuf: type {other}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def product_model(op: str, left: int, right: int, out: int, size: int, weights: bytes) -> bytes:
    """An ONNX file of one node: y = op(x, w), all `size` x `size`; w is the constant `weights`.

    `left`, `right`, `out`: data types of x, w and y.
    """
    node = _bytes(1, b"x") + _bytes(1, b"w") + _bytes(2, b"y") + _bytes(4, op.encode())
    constant = _number(1, size) + _number(1, size) + _number(2, right) + _bytes(8, b"w") + _bytes(9, weights)
    graph = _bytes(1, node) + _bytes(2, b"product") + _bytes(5, constant)
    graph += _bytes(11, _value(b"x", left, (size, size))) + _bytes(12, _value(b"y", out, (size, size)))
    return _number(1, 9) + _bytes(8, _bytes(1, b"") + _number(2, 18)) + _bytes(7, graph)


def _value(name: bytes, kind: int, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))


def _number(number: int, value: int) -> bytes:
    return _encoded(number << 3) + _encoded(value)


def _bytes(number: int, data: bytes) -> bytes:
    return _encoded(number << 3 | 2) + _encoded(len(data)) + data


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
