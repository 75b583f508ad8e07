"""What runs is what was hashed, and nothing else is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import served
from onnx import TensorProto, helper
from runtime.graphs import sealed

import fuseline
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.serve.describe import describe


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
    with pytest.raises(FuselineError, match="cannot load") as caught:
        fuseline.load(sealed(folder))
    assert caught.value.code == "bad_package"


def test_weights_of_a_quantised_graph_are_handed_over_too(package: Path, tmp_path: Path) -> None:
    """`weights.bin` beside or in place of `weights.safetensors`: both are members, and no other file is read."""
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(package, folder)
    model = onnx.load(folder / "graph.onnx", load_external_data=False)
    moved = 0
    for i, tensor in enumerate(model.graph.initializer):
        for entry in tensor.external_data:
            if entry.key == "location" and i % 2:
                entry.value = "weights.bin"
                moved += 1
    assert moved
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    shutil.copyfile(folder / "weights.safetensors", folder / "weights.bin")
    rows = served.rows(4)
    assert fuseline.load(sealed(folder)).predict(rows) == fuseline.load(package).predict(rows)


def test_a_backend_is_chosen_by_the_package_unless_told(package: Path, both: Path, tmp_path: Path) -> None:
    assert fuseline.load(both).backend_kind == "onnxruntime"
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(both, folder)
    sealed(folder, compression={"runtime": {"backend": "openvino", "precision": "float32"}})
    assert fuseline.load(folder).backend_kind == "openvino"
    assert fuseline.load(folder, backend="onnxruntime").backend_kind == "onnxruntime"
    with pytest.raises(FuselineError, match="no graph for openvino") as caught:
        fuseline.load(package, backend="openvino")
    assert caught.value.code == "no_graph"
    assert "runs with onnxruntime" in caught.value.hint
    with pytest.raises(FuselineError, match="openvino") as caught:
        fuseline.load(both, backend="openvin")
    assert caught.value.code == "unknown_kind"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_arrays_that_the_graph_does_not_read_are_left_aside(both: Path, backend: str) -> None:
    predictor = fuseline.load(both, backend=backend)
    parsed = [predictor.rows.parse(row, MediaRoot()).values for row in served.rows(2)]
    arrays = predictor.rows.arrays(parsed)
    known = predictor.backend.run(arrays)
    assert set(known) == {"logits", "embedding"}
    more = predictor.backend.run({**arrays, "another": np.zeros(3, dtype=np.float32)})
    assert all((known[k] == more[k]).all() for k in known)


def test_a_description_names_what_runs(both: Path) -> None:
    assert describe(fuseline.load(both, backend="openvino")).to_dict()["backend"] == "openvino"
    assert describe(fuseline.load(both)).backend == "onnxruntime"
