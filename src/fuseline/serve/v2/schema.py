"""What OpenAPI says of the protocol's bodies."""

from __future__ import annotations

from typing import Any

from fuseline.serve.v2.elements import DATATYPES

_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]},
}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "description": "a column of the model"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "description": "[B] or [B, 1]"},
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "parameters": _PARAMETERS,
        "data": {"type": "array", "items": {}, "description": "flat, or nested as the shape; base64 text for media"},
    },
}
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
}
INFER_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string", "maxLength": 1024},
                    "parameters": _PARAMETERS,
                    "inputs": {"type": "array", "items": _TENSOR, "minItems": 1},
                    "outputs": {"type": "array", "items": _OUTPUT},
                },
            }
        },
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary"},
        },
    },
}
INDEX_BODY: dict[str, Any] = {
    "required": False,
    "content": {
        "application/json": {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}},
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": "what is wrong, in `error`", "content": {"application/json": {"schema": _ERROR}}}
    for status in ("4XX", "5XX", 422)
}
