"""Packages with a graph for OpenVINO beside their ONNX one, or in its place."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from fuseline.package import format as package_format
from fuseline.package import read_package
from fuseline.package.files import sha256_of
from fuseline.runtime.openvino import compiled_cache, import_openvino


def sealed(folder: Path, **json_members: Any) -> Path:
    """Write members and make the manifest fit the folder, as whoever packs a folder could."""
    for name, data in json_members.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != path)
    manifest["members"] = {
        p.relative_to(folder).as_posix(): {"sha256": sha256_of(p), "bytes": p.stat().st_size} for p in files
    }
    manifest["version"] = package_format._version(manifest["members"])
    path.write_text(json.dumps(manifest))
    return folder


def with_openvino(
    package: Path, target: Path, *, onnx: bool = True, blob: bool = False, runtime: dict[str, Any] | None = None
) -> Path:
    """A copy of `package` with an IR of its graph; without `onnx` that is the only one."""
    ov = import_openvino()
    shutil.copytree(package, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(target / "graph.onnx")
    ov.save_model(model, target / "openvino.xml", compress_to_fp16=False)
    if not onnx:
        (target / "graph.onnx").unlink()
        (target / "weights.safetensors").unlink()
    sealed(target, **({"compression": {"runtime": runtime}} if runtime else {}))
    if blob:
        (target / "openvino.blob").write_bytes(compiled_cache(read_package(target)))
        sealed(target)
    return target
