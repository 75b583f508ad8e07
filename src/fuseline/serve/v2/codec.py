"""Requests and answers of the protocol to bytes and back. No HTTP, no model. Dimensions: B batch.

A body is a JSON object, and after it the bytes of the tensors that say `binary_data_size`, in their order,
little-endian and row-major; a BYTES element is its length in 4 bytes and then itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fuseline.errors import closest
from fuseline.serve.body import parse_json
from fuseline.serve.settings import Settings
from fuseline.serve.v2.elements import (
    Elements,
    bad,
    datatype_of,
    flatten,
    from_binary,
    from_elements,
    shape_of,
    show,
    to_binary,
    to_json,
)

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Tensor:
    """`data` is flat, whatever the shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Elements
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """An output that the request names. `binary` None: as the request says for all."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True)
class InferRequest:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Wanted, ...] = ()
    """empty: every output"""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)


def decode_request(body: bytes, header_length: str | None, settings: Settings) -> InferRequest:
    """A body to typed tensors.

    Args:
        body: decompressed.
        header_length: the header Inference-Header-Content-Length; None where it was not sent.
        settings: the limits on nesting and rows.

    Raises FuselineError ``bad_request``, or ``too_large`` for a tensor of more elements than rows are allowed.
    """
    size = len(body) if header_length is None else _header_length(header_length, len(body))
    data = parse_json(body[:size], settings)
    if not isinstance(data, dict):
        raise bad("an inference request is a JSON object", 'send {"inputs": [...]}')
    given = data.get("inputs")
    if not isinstance(given, list) or not given:
        near = None if "inputs" in data else closest("inputs", [key[:80] for key in islice(data, 20)])
        raise bad("`inputs` is not a list of tensors", f"was {near!r} meant to be it?" if near else "")
    rest = memoryview(body)[size:]
    inputs = []
    for entry in given:
        tensor, used = _decode_input(entry, rest, header_length is not None, settings)
        inputs.append(tensor)
        rest = rest[used:]
    if len(rest):
        raise bad(f"{len(rest)} bytes are left after the last tensor", "is every binary_data_size right?")
    return InferRequest(tuple(inputs), _decode_outputs(data), _text(data.get("id"), "id"), parameters_of(data))


def _header_length(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise bad("Inference-Header-Content-Length is not a number of bytes")
    if int(text) > size:
        raise bad(f"Inference-Header-Content-Length says {int(text)} bytes, but the body has {size}")
    return int(text)


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 1024:
        raise bad(f"`{what}` is not a text of at most 1024 characters")
    return value


def parameters_of(data: Mapping[str, Any]) -> Parameters:
    given = data.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise bad("`parameters` is not an object")
    return given


def _decode_outputs(data: Mapping[str, Any]) -> tuple[Wanted, ...]:
    given = data.get("outputs")
    if given is None:
        return ()
    if not isinstance(given, list):
        raise bad("`outputs` is not a list")
    return tuple(_decode_output(entry) for entry in given)


def _decode_output(entry: Any) -> Wanted:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise bad('an entry of `outputs` is not an object with a name, as {"name": "value"}')
    parameters = parameters_of(entry)
    return wanted(entry["name"], parameters)


def wanted(name: str, parameters: Parameters) -> Wanted:
    """A requested output. Extensions that change what it holds are refused, since ignoring them would mislead."""
    refuse_shared_memory(name, parameters)
    if parameters.get("classification"):
        raise bad(f"output {show(name)}: the classification extension is not spoken", "the output `value` is the label")
    binary = parameters.get("binary_data")
    if not isinstance(binary, bool | None):
        raise bad(f"output {show(name)}: binary_data is not true or false")
    return Wanted(name, binary)


def refuse_shared_memory(name: str, parameters: Parameters) -> None:
    if any(key.startswith("shared_memory") for key in parameters):
        raise bad(f"tensor {show(name)}: shared memory is not read", "send the data in the body")


def _decode_input(entry: Any, rest: memoryview, has_binary: bool, settings: Settings) -> tuple[Tensor, int]:
    """One input, and how many bytes of `rest` it took."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise bad("an entry of `inputs` is not an object with a name")
    name = entry["name"]
    parameters = parameters_of(entry)
    refuse_shared_memory(name, parameters)
    datatype = datatype_of(name, entry.get("datatype"))
    shape, count = shape_of(name, entry.get("shape"), settings.max_rows)
    size = parameters.get("binary_data_size")
    if size is None:
        if not isinstance(entry.get("data"), list):
            raise bad(f"tensor {show(name)}: `data` is not a list", "send data, or binary_data_size and the bytes")
        flat = flatten(name, entry["data"], shape, count)
        return Tensor(name, datatype, shape, from_elements(name, datatype, flat), parameters), 0
    if entry.get("data") is not None:
        raise bad(f"tensor {show(name)} has both data and binary_data_size", "send one of them")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise bad(f"tensor {show(name)}: binary_data_size is not a number of bytes")
    if not has_binary:
        raise bad(
            f"tensor {show(name)} is binary, but the header Inference-Header-Content-Length is missing",
            "it says where the JSON ends",
        )
    if size > len(rest):
        raise bad(f"tensor {show(name)} has {size} bytes by its binary_data_size, but only {len(rest)} are left")
    return Tensor(name, datatype, shape, from_binary(name, datatype, count, rest[:size]), parameters), size


@dataclass(frozen=True)
class Encoded:
    body: bytes
    header_length: int | None
    """None where no tensor is binary: the body is JSON alone"""


def encode_response(head: Mapping[str, Any], tensors: Sequence[Tensor], request: InferRequest) -> Encoded:
    """An answer's body, its outputs binary where the request asks for it."""
    asked = {w.name: w.binary for w in request.outputs}
    default = request.parameters.get("binary_data_output") is True
    outputs, tail = [], []
    for tensor in tensors:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        binary = asked.get(tensor.name)
        if default if binary is None else binary:
            tail.append(to_binary(tensor.datatype, tensor.data))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = to_json(tensor.data)
        outputs.append(entry)
    text = json.dumps({**head, "outputs": outputs}, separators=(",", ":"), allow_nan=False).encode()
    return Encoded(text + b"".join(tail), len(text) if tail else None)
