"""The Python of README.md for model-embedded.onnx: runs as it stands, on the example's first row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fuseline.modalities.text import Text
from fuseline.runtime import Predictor

HEAD = """import json
from pathlib import Path
import numpy as np, onnxruntime
from onnxruntime_extensions import get_library_path

options = onnxruntime.SessionOptions()
options.register_custom_ops_library(get_library_path())
session = onnxruntime.InferenceSession("model-embedded.onnx", options, providers=["CPUExecutionProvider"])
example = json.loads(Path("example.json").read_text(encoding="utf-8"))
cells, arrays = example["cells"][0], example["inputs"]
feed = {name: np.array(a["values"][:1], a["dtype"]) for name, a in arrays.items() if "values" in a}
"""
FILE = """files = [Path(cells[{column!r}]["file"]).read_bytes()]
feed[{name!r} + ".file"] = np.frombuffer(b"".join(files), np.uint8)
feed[{name!r} + ".file_size"] = np.array([len(f) for f in files])
"""
TEXT = """feed[{name!r} + ".text"] = np.array([cells[{column!r}]], dtype=object)
"""
TAIL = """feed = {i.name: feed[i.name] for i in session.get_inputs()}
for output, value in zip(session.get_outputs(), session.run(None, feed)):
    print(output.name, value.ravel()[:8], "expected", example["outputs"][output.name]["values"][0][:8])
"""


def snippet(signature: Mapping[str, Any], parts: Iterable[str], predictor: Predictor) -> str:
    """`parts`: the inputs that are embedded; the rest is taken from the example's arrays."""
    lines = HEAD
    for name in parts:
        modality = predictor.rows.modalities[name]
        lines += (TEXT if isinstance(modality, Text) else FILE).format(name=name, column=modality.columns[0])
    large = [e["name"] for e in signature["inputs"] if e["input"] not in parts and e["input"] is not None]
    if any(_is_large(e, signature) for e in signature["inputs"] if e["name"] in large):
        lines = lines.replace(' if "values" in a}', '}').replace(
            'np.array(a["values"][:1], a["dtype"])', "array(a)[:1]"
        ).replace("example = json", READER + "example = json")
    return lines + TAIL
