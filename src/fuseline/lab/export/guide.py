"""README.md of an exported folder. Its Python runs as it stands, inside the folder; a test does so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

READ = """import base64, json
from pathlib import Path
import numpy as np

def array(a):
    raw = base64.b64decode(a["base64"]) if "base64" in a else np.array(a["values"], a["dtype"]).tobytes()
    return np.frombuffer(raw, a["dtype"]).reshape(a["shape"])

example = json.loads(Path("example.json").read_text(encoding="utf-8"))
feed = {name: array(a) for name, a in example["inputs"].items()}
"""
ONNX = """import onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
names = [o.name for o in session.get_outputs()]
outputs = dict(zip(names, session.run(names, feed)))
"""
OPENVINO = """import openvino
# Without the hint OpenVINO computes in bfloat16 on some processors, and answers change with the machine.
model = openvino.Core().compile_model("model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})
result = model(feed)
outputs = {{name: result[name] for name in example["outputs"]}}
"""
CHECK = """for name, expected in example["outputs"].items():
    print(name, "differs by", np.abs(outputs[name] - array(expected)).max())
"""
SOFTMAX = """z = outputs["output.logits"]
p = np.exp(z - z.max(axis=1, keepdims=True))
p /= p.sum(axis=1, keepdims=True)
labels = json.loads(Path("signature.json").read_text(encoding="utf-8"))["task"]["labels"]
print([labels[i] for i in p.argmax(axis=1)], p.round(4).tolist())
"""
SIGMOID = """p = 1 / (1 + np.exp(-outputs["output.logits"]))
labels = json.loads(Path("signature.json").read_text(encoding="utf-8"))["task"]["labels"]
print([[label for label, x in zip(labels, row) if x >= 0.5] for row in p], p.round(4).tolist())
"""
NUMBERS = """print(outputs["output.prediction"].tolist())
"""
BOXES = """task = json.loads(Path("signature.json").read_text(encoding="utf-8"))["task"]
scores = 1 / (1 + np.exp(-outputs["output.logits"]))
pixels = outputs["output.boxes"].clip(0, 1) * np.tile(outputs["output.picture"], 2)[:, None]
for row in range(len(scores)):
    if outputs["output.picture"][row].min() > 0:
        for query, label in zip(*np.nonzero(scores[row] >= task["threshold"])):
            print(row, task["labels"][label], scores[row, query, label].round(3), pixels[row, query].round(1).tolist())
"""
EMBEDDED = """
import onnxruntime
from onnxruntime_extensions import get_library_path
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(get_library_path())
session = onnxruntime.InferenceSession("model-embedded.onnx", options, providers=["CPUExecutionProvider"])
feed = {name: a[:1] for name, a in feed.items()}
cells = example["cells"][0]
"""
TEXT = """feed[{0!r}] = np.array([cells[{1!r}]], dtype=object)
"""
FILE = """files = [Path(cells[{2!r}]["file"]).read_bytes()]
feed[{0!r}] = np.frombuffer(b"".join(files), np.uint8)
feed[{1!r}] = np.array([len(file) for file in files])
"""
RESULT = """values = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})
for output, value in zip(session.get_outputs(), values):
    print(output.name, "differs by", np.abs(value - array(example["outputs"][output.name])[:1]).max())
"""


def embedded_snippet(signature: Mapping[str, Any], parts: Iterable[str]) -> str:
    """Python for model-embedded.onnx and the example's first row. `parts`: the inputs that are embedded."""
    lines = READ + EMBEDDED.lstrip()
    for name in parts:
        entry = signature["prepare"][name]
        column = entry["columns"][0]
        if entry["modality"] == "text":
            lines += TEXT.format(f"{name}.text", column)
        else:
            lines += FILE.format(f"{name}.file", f"{name}.file_size", column)
    return lines + RESULT


def guide(signature: Mapping[str, Any], target: str, parity: Mapping[str, Any], files: Sequence[str]) -> str:
    """The text. `target`: onnx or openvino; `files`: what else lies in the folder."""
    model = signature["model"]
    lines = [
        f"# {model['name']}",
        "",
        f"A fused {signature['task']['kind']} model (version {model['version']}), exported for use without fuseline.",
        "",
        *_files(files),
        "",
        "## Run it",
        "",
        "```python",
        (READ + (ONNX if target == "onnx" else OPENVINO.format(hint=_hint(signature))) + CHECK).rstrip(),
        "```",
        "",
        *_bytes(signature["runtime"]),
        f"The answer: {signature['task']['decode']}.",
        "",
        "```python",
        _decode(signature["task"]).rstrip(),
        "```",
        "",
        "## Inputs",
        "",
        *_inputs(signature),
        "",
        *_prepare(signature),
        "## Elsewhere",
        "",
        *_elsewhere(target, signature),
        "",
        *_embedded(signature),
        "## Verified",
        "",
        f"{parity['cases']} batches ({parity['rows']} rows) of {_sizes(parity)} rows, lengths from the shortest to the "
        f"longest, every input absent in turn: at most {parity['max_abs_difference']:.2g} from the package (allowed "
        f"{parity['tolerance']:g}). Details: `parity.json`.",
        "",
    ]
    return "\n".join(lines)


