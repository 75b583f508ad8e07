"""The OpenAPI document: each served model's own columns, so that a client can be made from it."""

from __future__ import annotations

from typing import Any

from fuseline.serve.calls import ColumnInfo, ModelInfo
from fuseline.serve.settings import Settings
from fuseline.tasks.decoding import Decoding

CHAT = "/v1/chat/completions"
MEDIA = {"image": "picture", "audio": "sound", "video": "video"}


def column_schema(column: ColumnInfo) -> dict[str, Any]:
    match column.kind:
        case "number":
            out: dict[str, Any] = {"type": ["number", "string", "null"], "description": "a number, or its text"}
        case "boolean":
            out = {"type": ["boolean", "string", "integer", "null"], "description": "true or false, yes or no, 1 or 0"}
        case "date":
            out = {"type": ["string", "null"], "description": "a date, 2024-05-31 or 2024-05-31T13:45"}
        case "category":
            out = {
                "type": ["string", "number", "boolean", "null"],
                "description": "a category; others count as `other`",
            }
            if column.values:
                out["examples"] = list(column.values[:20])
        case "timeseries":
            step = {"anyOf": [{"type": ["number", "null"]}, {"type": "array", "items": {"type": ["number", "null"]}}]}
            text = "a series: a list of numbers, or of lists of one number a channel; null is a gap"
            out = {"anyOf": [{"type": "array", "items": step}, {"type": ["string", "null"]}], "description": text}
        case "graph":
            out = {"type": ["string", "integer", "null"], "description": "the id of an entity of the model's graph"}
        case "images" | "texts":
            what = "pictures: base64 text or data URIs" if column.kind == "images" else "texts"
            items = {"type": "array", "items": {"type": "string"}}
            out = {"anyOf": [items, {"type": ["string", "null"]}], "description": f"a list of {what}, or one"}
        case "words":
            items = {"type": "array", "items": {"type": "object"}}
            text = 'words with boxes: [{"text": ..., "box": [x0, y0, x1, y1]}], or JSON of it'
            out = {"anyOf": [items, {"type": ["object", "string", "null"]}], "description": text}
        case "image" | "audio" | "video":
            what = MEDIA[column.kind]
            text = f"a {what}: base64 text or a data URI (in a form: a file). Never a path or a URL"
            out = {"type": ["string", "null"], "contentEncoding": "base64", "description": text}
        case _:
            out = {"type": ["string", "null"], "description": "text"}
    out["description"] += f"; null or left out: absent (input `{column.input}`)"
    return out


def row_schema(info: ModelInfo) -> dict[str, Any]:
    return {
        "type": "object",
        "title": f"Row of {info.name}",
        "description": "Any column may be left out; the answer says what it was based on.",
        "properties": {c.name: column_schema(c) for c in info.columns},
    }


def answer_schema(info: ModelInfo) -> dict[str, Any]:
    if info.task == "classification":
        label: dict[str, Any] = {"description": f"one of {', '.join(info.classes[:20])}"}
        value = {"type": "array", "items": label} if info.mode == "multilabel" else label
    elif info.mode == "numbers":
        value = {"type": ["object", "null"], "description": f"numbers: {', '.join(info.targets)}"}
    elif info.task == "generation":
        value = {"type": ["string", "null"], "description": "the text"}
    elif info.task == "regression":
        value = {"type": ["number", "null"]}
    else:
        value = {"description": f"what a {info.task} answers"}
    inputs = {"type": "array", "items": {"enum": list(info.inputs)}}
    properties: dict[str, Any] = {
        "value": value,
        "used": {**inputs, "description": "the inputs that the answer is based on"},
        "absent": {**inputs, "description": "the inputs that the row lacked"},
        "notes": {"type": "array", "items": {"type": "string"}},
        "error": {"$ref": "#/components/schemas/RowError"},
        "contributions": {"type": "object"},
        "interval": {"type": "array", "items": {"type": "number"}},
        "details": {"type": "object"},
        "set": {"type": "array", "description": "classes, one of which is the truth with the stated chance"},
        "abstained": {
            "type": "boolean",
            "description": "true: not sure enough for the stated error; no value is given",
        },
        "suggestion": {"description": "what the value would have been, had the model not abstained"},
        "odd": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "description": "input -> share of held-out rows that are less unlike the training rows in it",
        },
    }
    if info.classes:
        properties["probabilities"] = {"type": "object", "properties": {c: {"type": "number"} for c in info.classes}}
    return {
        "type": "object",
        "title": f"Answer of {info.name}",
        "properties": properties,
        "required": ["used", "absent"],
    }


