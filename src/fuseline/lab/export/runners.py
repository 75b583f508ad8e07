"""An exported file, opened with nothing but the runtime that it is for: as its user will open it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.runtime.backend import OUTPUT
from fuseline.runtime.onnxruntime import exact_bytes
from fuseline.runtime.openvino import import_openvino, open_core

Port = tuple[str, tuple[int | str, ...]]
"""dtype and shape; a size that varies is a string"""


class OnnxFile:
    """model.onnx (a path, or its content) in onnxruntime on the CPU. `extensions`: the library of ONNX Runtime
    Extensions, registered."""

    def __init__(self, model: Path | bytes, threads: int, *, extensions: str | None = None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        exact_bytes(options)
        options.log_severity_level = 4  # what fails raises as well
        if extensions is not None:
            options.register_custom_ops_library(extensions)
        try:
            source = model if isinstance(model, bytes) else str(model)
            self.session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen private types
            raise FuselineError(
                "export_failed", f"onnxruntime cannot load the exported model: {str(error)[:500]}", "report this"
            ) from error
        self.inputs: dict[str, Port] = {i.name: (_dtype(i.type), tuple(i.shape)) for i in self.session.get_inputs()}
        self.outputs: dict[str, Port] = {o.name: (_dtype(o.type), tuple(o.shape)) for o in self.session.get_outputs()}

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feed = {k: v for k, v in arrays.items() if k in self.inputs}
        values = self.session.run(list(self.outputs), feed)
        return {n.removeprefix(OUTPUT): v for n, v in zip(self.outputs, values, strict=True)}


class OpenVinoFile:
    """model.xml in OpenVINO on the CPU. `config`: as a user must set it to get these answers."""

    def __init__(self, path: Path, threads: int, config: Mapping[str, Any]) -> None:
        core = open_core(import_openvino())
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        try:
            self.model = core.compile_model(core.read_model(path), "CPU", {**options, **config})
        except RuntimeError as error:
            raise FuselineError(
                "export_failed", f"OpenVINO cannot load the exported {path.name}: {str(error)[:500]}", "report this"
            ) from error
        self.inputs = {name: _port(i) for i in self.model.inputs for name in i.get_names()}
        self.outputs = {_name(o): _port(o) for o in self.model.outputs}

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feed = {k: v for k, v in arrays.items() if k in self.inputs}
        values = self.model.create_infer_request().infer(feed)
        out = {n.removeprefix(OUTPUT): np.array(values[i]) for i, n in enumerate(self.outputs)}
        self.model.release_memory()
        return out


def _dtype(kind: str) -> str:
    """ONNX Runtime's `tensor(float)` as numpy's name."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _name(port: Any) -> str:
    return str(sorted(port.get_names(), key=lambda name: (not name.startswith(OUTPUT), name))[0])


def _port(port: Any) -> Port:
    shape = tuple(d.get_length() if d.is_static else "?" for d in port.get_partial_shape())
    dtype = port.get_element_type()
    return str(np.dtype(dtype.to_dtype())), shape
