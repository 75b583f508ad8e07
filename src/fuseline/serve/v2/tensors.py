"""Tensors to rows, and answers to tensors. Dimensions: B rows of a request, C classes, K targets.

An input is one raw column, shape [B] or [B, 1]. Absent are: a tensor left out, NaN, JSON's null, an empty BYTES
element. Several pictures or texts are one element, a JSON list. Answers: `value` BYTES or FP64; `probabilities` FP64
[B, C] in the order of the model's classes, the predictor's own floats; `used`, `absent` and `notes`, JSON lists;
`error`, empty where the row was fine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fuseline.errors import FuselineError, closest
from fuseline.runtime import Answer
from fuseline.serve.calls import ColumnInfo, ModelInfo
from fuseline.serve.v2.codec import InferRequest, Tensor, Wanted
from fuseline.serve.v2.elements import NUMPY, bad, show
from fuseline.tasks.labels import text_of as label_of

_INTEGERS = tuple(t for t, dtype in NUMPY.items() if dtype.kind in "iu")
_FLOATS = tuple(t for t, dtype in NUMPY.items() if dtype.kind == "f")
INPUT_TYPES: dict[str, tuple[str, ...]] = {
    "text": ("BYTES",),
    "image": ("BYTES",),
    "audio": ("BYTES",),
    "video": ("BYTES",),
    "images": ("BYTES",),
    "texts": ("BYTES",),
    "words": ("BYTES",),
    "date": ("BYTES",),
    "graph": ("BYTES", *_INTEGERS),
    "category": ("BYTES", *_INTEGERS, "BOOL"),
    "boolean": ("BOOL", "BYTES", *_INTEGERS),
    "number": ("FP32", *(t for t in _FLOATS if t != "FP32"), *_INTEGERS, "BYTES"),
}
"""kind of column -> datatypes taken; the first is the one that the metadata names"""
_MEDIA = ("image", "audio", "video", "images")


def rows_of(tensors: Sequence[Tensor], info: ModelInfo, max_rows: int) -> list[dict[str, Any]]:
    """The request's rows, as the predictor takes them.

    Raises FuselineError ``unknown_column``, ``bad_request`` (datatype, shape, a name twice), ``bad_rows`` (none),
    ``too_large`` (too many).
    """
    columns = {c.name: c for c in info.columns}
    cells: dict[str, list[Any]] = {}
    rows: int | None = None
    for tensor in tensors:
        column = columns.get(tensor.name)
        if column is None:
            near = closest(tensor.name[:80], columns)
            hint = f"did you mean {near!r}?" if near else f"its inputs: {', '.join(list(columns)[:20])}"
            raise FuselineError("unknown_column", f"the model has no input {show(tensor.name)}", hint)
        if tensor.name in cells:
            raise bad(f"the input {show(tensor.name)} is there twice")
        if tensor.datatype not in INPUT_TYPES[column.kind]:
            types = ", ".join(INPUT_TYPES[column.kind])
            raise bad(f"the input {show(tensor.name)} ({column.kind}) is {tensor.datatype}", f"send one of: {types}")
        if len(tensor.shape) not in (1, 2) or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise bad(f"the input {show(tensor.name)} has the shape {list(tensor.shape)}", "send [B] or [B, 1]")
        if rows is not None and tensor.shape[0] != rows:
            raise bad(f"the input {show(tensor.name)} has {tensor.shape[0]} rows, others have {rows}")
        rows = tensor.shape[0]
        cells[tensor.name] = _cells(tensor, column)
    if not rows:
        raise FuselineError("bad_rows", "the request has no rows", "send tensors of at least one row")
    if rows > max_rows:
        raise FuselineError("too_large", f"{rows} rows, at most {max_rows} are taken", "send fewer rows at once")
    return [{name: column[i] for name, column in cells.items()} for i in range(rows)]


def _cells(tensor: Tensor, column: ColumnInfo) -> list[Any]:
    if tensor.datatype != "BYTES":
        return list(tensor.data.tolist()) if isinstance(tensor.data, np.ndarray) else tensor.data
    return [_cell(e, media=column.kind in _MEDIA) for e in tensor.data]


def _cell(element: bytes | str | None, *, media: bool) -> bytes | str | None:
    """Media: bytes are the file itself, text is its base64. Else text; bytes that are none stay, for the parser to
    refuse that row alone."""
    if not element or isinstance(element, str) or media:
        return element or None
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError:
        return element


SURE = ("set", "abstained", "suggestion", "odd")
"""what packages with promises add to answers, as JSON texts"""


def output_shapes(info: ModelInfo) -> dict[str, tuple[str, list[int]]]:
    """The outputs of every answer: name -> datatype and shape, -1 for B."""
    outputs: dict[str, tuple[str, list[int]]]
    if info.task == "classification":
        outputs = {"value": ("BYTES", [-1]), "probabilities": ("FP64", [-1, len(info.classes)])}
    elif info.task == "regression":
        outputs = {"value": ("FP64", [-1, len(info.targets)] if info.mode == "numbers" else [-1])}
    else:  # whatever it is, as JSON
        outputs = {"value": ("BYTES", [-1]), "details": ("BYTES", [-1])}
    return outputs | dict.fromkeys(("used", "absent", "notes", "error"), ("BYTES", [-1]))


def check_outputs(wanted: Sequence[Wanted], info: ModelInfo) -> None:
    """Before any work is done. Raises FuselineError ``bad_request``."""
    known = [*output_shapes(info), "interval", *SURE]
    names = [w.name for w in wanted]
    for name in names:
        if name not in known:
            near = closest(name[:80], known)
            hint = f"did you mean {near!r}?" if near else f"its outputs: {', '.join(known)}"
            raise bad(f"the model has no output {show(name)}", hint)
    if len(set(names)) < len(names):
        raise bad("an output is asked for twice")


def tensors_of(answers: Sequence[Answer], info: ModelInfo, request: InferRequest) -> list[Tensor]:
    """The outputs that the request names, in its order; else all, and `interval` and SURE where an answer has them."""
    shapes = output_shapes(info)
    more = ["interval"] if any(a.interval for a in answers) else []
    more += [name for name in SURE if any(getattr(a, name) is not None for a in answers)]
    names = [w.name for w in request.outputs] or [*shapes, *more]
    out = []
    for name in names:
        datatype, shape = shapes.get(name, ("BYTES", [-1]) if name in SURE else ("FP64", [-1, 2]))
        elements = _ELEMENTS[name](answers, info)
        data = np.array(elements, dtype=np.float64) if datatype == "FP64" else elements
        out.append(Tensor(name, datatype, (len(answers), *shape[1:]), data))
    return out


def _values(answers: Sequence[Answer], info: ModelInfo) -> list[Any]:
    if info.mode == "multilabel" or info.task not in ("classification", "regression"):
        return ["" if a.error else json.dumps(a.value, ensure_ascii=False) for a in answers]
    if info.task == "classification":
        return ["" if a.error or a.abstained else label_of(a.value) for a in answers]
    if info.mode == "numbers":
        return [math.nan if a.error else a.value[target] for a in answers for target in info.targets]
    return [math.nan if a.error else a.value for a in answers]


def _probabilities(answers: Sequence[Answer], info: ModelInfo) -> list[float]:
    """In the order of the answers' own keys, which is that of `info.classes`."""
    lacking = [math.nan] * len(info.classes)
    return [p for a in answers for p in (a.probabilities.values() if a.probabilities else lacking)]


