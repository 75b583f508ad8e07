"""A rewritten ONNX graph as OpenVINO's openvino.xml and openvino.bin.

OpenVINO reads what onnxruntime runs and makes its own kernels of it: QDQ becomes int8 convolutions and products,
MatMulNBits products with u8 or u4 weights. So both backends compute with the same numbers, and rounding, its exceptions
and its calibration are written once. NNCF, OpenVINO's own quantiser, was measured beside it on MiniLM with
EfficientNet-Lite0 (milliseconds of one processor for one row and eight; mean change of the probability):

    float32                 41.7   333            bfloat16         24.6   172   0.0040
    int8 by NNCF            17.4   118   0.0130   int8 as here     16.8   119   0.0071
    weights-int8 by NNCF    27.6   225   0.0065   as here          27.3   218   0.0072

(NNCF: preset mixed, model type transformer, SmoothQuant, fast bias correction; 64 rows in both.) It took three times as
long, and a part would be chosen by other names than in ONNX.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.lab.compress.onnx_graph import GRAPH

FILES = ("openvino.xml", "openvino.bin")


def library() -> Any:
    """The module `openvino`. Raises FuselineError ``missing_extra``."""
    from fuseline.runtime.openvino import import_openvino

    try:
        return import_openvino()
    except FuselineError:
        raise FuselineError(
            "missing_extra", "this needs OpenVINO, which is not installed", "pip install 'fuseline[compress]'"
        ) from None


def convert(source: Path, target: Path, *, half: bool) -> tuple[str, ...]:
    """Write `source`/graph.onnx (and what it refers to) into `target`. Names of nodes, inputs and outputs stay.

    `half`: store what is in float as float16: half the file, and as exact as the bfloat16 that it is computed in. With
    float32 arithmetic it would cost time: a table of words is widened as a whole at every run.

    Raises FuselineError ``quantise_failed`` where OpenVINO knows some node not.
    """
    ov = library()
    try:
        model = ov.convert_model(source / GRAPH)
    except Exception as error:  # of many private types
        raise FuselineError(
            "quantise_failed", f"OpenVINO cannot read the graph: {str(error)[:500]}", "use the backend onnxruntime"
        ) from None
    model.set_friendly_name("fuseline")
    told = model.get_rt_info()  # paths of this machine among it
    for key in list(told):
        del told[key]
    # Nodes that have no name of their own are numbered by how many this process has made before.
    for place, node in enumerate(model.get_ordered_ops()):
        counted = re.fullmatch(r"([A-Z][A-Za-z0-9]*)_\d+", node.get_friendly_name())
        if counted:
            node.set_friendly_name(f"{counted[1]}_{place}")
    ov.save_model(model, target / FILES[0], compress_to_fp16=half)
    return FILES
