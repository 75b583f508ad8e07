"""What the protocol says of the server and its models: metadata, configuration, statistics, index. JSON values that are
also gRPC's messages, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as installed
from typing import Any

from fuseline.serve.calls import ModelInfo
from fuseline.serve.settings import Settings
from fuseline.serve.v2.infer import Core
from fuseline.serve.v2.tensors import INPUT_TYPES, output_shapes

HTTP_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics", "model_repository(index)")
GRPC_EXTENSIONS = HTTP_EXTENSIONS[1:]


def server(extensions: Sequence[str]) -> dict[str, Any]:
    return {"name": "fuseline", "version": installed("fuseline"), "extensions": list(extensions)}


def metadata(service: Core, name: str, version: str | None) -> dict[str, Any]:
    """Inputs are the model's raw columns, all optional. Raises FuselineError ``unknown_model``, ``unknown_version``."""
    info = service.info(name, version)
    versions = [m.version for m in service.models() if m.name == info.name]
    return {
        "name": info.name,
        "versions": [info.version] if version else versions,
        "platform": f"fuseline_{info.backend}",
        "inputs": [{"name": c.name, "datatype": INPUT_TYPES[c.kind][0], "shape": [-1]} for c in info.columns],
        "outputs": [{"name": n, "datatype": t, "shape": shape} for n, (t, shape) in output_shapes(info).items()],
    }


def config(info: ModelInfo, settings: Settings) -> dict[str, Any]:
    """As Triton writes a model's configuration. Its batch dimension stands in `dims`, hence max_batch_size 0."""
    parameters = {
        "task": info.task,
        "mode": info.mode,
        "classes": ",".join(info.classes),
        "max_rows": str(settings.max_rows),
        "version": info.version,
    }
    return {
        "name": info.name,
        "platform": f"fuseline_{info.backend}",
        "backend": "fuseline",
        "max_batch_size": 0,
        "input": [
            {"name": c.name, "data_type": _config_type(INPUT_TYPES[c.kind][0]), "dims": [-1], "optional": True}
            for c in info.columns
        ],
        "output": [
            {"name": n, "data_type": _config_type(t), "dims": shape} for n, (t, shape) in output_shapes(info).items()
        ],
        "parameters": {key: {"string_value": text} for key, text in parameters.items()},
    }


def _config_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def statistics(service: Core, name: str | None = None, version: str | None = None) -> dict[str, Any]:
    """Of one version, all of a model's, or all there are. Times in nanoseconds."""
    chosen = service.models()
    if name:
        first = service.info(name, version)
        chosen = [first] if version else [m for m in chosen if m.name == first.name]
    return {"model_stats": [_statistics_of(m, service.stats(m.name, m.version)) for m in chosen]}


def _statistics_of(info: ModelInfo, counts: dict[str, Any]) -> dict[str, Any]:
    none = {"count": 0, "ns": 0}
    return {
        "name": info.name,
        "version": info.version,
        "last_inference": int(counts.get("last_inference", 0)),
        "inference_count": counts["inference_count"],
        "execution_count": counts["execution_count"],
        "inference_stats": {
            "success": counts["success"],
            "fail": counts["fail"],
            "queue": counts["queue"],
            "compute_input": none,
            "compute_infer": counts["compute"],
            "compute_output": none,
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": [],
    }


def index(service: Core, *, only_ready: bool) -> list[dict[str, str]]:
    out = []
    for info in service.models():
        ready = service.ready(info.name, info.version)
        if ready or not only_ready:
            state, reason = ("READY", "") if ready else ("UNAVAILABLE", "it cannot answer now")
            out.append({"name": info.name, "version": info.version, "state": state, "reason": reason})
    return out
