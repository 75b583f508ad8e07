"""model.xml and model.bin: the package's own, or made from its graph.onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.lab.export.nodes import ML
from fuseline.lab.export.onnxfile import read_graph
from fuseline.package import Package, read_member
from fuseline.runtime.openvino import GRAPH, IN_FLOAT, WEIGHTS, import_openvino, open_core, options_for

MODEL = ("model.xml", "model.bin")


def write_openvino(package: Package, folder: Path) -> str:
    """Write the two files; the backend whose graph they hold. Raises FuselineError ``export_failed``."""
    if "openvino" in package.backends:
        for member, name in zip((GRAPH, WEIGHTS), MODEL, strict=True):
            (folder / name).write_bytes(read_member(package, member))
        return "openvino"
    ov = import_openvino()
    proto = read_graph(package)  # OpenVINO follows whatever the graph names as its weights
    if any(node.domain == ML for node in proto.graph.node):
        raise FuselineError(
            "cannot_export",
            f"{package.name} answers by boosted trees (fusion: stacked), which OpenVINO does not have",
            "export it --to onnx, or train with another fusion, e.g. attention",
        )
    try:
        model = ov.convert_model(package.folder / "graph.onnx")
    except Exception as error:  # its frontend raises many private types
        raise FuselineError(
            "export_failed",
            f"OpenVINO cannot read this package's graph: {str(error).strip()[:500]}",
            "export it --to onnx, or compress the float package with --backend openvino",
        ) from error
    # Halved weights, its default, are other weights.
    ov.save_model(model, folder / MODEL[0], compress_to_fp16=False)
    return "onnxruntime"


def config_of(package: Package) -> dict[str, Any]:
    """What must be set on this machine for the exported files to answer as the package does: the number format."""
    if "openvino" not in package.backends:
        return {"INFERENCE_PRECISION_HINT": "f32"}
    options, _ = options_for(open_core(import_openvino()), package, 1)
    return {k: v for k, v in options.items() if k == "INFERENCE_PRECISION_HINT" or k in IN_FLOAT}
