"""The protocol's gRPC messages, and requests and answers as such. Needs protobuf, not grpcio."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fuseline.serve.settings import Settings
from fuseline.serve.v2.codec import InferRequest, Tensor, refuse_shared_memory, wanted
from fuseline.serve.v2.elements import (
    Elements,
    bad,
    datatype_of,
    from_binary,
    from_elements,
    shape_of,
    show,
    to_binary,
)
from fuseline.serve.v2.infer import Inferred

SERVICE = "inference.GRPCInferenceService"
_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""FP16 has no field: it comes as raw contents"""


@cache
def _pool() -> Any:
    """A pool of our own: another library in this process may have messages of the same names."""
    pool = descriptor_pool.DescriptorPool()
    data = files(__package__).joinpath("open_inference.desc").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


@cache
def message(name: str) -> Any:
    """The class of a message, e.g. `ModelInferRequest`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))


def methods() -> dict[str, tuple[str, str]]:
    """Method -> the names of its request and its answer."""
    service = _pool().FindServiceByName(SERVICE)
    return {m.name: (m.input_type.name, m.output_type.name) for m in service.methods}


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {key: value.WhichOneof("parameter_choice") for key, value in given.items()}
    return {key: getattr(given[key], field) for key, field in chosen.items() if field is not None}


def request_of(asked: Any, settings: Settings) -> InferRequest:
    """A ModelInferRequest's tensors. Raises FuselineError ``bad_request``, ``too_large``."""
    raw = list(asked.raw_input_contents)
    if raw and len(raw) != len(asked.inputs):
        raise bad(f"{len(asked.inputs)} inputs, but {len(raw)} raw contents", "send one for each input, or none")
    inputs = []
    for i, tensor in enumerate(asked.inputs):
        parameters = _parameters(tensor.parameters)
        refuse_shared_memory(tensor.name, parameters)
        datatype = datatype_of(tensor.name, tensor.datatype)
        shape, count = shape_of(tensor.name, list(tensor.shape), settings.max_rows)
        if not raw:
            data = _typed(tensor, datatype, count)
        elif tensor.HasField("contents"):
            raise bad(f"tensor {show(tensor.name)} has both contents and raw contents", "send one of them")
        else:
            data = from_binary(tensor.name, datatype, count, raw[i])
        inputs.append(Tensor(tensor.name, datatype, shape, data, parameters))
    outputs = tuple(wanted(o.name, _parameters(o.parameters)) for o in asked.outputs)
    if len(asked.id) > 1024:
        raise bad("`id` is not a text of at most 1024 characters")
    return InferRequest(tuple(inputs), outputs, asked.id, _parameters(asked.parameters))


def _typed(tensor: Any, datatype: str, count: int) -> Elements:
    if datatype not in _FIELDS:
        raise bad(f"tensor {show(tensor.name)}: {datatype} has no contents of its own", "send raw_input_contents")
    field = getattr(tensor.contents, _FIELDS[datatype])
    if len(field) != count:
        raise bad(f"tensor {show(tensor.name)}: its shape has {count} elements, {_FIELDS[datatype]} has {len(field)}")
    return list(field) if datatype == "BYTES" else from_elements(tensor.name, datatype, list(field))


def response_of(done: Inferred, *, raw: bool) -> Any:
    """A ModelInferResponse, its outputs as raw contents or in the field of their datatype."""
    answer = message("ModelInferResponse")(**done.head)
    for tensor in done.tensors:
        output = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            answer.raw_output_contents.append(to_binary(tensor.datatype, tensor.data))
        elif tensor.datatype == "BYTES":
            output.contents.bytes_contents.extend(e.encode("utf-8", "replace") for e in tensor.data)
        else:
            assert not isinstance(tensor.data, list)
            getattr(output.contents, _FIELDS[tensor.datatype]).extend(tensor.data.tolist())
    return answer
