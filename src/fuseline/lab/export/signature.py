"""signature.json and example.json: all that a port must know, and what it can test itself with."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.lab.export.describe import describe
from fuseline.lab.export.parity_shapes import collated
from fuseline.lab.export.runners import OnnxFile, OpenVinoFile
from fuseline.lab.export.samples import made_row, steps_of
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import RowParser
from fuseline.package import Package
from fuseline.package.files import finite
from fuseline.runtime import Predictor
from fuseline.runtime.backend import OUTPUT
from fuseline.tasks import Task

FORMAT = 1
LISTED = 4096
"""Numbers of an example's array that are written out; larger arrays are base64 of their bytes."""
OUTPUTS = {
    "logits": "one number a label (of each proposed box), in the order of task.labels",
    "prediction": "one number a target, in the order of task.targets, in the targets' own units",
    "boxes": "left, top, right, bottom edge of each proposed box, as shares of the picture's width and height",
    "picture": "the picture's width and height in pixels; 0 and 0 where the row has none",
    "forecast": "steps × channels × quantiles, in the series' own units; the middle quantile is the answer",
    "naive": "the last known number, for every step ahead",
    "seasonal": "the number one season before each step",
    "left": "the vector of the left side, length 1; all 0 where the row has none of its inputs",
    "right": "the vector of the right side, length 1; all 0 where the row has none of its inputs",
    "embedding": "the fused vector of the row, for search or clustering",
}


def signature(
    package: Package, predictor: Predictor, exported: OnnxFile | OpenVinoFile, tokenizers: Mapping[str, str]
) -> dict[str, Any]:
    """What stands in signature.json, as JSON values. `tokenizers`: input -> file."""
    parser = predictor.rows
    return {
        "format": FORMAT,
        "model": {"name": package.name, "version": package.version, "fuseline": package.manifest.get("fuseline")},
        "inputs": _inputs(parser, exported, tokenizers),
        "lengths": {
            f"{name}.{letter}": {"shortest": low, "longest": high, "step": step}
            for (name, letter), (low, high, step) in steps_of(parser.modalities).items()
        },
        "prepare": {
            name: {
                "modality": modality.name,
                "columns": list(modality.columns),
                **describe(modality, tokenizers.get(name, "")),
            }
            for name, modality in parser.modalities.items()
        },
        "absent_words": list(package.recipe.table.absent),
        "outputs": [
            {
                "name": name,
                "dtype": dtype,
                "shape": ["batch", *shape[1:]],
                "meaning": OUTPUTS.get(name.removeprefix(OUTPUT).rpartition(".")[2], "of the task"),
            }
            for name, (dtype, shape) in exported.outputs.items()
        ],
        "task": task_words(predictor.task),
    }


def _inputs(
    parser: RowParser, exported: OnnxFile | OpenVinoFile, tokenizers: Mapping[str, str]
) -> list[dict[str, Any]]:
    found = []
    for name, modality in parser.modalities.items():
        words = describe(modality, tokenizers.get(name, ""))["arrays"]
        for key, spec in modality.arrays().items():
            if f"{name}.{key}" in exported.inputs:
                shape = ["batch" if s == "B" else f"{name}.{s}" if isinstance(s, str) else s for s in spec.shape]
                found.append(
                    {
                        "name": f"{name}.{key}",
                        "dtype": spec.dtype,
                        "shape": shape,
                        "input": name,
                        "meaning": words.get(key, ""),
                    }
                )
    found.append(
        {
            "name": "present",
            "dtype": "bool",
            "shape": ["batch", len(parser.names)],
            "input": None,
            "meaning": f"which inputs each row has, in this order: {', '.join(parser.names)}. What is false here is "
            "not looked at; its arrays must be valid all the same (see `absent` of each input)",
        }
    )
    return found


CALIBRATED = {
    "temperature": "divide the logits by `calibration.temperature` first",
    "beta": "p becomes 1 / (1 + exp(-(a ln p - b ln(1 - p) + c))) with each class's [a, b, c] of `calibration.beta`; "
    "of two classes only the second has them and the first is its complement, more than two (one of many) are then "
    "divided by their sum",
    "isotonic": "p becomes what straight lines between the points `at`, `chance` of each class's `calibration.curves` "
    "give, ends held; of two classes only the second has them and the first is its complement, more than two (one of "
    "many) are then divided by their sum",
}
"""how to apply a calibration without fuseline"""