def _details(answers: Sequence[Answer], info: ModelInfo) -> list[Any]:
    return ["" if a.details is None else json.dumps(a.details, ensure_ascii=False) for a in answers]


def _interval(answers: Sequence[Answer], info: ModelInfo) -> list[float]:
    return [bound for a in answers for bound in (a.interval or (math.nan, math.nan))]


def _list(name: str) -> Callable[[Sequence[Answer], ModelInfo], list[Any]]:
    return lambda answers, info: [json.dumps(list(getattr(a, name)), ensure_ascii=False) for a in answers]


def _json_of(name: str) -> Callable[[Sequence[Answer], ModelInfo], list[Any]]:
    def of(answers: Sequence[Answer], info: ModelInfo) -> list[Any]:
        values = [getattr(a, name) for a in answers]
        return ["" if v is None else json.dumps(v, ensure_ascii=False) for v in values]

    return of


def _errors(answers: Sequence[Answer], info: ModelInfo) -> list[Any]:
    return ["" if a.error is None else text_of(a.error) for a in answers]


_ELEMENTS: dict[str, Callable[[Sequence[Answer], ModelInfo], list[Any]]] = {
    "value": _values,
    "details": _details,
    "probabilities": _probabilities,
    "interval": _interval,
    **{name: _json_of(name) for name in SURE},
    "used": _list("used"),
    "absent": _list("absent"),
    "notes": _list("notes"),
    "error": _errors,
}


def text_of(error: FuselineError) -> str:
    """An error in one line: where, what, and what to do."""
    text = f"{error.place}: {error.message}" if error.place else error.message
    return " ".join((f"{text} ({error.hint})" if error.hint else text).split())