FAILURE = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "hint": {"type": "string"},
        "row": {"type": ["integer", "null"]},
        "column": {"type": ["string", "null"]},
        "request_id": {"type": "string"},
    },
    "required": ["error", "code"],
}
ROW_ERROR = {
    "type": "object",
    "properties": {k: FAILURE["properties"][k] for k in ("code", "hint", "row", "column")}  # type: ignore[index]
    | {"message": {"type": "string"}},
}
REFUSALS = {
    "400": "not a request that can be read",
    "401": "an API key is needed",
    "404": "no such model or version",
    "413": "too large",
    "415": "a type of body that is not read",
    "422": "no row can be answered",
    "429": "overloaded, or over the key's rate: see Retry-After",
    "499": "the caller has gone",
    "503": "not ready",
    "504": "not answered before the deadline",
}


def document(base: dict[str, Any], models: list[ModelInfo], settings: Settings) -> dict[str, Any]:
    """`base` (FastAPI's own) with one path a model in place of the general ones."""
    out = {**base, "paths": dict(base.get("paths", {}))}
    schemas = out.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {"Failure": FAILURE, "RowError": ROW_ERROR}
    for path in list(out["paths"]):
        if path.startswith("/v1/models/{model}") and path.endswith(("/predict", "/generate", "/explain")):
            del out["paths"][path]
    if not any(writes(info) for info in models):
        out["paths"].pop(CHAT, None)
    done: set[str] = set()
    for info in models:
        if info.name in done:  # the default version comes first and stands for the name
            continue
        done.add(info.name)
        out["paths"][f"/v1/models/{info.name}/predict"] = {"post": _predict(info, settings)}
        if explains(info):
            out["paths"][f"/v1/models/{info.name}/explain"] = {"post": _explain(info, settings)}
        if writes(info):
            out["paths"][f"/v1/models/{info.name}/generate"] = {"post": _generate(info)}
    if "/search" in out["paths"]:
        out["paths"]["/search"]["post"] |= _search(models, settings)
    for path, item in out["paths"].items():
        if path.startswith("/v1") or path == "/search":
            for operation in item.values():
                operation.setdefault("responses", {}).pop("422", None)
                for status, text in REFUSALS.items():
                    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
                    operation["responses"][status] = {"description": text, "content": content}
    return out


def _predict(info: ModelInfo, settings: Settings) -> dict[str, Any]:
    row = row_schema(info)
    body = {
        "type": "object",
        "properties": {
            "rows": {"type": "array", "items": row, "minItems": 1, "maxItems": settings.max_rows},
            "contributions": {"type": "boolean", "default": False, "description": "what each input contributed"},
        },
        "required": ["rows"],
        "additionalProperties": False,
    }
    form = {**row, "properties": {n: _form_field(s) for n, s in row["properties"].items()}}
    timing = {"type": "object", "properties": {"queue_ms": {"type": "number"}, "compute_ms": {"type": "number"}}}
    reply = {
        "type": "object",
        "properties": {
            "model": {"const": info.name},
            "version": {"type": "string"},
            "request_id": {"type": "string"},
            "answers": {"type": "array", "items": answer_schema(info)},
            "timing": timing,
        },
        "required": ["model", "version", "request_id", "answers"],
    }
    return {
        "tags": ["models"],
        "summary": f"Ask {info.name} for {', '.join(info.targets)}",
        "operationId": f"predict_{info.name}",
        "parameters": [
            {"name": "X-Deadline-Ms", "in": "header", "schema": {"type": "number", "exclusiveMinimum": 0}},
            {"name": "X-Request-Id", "in": "header", "schema": {"type": "string", "maxLength": 128}},
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body}, "multipart/form-data": {"schema": form}},
        },
        "responses": {"200": {"description": "answers", "content": {"application/json": {"schema": reply}}}},
    }


def explains(info: ModelInfo) -> bool:
    return info.task not in ("generation", "detection", "retrieval")


