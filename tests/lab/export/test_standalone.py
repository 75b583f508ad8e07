"""Folders for another program: what lies in them, that they run without fuseline, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic
from runtime.graphs import sealed, with_openvino

from fuseline.errors import FuselineError
from fuseline.lab.export import parity_shapes, runners, standalone
from fuseline.lab.export.standalone import Exported, export_to
from fuseline.package import read_package
from fuseline.runtime import load

# What is not there on a user's machine; and no telemetry while we test.
BARE = ("fuseline", "torch", "onnx", "openvino_telemetry")


def snippets(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def run_bare(code: str, folder: Path, allowed: Collection[str] = ()) -> str:
    """Run Python inside the folder in a process of its own; its output."""
    head = f"import sys\nsys.modules |= dict.fromkeys({[name for name in BARE if name not in allowed]})\n"
    words = [sys.executable, "-I", "-W", "error", "-c", head + code]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def differences(said: str) -> list[float]:
    return [float(n) for n in re.findall(r"differs by (\S+)", said)]


@pytest.fixture(scope="module")
def onnx_folder(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_to(package, "onnx", tmp_path_factory.mktemp("onnx") / "out", threads=1)


def test_one_file_holds_the_model_and_the_folder_tells_the_rest(onnx_folder: Exported, package: Path) -> None:
    folder = onnx_folder.folder
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == set(onnx_folder.files)
    assert {"model.onnx", "signature.json", "example.json", "parity.json", "README.md", "tokenizers/note.json"} < names
    model = onnx.load_model(folder / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(t.external_data for t in model.graph.initializer)
    assert [p.key for p in model.metadata_props] == ["name", "version"]
    lengths = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    assert lengths == {"batch", "note.T", "sound.S"}
    assert onnx_folder.parity["max_abs_difference"] < 1e-5
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["batch_sizes"] == [1, 2, 3, 7, 64]
    assert parity["lengths"]["note.T"][0] == 1
    assert parity["lengths"]["note.T"][-1] == 16


def test_the_signature_is_the_models(onnx_folder: Exported, package: Path) -> None:
    said = json.loads((onnx_folder.folder / "signature.json").read_text(encoding="utf-8"))
    opened = runners.OnnxFile(onnx_folder.folder / "model.onnx", 1)
    assert {e["name"]: (e["dtype"], tuple(e["shape"])) for e in said["inputs"]} == opened.inputs
    assert {e["name"]: e["dtype"] for e in said["outputs"]} == {k: v[0] for k, v in opened.outputs.items()}
    assert said["lengths"]["sound.S"] == {"shortest": 800, "longest": 8000, "step": 160}
    assert said["task"]["labels"] == ["no", "yes"]
    assert said["task"]["positive"] == "yes"
    assert "softmax" in said["task"]["decode"]
    vitals = said["prepare"]["vitals"]
    assert [n["index"] for n in vitals["numbers"]] == list(range(6))
    assert vitals["numbers"][1]["part"] == "days"
    assert vitals["categories"][1]["values"] == {"false": 2, "true": 3}
    assert all(e["meaning"] for e in said["inputs"])
    assert said["model"]["version"] == read_package(package).version


def test_a_port_can_test_itself_by_the_example(onnx_folder: Exported, package: Path) -> None:
    """Its cells give its arrays, and its arrays its outputs and answers, through the package."""
    folder = onnx_folder.folder
    example = json.loads((folder / "example.json").read_text(encoding="utf-8"))
    predictor = load(package, threads=1)
    rows = [
        {k: (folder / v["file"]).read_bytes() if isinstance(v, dict) else v for k, v in row.items()}
        for row in example["cells"]
    ]
    assert rows[1]["picture"] is None
    answers = predictor.predict(rows)
    for answer, wanted in zip(answers, example["answers"], strict=True):
        assert answer.value == wanted["value"]
        assert list(answer.used) == wanted["used"]
        np.testing.assert_allclose(list(answer.probabilities.values()), list(wanted["probabilities"].values()), 1e-5)  # type: ignore[union-attr]
    assert len((folder / "example.json").read_bytes()) < 500_000


def test_the_readmes_python_runs_where_there_is_no_fuseline(onnx_folder: Exported) -> None:
    first, second = snippets(onnx_folder.folder)
    assert max(len(s.splitlines()) for s in (first, second)) <= 20
    said = run_bare(first + second, onnx_folder.folder)
    assert max(differences(said)) < 1e-5
    assert "['no'" in said or "['yes'" in said


def test_weights_may_lie_beside(package: Path, tmp_path: Path) -> None:
    done = export_to(package, "onnx", tmp_path / "out", external_data=True, threads=1)
    assert done.files["model.onnx.data"] > 10 * done.files["model.onnx"]
    assert "model.onnx.data" in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert max(differences(run_bare(snippets(tmp_path / "out")[0], tmp_path / "out"))) < 1e-5


def test_a_folder_that_holds_something_is_refused_unless_forced(
    onnx_folder: Exported, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(onnx_folder.folder, out)
    (out / "mine.txt").write_text("keep me")
    (out / "model.xml").write_text("an earlier export")
    with pytest.raises(FuselineError, match="not empty") as caught:
        export_to(package, "onnx", out)
    assert caught.value.code == "file_exists"
    _quick(monkeypatch)
    export_to(package, "onnx", out, force=True, threads=1)
    assert (out / "mine.txt").read_text() == "keep me"
    assert not (out / "model.xml").exists()
    assert not list(tmp_path.glob("*.new"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(FuselineError, match="is a file"):
        export_to(package, "onnx", tmp_path / "file", force=True)


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer comparisons, where they are not what is tested."""
    whole = parity_shapes.check_lengths

    def fewer(*args: Any, **kwargs: Any) -> Any:
        return whole(*args, **{**kwargs, "batch_sizes": (1, 3), "most_lengths": 3})

    monkeypatch.setattr(standalone, "check_lengths", fewer)