def task_words(task: Task) -> dict[str, Any]:
    """How the outputs become an answer."""
    out: dict[str, Any] = {"kind": task.name, "targets": list(task.columns)}
    if task.name == "classification":
        mode, classes = task.mode, task.classes  # type: ignore[attr-defined]
        out |= {"mode": mode, "labels": finite(list(classes))}
        if mode == "multilabel":
            out["decode"] = "probability of each label = 1 / (1 + exp(-logit)); the answer: all labels of at least 0.5"
        else:
            out["decode"] = "probabilities = softmax(logits) over the labels; the answer: the label of the highest"
        if task.calibration.method != "none":  # type: ignore[attr-defined]
            out["calibration"] = task.calibration.to_dict()  # type: ignore[attr-defined]
            out["decode"] += f"; both after these chances are calibrated: {CALIBRATED[task.calibration.method]}"  # type: ignore[attr-defined]
        if mode == "binary":
            out["positive"] = finite(classes[task.positive])  # type: ignore[attr-defined]
    elif task.name == "forecast":
        out["decode"] = "forecast is (steps, channels, quantiles), rising, in the units of the training table"
        out |= {"steps": task.steps, "channels": list(task.channels), "quantiles": list(task.config.quantiles)}  # type: ignore[attr-defined]
    elif task.name == "regression":
        out["decode"] = "prediction is the answer, in the units of the training table"
    elif task.name == "detection":
        out |= {
            "labels": finite(list(task.classes)),  # type: ignore[attr-defined]
            "threshold": task.threshold,  # type: ignore[attr-defined]
            "nms": task.config.nms,  # type: ignore[attr-defined]
            "decode": "score of each box and label = 1 / (1 + exp(-logit)); edges are cut to 0..1 and multiplied by "
            "the picture's width and height; of two boxes of a label that overlap (intersection over union) by more "
            "than task.nms the one of the lower score is dropped; the answer: those of at least task.threshold, none "
            "where picture is 0",
        }
    elif task.name == "retrieval":
        out |= {side: list(getattr(task.config, side)) for side in ("left", "right")}  # type: ignore[attr-defined]
        out["decode"] = "rows are compared by the dot product of one side's vector with the other's; these are cosines"
    elif task.name == "multi":
        out["tasks"] = {name: task_words(own) for name, own in task.tasks.items()}  # type: ignore[attr-defined]
        out["decode"] = "the outputs TASK.NAME are task TASK's output NAME, to be read as `tasks` says"
    else:
        out["decode"] = f"as fuseline's task {task.name} does; this export has no words for it"
    return out


def example(predictor: Predictor, exported: OnnxFile | OpenVinoFile, folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Two made rows (nobody's data): one has everything, the other lacks the first input. Their raw cells (a file's
    bytes as a file under `folder`/example), the arrays that the cells become, and the outputs to expect.
    """
    rng = np.random.default_rng(seed)
    parser = predictor.rows
    rows = [made_row(parser, rng), made_row(parser, rng)]
    for column in parser.modalities[parser.names[0]].columns:
        rows[1][column] = None
    parsed = [parser.parse(row, MediaRoot(None)) for row in rows]
    values = [p.values for p in parsed]
    assert all(p.error is None for p in parsed), [str(p.error) for p in parsed]
    arrays = {k: v for k, v in collated(parser.modalities, values).items() if k in exported.inputs}
    outputs = exported.run(arrays)
    answers = predictor.decode(parsed, outputs)
    return {
        "cells": [_cells(row, folder, i) for i, row in enumerate(rows)],
        "inputs": {name: written(array) for name, array in arrays.items()},
        "outputs": {name: written(outputs[name.removeprefix(OUTPUT)]) for name in exported.outputs},
        "answers": [finite(a.to_dict()) for a in answers],
    }


def _cells(row: Mapping[str, Any], folder: Path, number: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for i, (column, cell) in enumerate(row.items()):
        if isinstance(cell, list):
            out[column] = [_cell(item, folder, f"row{number}-{i}-{j}") for j, item in enumerate(cell)]
        else:
            out[column] = _cell(cell, folder, f"row{number}-{i}")
    return out


def _cell(cell: Any, folder: Path, name: str) -> Any:
    if not isinstance(cell, bytes):
        return cell
    (folder / "example").mkdir(exist_ok=True)
    path = f"example/{name}{_suffix(cell)}"
    (folder / path).write_bytes(cell)
    return {"file": path}


def _suffix(data: bytes) -> str:
    known = ((b"\x89PNG", ".png"), (b"RIFF", ".wav"), (b"GIF8", ".gif"))
    return next((suffix for magic, suffix in known if data.startswith(magic)), ".bin")


def written(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON: nested lists, or base64 of its little-endian bytes in C order where it is large."""
    head = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size <= LISTED:
        return {**head, "values": array.tolist()}
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return {**head, "base64": base64.b64encode(little.tobytes()).decode("ascii")}