def _explain(info: ModelInfo, settings: Settings) -> dict[str, Any]:
    names = {"enum": list(info.inputs)}
    properties: dict[str, Any] = {
        "rows": {"type": "array", "items": row_schema(info), "minItems": 1, "maxItems": settings.max_rows},
        "inside": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": names}], "default": False},
        "of": {"type": ["string", "null"], "description": "the class or target; default: the answered class"},
        "changes": {"type": "object", "description": "column -> another cell: what would the answer be"},
        "grid": {"type": "integer", "minimum": 1, "maximum": 64, "default": 8},
        "most_parts": {"type": "integer", "minimum": 1, "maximum": 4096, "default": 64},
    }
    body = {"type": "object", "properties": properties, "required": ["rows"], "additionalProperties": False}
    reply = {
        "type": "object",
        "description": "docs/explanations.md says it key by key",
        "properties": {
            "format": {"const": 1},
            "model": {"type": "object"},
            "rows": {"type": "array", "items": {"type": "object"}},
            "summary": {"type": "object"},
        },
        "required": ["format", "model", "rows", "summary"],
    }
    return {
        "tags": ["models"],
        "summary": f"Why {info.name} answers as it does",
        "description": f"Takes at most {settings.max_explain_rows} answers of the model a request.",
        "operationId": f"explain_{info.name}",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "explanations", "content": {"application/json": {"schema": reply}}}},
    }


def writes(info: ModelInfo) -> bool:
    return info.task == "generation"


def _generate(info: ModelInfo) -> dict[str, Any]:
    body = {
        "type": "object",
        "properties": {
            "row": row_schema(info),
            "stream": {"type": "boolean", "default": False, "description": "server-sent events, as it is written"},
            "decoding": {"type": "object", "description": f"{', '.join(Decoding.model_fields)}; default: the model's"},
            "stop": {"type": ["string", "array"], "items": {"type": "string"}, "description": "texts that end it"},
        },
        "required": ["row"],
        "additionalProperties": False,
    }
    reply = {
        "type": "object",
        "properties": {"model": {"const": info.name}, "version": {"type": "string"}, "answer": answer_schema(info)},
        "required": ["model", "version", "request_id", "answer"],
    }
    content = {
        "application/json": {"schema": reply},
        "text/event-stream": {"schema": {"type": "string", "description": 'data: {"text": piece} ..., event: end'}},
    }
    return {
        "tags": ["models"],
        "summary": f"Have {info.name} write {', '.join(info.targets)}",
        "operationId": f"generate_{info.name}",
        "parameters": [
            {"name": "X-Deadline-Ms", "in": "header", "schema": {"type": "number", "exclusiveMinimum": 0}},
            {"name": "X-Request-Id", "in": "header", "schema": {"type": "string", "maxLength": 128}},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "the text", "content": content}},
    }


def _search(models: list[ModelInfo], settings: Settings) -> dict[str, Any]:
    options = {
        "k": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10, "description": "hits a row"},
        "exact": {"type": "boolean", "default": False, "description": "compare with every vector"},
        "index": {"type": "string", "description": "its name, where several are served"},
    }
    row = row_schema(models[0]) if len({m.name for m in models}) == 1 else {"type": "object"}
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": settings.max_rows}
    body = {
        "type": "object",
        "properties": {"rows": rows, **options},
        "required": ["rows"],
        "additionalProperties": False,
    }
    hit = {
        "type": "object",
        "properties": {
            "row": {"type": "integer"},
            "score": {"type": "number"},
            "id": {},
            "cells": {"type": "object"},
        },
        "required": ["row", "score"],
    }
    result = {
        "type": "object",
        "properties": {
            "hits": {"type": "array", "items": hit},
            "side": {"type": ["string", "null"]},
            "used": {"type": "array", "items": {"type": "string"}},
            "absent": {"type": "array", "items": {"type": "string"}},
            "error": {"$ref": "#/components/schemas/RowError"},
        },
        "required": ["hits"],
    }
    reply = {
        "type": "object",
        "properties": {"results": {"type": "array", "items": result}, "index": {"type": "string"}},
        "required": ["results"],
    }
    return {
        "operationId": "search",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "hits", "content": {"application/json": {"schema": reply}}}},
    }


def _form_field(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("contentEncoding") == "base64":
        return {"type": "string", "format": "binary", "description": schema["description"]}
    return {"type": "string", "description": schema["description"]}