def test_rows_of_a_table_are_compared_and_written_nowhere(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)
    columns = dict.fromkeys(("picture", "sound", "sex", "smoker", "seen"))
    rows = [
        {**columns, "note": "private affairs", "age": 41.0},
        {**columns, "note": "private matters", "age": "old"},
        {**columns, "note": "beyond --rows", "age": 2.0},
    ]
    done = export_to(package, "onnx", tmp_path / "out", data=rows, rows=2, threads=1)
    plain = export_to(package, "onnx", tmp_path / "plain", threads=1)
    assert done.parity["rows"] == plain.parity["rows"] + 1
    [note] = done.notes
    assert note.startswith("1 rows of the table cannot be read, e.g. 'old' is no number")
    for path in done.folder.rglob("*.*"):
        assert b"private" not in path.read_bytes()
    with pytest.raises(FuselineError) as caught:
        export_to(package, "onnx", tmp_path / "third", data=[{"note": "a"}])
    assert caught.value.code == "missing_column"
    assert not (tmp_path / "third").exists()


def test_a_model_that_answers_otherwise_is_not_written(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = runners.OnnxFile.run
    monkeypatch.setattr(runners.OnnxFile, "run", lambda self, a: {k: v + 0.01 for k, v in true(self, a).items()})
    with pytest.raises(FuselineError, match=r"0\.01 away") as caught:
        export_to(package, "onnx", tmp_path / "out", threads=1)
    assert caught.value.code == "parity"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"to": "tensorrt"}, "unknown_kind"),
        ({"to": "openvino", "embed": True}, "bad_usage"),
        ({"to": "openvino", "external_data": True}, "bad_usage"),
        ({"to": "onnx", "out": "model.onnx"}, "bad_usage"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    package: Path, tmp_path: Path, words: dict[str, Any], code: str
) -> None:
    with pytest.raises(FuselineError) as caught:
        export_to(package, words.pop("to"), tmp_path / words.pop("out", "out"), **words)
    assert caught.value.code == code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", ["onnx", "onnxruntime_extensions"])
def test_a_missing_extra_is_named(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    true = standalone.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(
        standalone.importlib.util,  # type: ignore[attr-defined]
        "find_spec",
        lambda name: None if name == lacking else true(name),
    )
    with pytest.raises(FuselineError, match=lacking) as caught:
        export_to(package, "onnx", tmp_path / "out", embed=True)
    assert caught.value.code == "missing_extra"
    assert "fuseline[compress]" in caught.value.hint


def test_a_quantised_package_is_exported(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """graph.onnx with weights.bin beside it."""
    folder = tmp_path / "small.fuse"
    shutil.copytree(package, folder)
    onnx.save_model(onnx.load_model(package / "graph.onnx"), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx", op_types_to_quantize=["MatMul"])
    onnx.save_model(
        onnx.load_model(tmp_path / "int8.onnx"), folder / "graph.onnx", save_as_external_data=True,
        location="weights.bin", size_threshold=1024,
    )  # fmt: skip
    sealed(folder)
    _quick(monkeypatch)
    done = export_to(folder, "onnx", tmp_path / "out", threads=1)
    # Two sessions may sum floats in another order, and a number then ends on the other side of a step of uint8.
    assert done.parity["max_abs_difference"] < 5e-4
    domains = {n.op_type for n in onnx.load_model(tmp_path / "out/model.onnx").graph.node}
    assert any("Integer" in op or "Quant" in op for op in domains)


def test_a_package_of_openvino_alone_says_that_it_cannot_become_onnx(package: Path, tmp_path: Path) -> None:
    folder = with_openvino(package, tmp_path / "ov.fuse", onnx=False)
    with pytest.raises(FuselineError, match="no tool turns that into ONNX") as caught:
        export_to(folder, "onnx", tmp_path / "out")
    assert caught.value.code == "cannot_export"
    assert not (tmp_path / "out").exists()


def test_a_graph_that_names_another_file_as_its_weights_is_refused(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad.fuse"
    shutil.copytree(package, folder)
    graph = onnx.load_model(folder / "graph.onnx", load_external_data=False)
    tensor = next(t for t in graph.graph.initializer if t.external_data)
    next(e for e in tensor.external_data if e.key == "location").value = "../secret.bin"
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    (folder / "graph.onnx").write_bytes(graph.SerializeToString())
    sealed(folder)
    for to in ("onnx", "openvino"):
        with pytest.raises(FuselineError, match="no weights of this package") as caught:
            export_to(folder, to, tmp_path / "out")
        assert caught.value.code == "bad_package"
