"""A profile adds up, names every input, and counts what can be counted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import made
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import served
from onnx import TensorProto, helper
from runtime.graphs import sealed

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.package import read_package
from fuseline.package.files import finite
from fuseline.runtime import load, wire
from fuseline.runtime.flops import flops
from fuseline.runtime.nodes import FUSION, count_nodes, module_of, part_of
from fuseline.runtime.peak import measure_peak
from fuseline.runtime.profile import BETWEEN, UNNAMED, profile_package

BACKENDS = ("onnxruntime", "openvino")
NAMES = ["picture", "note", "sound", "vitals"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuseline.runtime.profile.SECONDS", 0.2)
    monkeypatch.setattr("fuseline.runtime.peak.SECONDS", 0.02)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_adds_up_and_names_every_input(both: Path, tmp_path: Path, backend: str) -> None:
    table = made.make_table(tmp_path / "table", 12, seed=6)
    found = profile_package(both, table, rows=10, batches=(1, 4), backend=backend, threads=1)
    json.dumps(finite(found), allow_nan=False)
    assert (found["backend"], found["precision"], found["threads"]) == (backend, "float32", 1)
    assert (found["source"], found["rows"], found["notes"]) == ("table", 10, [])
    assert found["peak"]["float32"] > 0
    assert found["peak"]["int8"] > 0
    assert [b["rows"] for b in found["batches"]] == [1, 4]
    for size in found["batches"]:
        assert list(size["stages"]) == ["decode", "collate", "graph", "answers"]
        assert sum(size["stages"].values()) == pytest.approx(size["seconds"])
        assert list(size["decode"]) == list(size["collate"]) == NAMES
        assert sum(size["decode"].values()) == pytest.approx(size["stages"]["decode"])
        parts = {p["name"]: p for p in size["parts"]}
        assert list(parts) == [*NAMES, FUSION, *([UNNAMED] if UNNAMED in parts else []), BETWEEN]
        assert sum(p["seconds"] for p in parts.values()) == pytest.approx(size["stages"]["graph"], rel=0.02)
        outside = sum(size["stages"][k] for k in ("decode", "collate", "answers")) / size["seconds"]
        assert sum(p["share"] for p in parts.values()) + outside == pytest.approx(1, rel=0.02)
        for name in (*NAMES, FUSION):
            part = parts[name]
            assert part["seconds"] > 0
            assert part["gflop"] > 0
            assert part["unknown"] == 0
            assert part["peak_share"] > 0
            assert 0 < len(part["modules"]) <= 10
            assert all(part_of(m["name"], NAMES) == name for m in part["modules"])
            times = [m["seconds"] for m in part["modules"]]
            assert times == sorted(times, reverse=True)
            assert sum(times) <= part["seconds"] * 1.0001
        assert size["graph"]["gflop"] == pytest.approx(sum(p.get("gflop", 0) for p in parts.values()))
        assert 0 < len(size["ops"]) <= 10


def test_both_profilers_count_the_same_work(both: Path) -> None:
    """One from the shapes that onnxruntime's trace tells, the other from the graph's own at these lengths."""
    predictor = load(both)
    parsed = [predictor.rows.parse(row, MediaRoot()).values for row in served.rows(3, absent=0)]
    arrays = predictor.rows.arrays(parsed)
    package = read_package(both)
    by_part: list[dict[str | None, float]] = []
    for backend in BACKENDS:
        (counted,) = count_nodes(backend, package, 1, [([arrays], 2)])
        assert counted.named
        assert counted.seconds > 0
        found: dict[str | None, float] = {}
        for node in counted.nodes:
            part = part_of(node.module, NAMES)
            found[part] = found.get(part, 0) + (node.flops or 0)
        assert all(node.flops is not None for node in counted.nodes)
        by_part.append(found)
    for part in (*NAMES, FUSION):
        assert by_part[0][part] == pytest.approx(by_part[1][part], rel=0.05)


def test_rows_are_made_without_a_table_and_that_is_said(both: Path) -> None:
    predictor = load(both, backend="openvino", threads=1)
    found = profile_package(predictor, batches=[2], rows=3, peak=False)
    assert found["backend"] == "openvino"
    assert found["source"] == "made"
    assert "half the longest length" in found["notes"][0]
    (size,) = found["batches"]
    assert size["stages"]["decode"] is None
    assert size["decode"] is None
    assert sum(v for v in size["stages"].values() if v) == pytest.approx(size["seconds"])
    assert found["peak"] == {}
    assert all(p.get("peak_share") is None for p in size["parts"])


def test_a_graph_without_names_is_told_by_operation_alone(package: Path, tmp_path: Path) -> None:
    """As every package was before nodes carried their module."""
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(package, folder)
    model = onnx.load(folder / "graph.onnx", load_external_data=False)
    for i, node in enumerate(model.graph.node):
        node.name = f"node_{i}"
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    found = profile_package(sealed(folder), batches=[2], threads=1, peak=False)
    assert any("export it again" in note for note in found["notes"])
    (size,) = found["batches"]
    assert [p["name"] for p in size["parts"]] == [UNNAMED, BETWEEN]
    assert size["ops"][0]["name"]


def test_rows_that_cannot_be_read_are_left_out_and_said(package: Path, tmp_path: Path) -> None:
    table = made.make_table(tmp_path / "table", 6, seed=6, absent=0)
    lines = table.read_text().splitlines()
    head = lines[0].split(",")
    at = head.index("picture")
    for i in (1, 3):
        cells = lines[i].split(",")
        cells[at] = "nowhere.png"
        lines[i] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    found = profile_package(package, table, batches=[2], threads=1, peak=False)
    assert found["rows"] == 4
    assert "2 of 6 rows left out" in found["notes"][0]
    assert "row 0" in found["notes"][0]
    table.write_text("\n".join([lines[0], lines[1]]) + "\n")
    with pytest.raises(FuselineError, match="nowhere") as caught:
        profile_package(package, table, batches=[1], peak=False)
    assert (caught.value.code, caught.value.row) == ("bad_cell", 0)


def test_inputs_that_no_row_has_are_said(package: Path) -> None:
    found = profile_package(package, [{"age": 40.0}, {"age": 50.0}], batches=[3], threads=1, peak=False)
    assert "picture, note, sound" in found["notes"][0]
    assert found["rows"] == 2  # fewer than a batch: they are taken again


@pytest.mark.parametrize(
    ("data", "options", "code"),
    [
        ([{"other": 1}], {}, "missing_column"),
        ("nowhere.csv", {}, "no_such_file"),
        (None, {"batches": []}, "bad_usage"),
        (None, {"batches": [0]}, "bad_usage"),
        (None, {"rows": 0}, "bad_usage"),
        (None, {"backend": "openvino"}, "no_graph"),
        (None, {"backend": "torch"}, "unknown_kind"),
    ],
)
def test_what_cannot_be_is_an_error_in_words(package: Path, data: Any, options: dict[str, Any], code: str) -> None:
    with pytest.raises(FuselineError) as caught:
        profile_package(package, data, **options)
    assert caught.value.code == code


def test_nothing_of_it_stays_on_disk(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    profile_package(package, batches=[1], threads=1, peak=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_peak_is_one_of_this_machine(backend: str) -> None:
    found = measure_peak(backend, 1)
    assert {"float32", "int8"} <= set(found) <= {"float32", "bfloat16", "int8"}
    assert all(0.1 < value < 1e6 for value in found.values())


def test_the_onnx_file_of_the_peak_is_a_valid_one() -> None:
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    data = wire.product_model("MatMul", wire.FLOAT, wire.FLOAT, wire.FLOAT, 4, weights.tobytes())
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    x = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    (y,) = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ weights, rtol=1e-5)


def test_a_graph_is_read_as_onnx_reads_it(package: Path) -> None:
    data = (package / "graph.onnx").read_bytes()
    theirs, ours = onnx.load_from_string(data).graph, wire.read_onnx(data)
    assert [n.name for n in ours.nodes] == [n.name for n in theirs.node]
    for mine, node in zip(ours.nodes, theirs.node, strict=True):
        assert (mine.op, mine.inputs, mine.outputs) == (node.op_type, list(node.input), list(node.output))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.INT and attribute.i >= 0:
                assert mine.attributes[attribute.name] == attribute.i
            if attribute.type == onnx.AttributeProto.STRING:
                assert mine.attributes[attribute.name] == attribute.s.decode()
    assert ours.constants == {t.name: tuple(t.dims) for t in theirs.initializer}
    with pytest.raises(ValueError, match="no protobuf"):
        wire.read_onnx(b"\x07\x07\x07")


def test_shapes_may_be_packed() -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [300, 2], [0.0] * 600)
    plain = tensor.SerializeToString()
    unpacked = b"\x08\xac\x02\x08\x02"
    assert unpacked in plain
    packed = plain.replace(unpacked, b"\x0a\x03\xac\x02\x02")
    for data in (plain, packed):
        graph = b"\x2a" + wire._encoded(len(data)) + data
        assert wire.read_onnx(b"\x3a" + wire._encoded(len(graph)) + graph).constants == {"w": (300, 2)}


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "expected"),
    [
        ("MatMul", [(2, 5, 7), (7, 3)], [(2, 5, 3)], 2 * 2 * 5 * 3 * 7),
        ("MatMul", [(2, 5, 7)], [(2, 5, 3)], None),
        ("Gemm", [(7, 5), (3, 7), (3,)], [(5, 3)], 2 * 5 * 3 * 7),  # both transposed
        ("Gemm", [(5, 5), (5, 5)], [(5, 5)], 2 * 125),
        ("FusedMatMul", [(2, 4, 5, 6), (2, 4, 9, 6)], [(2, 4, 5, 9)], 2 * 2 * 4 * 5 * 9 * 6),
        ("QLinearMatMul", [(2, 7), (), (), (7, 3), (3,), (3,), (), ()], [(2, 3)], 2 * 2 * 3 * 7),
        ("MatMulNBits", [(2, 5, 64), (3, 2, 16), (6,)], [(2, 5, 3)], 2 * 2 * 5 * 3 * 64),
        ("Conv", [(1, 3, 8, 8), (16, 3, 3, 3), (16,)], [(1, 16, 6, 6)], 2 * 16 * 36 * 27),
        ("Conv", [(1, 16, 8), (16, 1, 3)], [(1, 16, 6)], 2 * 16 * 6 * 3),  # depthwise
        ("QLinearConv", [(1, 3, 8, 8), (), (), (4, 3, 1, 1), (4,), (4,)], [(1, 4, 8, 8)], 2 * 4 * 64 * 3),
        ("GroupConvolution", [(1, 16, 8, 8), (16, 1, 1, 3, 3)], [(1, 16, 6, 6)], 2 * 16 * 36 * 9),
        ("Attention", [(2, 5, 8), (8, 24), (24,)], [(2, 5, 8)], 2 * 2 * 5 * 8 * 24 + 2 * 2 * 5 * 5 * 16),
        ("MultiHeadAttention", [(2, 5, 8), (2, 7, 8), (2, 7, 8)], [(2, 5, 8)], 2 * 2 * 5 * 7 * 16),
        ("MultiHeadAttention", [(2, 5, 1, 3, 8)], [(2, 5, 8)], None),
        ("Einsum", [(2, 5, 7), (7, 3)], [(2, 5, 3)], 2 * 2 * 5 * 7 * 3),
        ("LSTM", [(2, 5, 7), (1, 7, 28)], [(2, 5, 7)], None),
        ("Softmax", [(2, 5)], [(2, 5)], 0),
    ],
)
def test_operations_are_counted_or_unknown(
    op: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], expected: float | None
) -> None:
    assert flops(op, inputs, outputs, "bti,io->bto" if op == "Einsum" else "") == expected


def test_an_equation_that_is_no_plain_product_is_unknown() -> None:
    assert flops("Einsum", [(2, 3)], [(3, 2)], "ij->ji") is None
    assert flops("Einsum", [(2, 3), (3,)], [(2, 3)], "...i,i->...i") is None


def test_modules_and_parts() -> None:
    assert module_of("encoders.1.layer.3/node_7") == "encoders.1.layer.3"
    assert module_of("/node_7") == module_of("node_7") == module_of("other/node_7") == ""
    assert part_of("adapters.3.norm", NAMES) == "vitals"
    assert part_of("head.project", NAMES) == part_of("fusion", NAMES) == FUSION
    assert part_of("encoders.4", NAMES) is part_of("encoders.x", NAMES) is part_of("", NAMES) is None


def test_no_training_library_is_needed(both: Path) -> None:
    code = f"""
import sys
for name in ("torch", "onnx", "transformers", "nncf"):
    sys.modules[name] = None
from fuseline.runtime.profile import profile_package
import fuseline.runtime.profile as p
p.SECONDS = 0.05
print(profile_package({str(both)!r}, batches=[1], backend=sys.argv[1], threads=1, peak=False)["backend"])
"""
    for backend in BACKENDS:
        command = [sys.executable, "-W", "error", "-c", code, backend]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.strip() == backend
        assert done.stderr == ""