def _bytes(runtime: Mapping[str, Any]) -> list[str]:
    """What to set where an int8 graph meets a processor whose products of bytes overflow."""
    if not {"int8", "int8-dynamic"} & set(runtime["precision"]):
        return []
    setting = {
        "onnx": 'a `SessionOptions` with `add_session_config_entry("session.x64quantprecision", "1")` '
        "makes them exact, and changes nothing elsewhere",
        "openvino": 'the key `"LP_TRANSFORMS_MODE": False` beside the hint computes them in float32. Elsewhere leave '
        "it out: it takes the speed of int8",
    }
    return [
        "This model's numbers are int8. x86 processors without VNNI add products of bytes in 16 bits, which overflow, "
        f"and answers are then wrong without an error: there, {setting[runtime['target']]}.",
        "",
    ]


def _hint(signature: Mapping[str, Any]) -> str:
    return str(signature["runtime"]["config"]["INFERENCE_PRECISION_HINT"])


def _sizes(parity: Mapping[str, Any]) -> str:
    *first, last = map(str, parity["batch_sizes"])
    return f"{', '.join(first)} and {last}" if first else last


def _decode(task: Mapping[str, Any]) -> str:
    if task["kind"] == "classification":
        return SIGMOID if task["mode"] == "multilabel" else SOFTMAX
    return {"regression": NUMBERS, "detection": BOXES}.get(task["kind"], "print(outputs)")


def _files(files: Sequence[str]) -> list[str]:
    words = {
        "model.onnx": "the model, weights inside",
        "model.onnx.data": "its weights: keep it beside model.onnx",
        "model-embedded.onnx": "the model with the preparation of inputs inside (see below)",
        "model.xml": "the model",
        "model.bin": "its weights",
        "signature.json": "every input and output, how to make the inputs, the labels",
        "example.json": "two made rows: raw cells, arrays, outputs to expect, for a port's own test",
        "parity.json": "how far it is from the package, by size and length",
    }
    if "model.onnx.data" in files:
        words["model.onnx"] = "the model; its weights are in model.onnx.data"
    shown = [f for f in words if f in files] + sorted({f.split("/")[0] + "/" for f in files if "/" in f})
    return [f"- `{f}`" + (f": {words[f]}" if f in words else "") for f in shown]


def _inputs(signature: Mapping[str, Any]) -> list[str]:
    lines = ["| name | type | shape | |", "|---|---|---|---|"]
    for entry in signature["inputs"]:
        shape = " x ".join(map(str, entry["shape"]))
        lines.append(f"| `{entry['name']}` | {entry['dtype']} | {shape} | {entry['meaning']} |")
    lines.append("")
    lines += [
        f"`{name}` is from {v['shortest']} to {v['longest']}"
        + (f", a multiple of {v['step']}." if v["step"] > 1 else ".")
        for name, v in signature["lengths"].items()
    ]
    return lines


def _prepare(signature: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, entry in signature["prepare"].items():
        lines += [f"### {name} ({entry['modality']}: {', '.join(entry['columns'])})", ""]
        lines += [f"{i}. {step}" for i, step in enumerate(entry["prepare"], start=1)]
        lines += ["", f"Absent: {entry['absent']}; and its column of `present` is false.", ""]
        for number in entry.get("numbers", ()):
            part = f" ({number['part']})" if "part" in number else ""
            lines.append(f"- numbers[{number['index']}]: {number['column']}{part}: {number['value']}")
        for category in entry.get("categories", ()):
            known = ", ".join(f"{v} = {k}" for v, k in list(category["values"].items())[:8])
            more = f", ... ({len(category['values'])} in signature.json)" if len(category["values"]) > 8 else ""
            lines.append(f"- categories[{category['index']}]: {category['column']}: {known}{more}")
        if entry.get("numbers") or entry.get("categories"):
            lines.append("")
    absent = ", ".join(map(repr, signature["absent_words"]))
    return [*lines, f"In every input these words of a cell mean that it is absent: {absent}.", ""]


def _elsewhere(target: str, signature: Mapping[str, Any]) -> list[str]:
    if target == "onnx":
        return [
            "The same file runs in C++, C#, Java, JavaScript (browser, Node.js), Swift and on phones with ONNX "
            "Runtime: create a session, give the arrays by name, read the outputs by name. `example.json` tells "
            "whether a port is right. In JavaScript int64 arrays are BigInt64Array.",
        ]
    return [
        "C++ and C read `model.xml` with `ov::Core::compile_model`. OpenVINO Model Server takes the two files as "
        "`MODELS/NAME/1/model.xml` and `model.bin`: `ovms --model_name NAME --model_path /MODELS/NAME --port 9000 "
        f"--plugin_config '{json.dumps(signature['runtime']['config'])}'`; the names of inputs and outputs stay as "
        "they are.",
    ]


def _embedded(signature: Mapping[str, Any]) -> list[str]:
    entry = signature.get("embedded")
    if entry is None:
        return []
    lines = [
        "## model-embedded.onnx",
        "",
        "Needs ONNX Runtime Extensions (`pip install onnxruntime-extensions`; libraries for C++, C#, Java and phones "
        "exist), registered as below. Instead of arrays it takes:",
        "",
    ]
    for item in entry["inputs"]:
        if item["embedded"]:
            lines.append(
                f"- `{item['name']}` ({item['dtype']}, {' x '.join(map(str, item['shape']))}): {item['meaning']}"
            )
    for name, figures in entry["measured"].items():
        lines.append(f"- {name}, measured: {figures['said']}")
    lines += [f"- {name}: note that {text}" for name, texts in entry["notes"].items() for text in texts]
    lines += [f"- left out: {name}: {why}" for name, why in entry["left_out"].items()]
    return [*lines, "", "```python", embedded_snippet(signature, entry["measured"]).rstrip(), "```", ""]
