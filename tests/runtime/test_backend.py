"""What runs is what was hashed, and nothing else is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import served
from onnx import TensorProto, helper

import fuseline
from fuseline.errors import FuselineError
from fuseline.package import format as package_format
from fuseline.package.files import sha256_of


def test_files_that_change_later_change_no_answer(package: Path, tmp_path: Path) -> None:
    """A deployment that copies over a package in place, under a model that runs."""
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(package, folder)
    predictor = fuseline.load(folder)
    rows = served.rows(4)
    before = predictor.predict(rows)
    weights = folder / "weights.safetensors"
    with weights.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(weights.stat().st_size - 4096))
    assert predictor.predict(rows) == before
    with pytest.raises(FuselineError, match="sha256"):
        fuseline.load(folder)


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "ABSOLUTE"])
def test_a_graph_reads_no_file_but_its_weights(package: Path, tmp_path: Path, location: str) -> None:
    """The manifest vouches for whoever wrote it, so a hostile author's graph must not read the server's files."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(package, folder)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    location = str(secret) if location == "ABSOLUTE" else location
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / "graph.onnx"
    manifest["members"]["graph.onnx"] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    manifest["version"] = package_format._version(manifest["members"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FuselineError, match="cannot load") as caught:
        fuseline.load(folder)
    assert caught.value.code == "bad_package"
