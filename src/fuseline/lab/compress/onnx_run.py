"""Runs a graph that is being rewritten: to fold constants, to calibrate, to see what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from fuseline.lab.compress.onnx_graph import INLINE, Graph
from fuseline.runtime.backend import cpu_quota
from fuseline.runtime.onnxruntime import exact_bytes

Arrays = Mapping[str, np.ndarray]
ROWS = 4
"""rows run at once: all activations of a batch are in memory at the same time, 30 to 50 MB a row for a convolutional
net at 224 pixels"""


def runner(
    graph: Graph, outputs: Sequence[str] | None = None, *, constant: bool = False
) -> Callable[[Arrays], dict[str, np.ndarray]]:
    """A function from the graph's inputs to `outputs` (default: the model's own). `constant`: they need no inputs."""
    proto = graph.proto(outputs)
    if constant:
        del proto.graph.input[:]
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_quota()
    options.enable_cpu_mem_arena = False
    exact_bytes(options)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others may need the processors
    options.log_severity_level = 3
    values = _outside(proto)  # a model inside one message may not exceed 2 GB
    if values:
        options.add_external_initializers(list(values), list(values.values()))
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    inputs = {i.name for i in session.get_inputs()}

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        assert alive is not None  # the session reads them where they lie
        return dict(zip(names, session.run(names, {k: v for k, v in arrays.items() if k in inputs}), strict=True))

    alive = values
    return run


def _outside(proto: onnx.ModelProto) -> dict[str, Any]:
    values = {}
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) >= INLINE:
            values[tensor.name] = ort.OrtValue.ortvalue_from_numpy(onnx.numpy_helper.to_array(tensor))
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="memory")
    return values


def few_rows(batches: Sequence[Arrays], rows: int = ROWS) -> Iterator[Arrays]:
    """The same rows, at most `rows` at once."""
    for batch in batches:
        count = len(batch["present"])
        for start in range(0, count, rows):
            yield {name: array[start : start + rows] for name, array in batch.items()}
