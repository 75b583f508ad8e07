"""A package is read only if it is exactly what was written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fuseline.errors import FuselineError
from fuseline.package import FORMAT, read_buffer, read_package, write_package
from fuseline.package.files import finite, replace_folder, settle
from fuseline.recipe import dump_recipe, parse_recipe

RECIPE = parse_recipe({"inputs": {"note": {"modality": "text"}}, "task": {"kind": "classification", "target": "y"}})


def made(folder: Path, name: str = "note") -> Path:
    folder.mkdir()
    (folder / "graph.onnx").write_bytes(b"graph")
    recipe = parse_recipe({**RECIPE.model_dump(), "inputs": {name: {"modality": "text"}}})
    write_package(
        folder,
        name="demo",
        recipe_yaml=dump_recipe(recipe),
        columns={name: {"modality": "text", "state": {"tokenizer": "{}", "max_length": 8}}},
        task={"kind": "classification", "state": {}},
        extra={"metrics.json": {"x": 1}},
        card="# demo",
        fuseline_version="0",
    )
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    package = read_package(made(tmp_path / "a.fuse"))
    assert package.recipe == RECIPE
    assert package.columns["note"]["state"] == {"tokenizer": "{}", "max_length": 8}
    assert (tmp_path / "a.fuse/tokenizers/note.json").read_text() == "{}"
    assert package.read_json("metrics.json") == {"x": 1}
    assert package.read_json("nothing.json") is None


@pytest.mark.parametrize("name", ["what/why", "up\\down", "how: so", "日本語 (テキスト)", "a long question " * 20])
def test_an_input_may_be_called_anything(tmp_path: Path, name: str) -> None:
    package = read_package(made(tmp_path / "a.fuse", name))
    assert package.columns[name]["state"]["tokenizer"] == "{}"
    assert len(list((tmp_path / "a.fuse/tokenizers").iterdir())) == 1


def test_version_is_the_content(tmp_path: Path) -> None:
    a, b = read_package(made(tmp_path / "a.fuse")), read_package(made(tmp_path / "b.fuse"))
    assert a.version == b.version
    (tmp_path / "b.fuse/graph.onnx").write_bytes(b"grape")
    with pytest.raises(FuselineError, match=r"graph\.onnx is not the file"):
        read_package(tmp_path / "b.fuse")


@pytest.mark.parametrize("member", ["recipe.yaml", "columns.json", "task.json", "graph.onnx", "metrics.json"])
def test_a_changed_or_lost_member_is_named(tmp_path: Path, member: str) -> None:
    folder = made(tmp_path / "a.fuse")
    text = (folder / member).read_bytes()
    (folder / member).write_bytes(bytes([text[0] ^ 1]) + text[1:])
    with pytest.raises(FuselineError, match=member):
        read_package(folder)
    (folder / member).unlink()
    with pytest.raises(FuselineError, match=f"{member} is missing"):
        read_package(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "C:evil", "..\\x"])
def test_a_member_outside_the_package_is_refused(tmp_path: Path, name: str) -> None:
    folder = made(tmp_path / "a.fuse")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["members"][name] = {"sha256": "0", "bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FuselineError, match="outside the package"):
        read_package(folder)


def test_a_link_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "a.fuse")
    (tmp_path / "elsewhere").write_bytes(b"graph")
    (folder / "graph.onnx").unlink()
    os.symlink(tmp_path / "elsewhere", folder / "graph.onnx")
    with pytest.raises(FuselineError, match="is a link"):
        read_package(folder)


def test_another_format_says_what_to_do(tmp_path: Path) -> None:
    folder = made(tmp_path / "a.fuse")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": FORMAT + 1}))
    with pytest.raises(FuselineError, match=f"format {FORMAT + 1}") as caught:
        read_package(folder)
    assert caught.value.code == "package_version"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "nonsense", "[" * 100000])
def test_a_hostile_manifest_is_an_error_not_a_crash(tmp_path: Path, text: str) -> None:
    folder = made(tmp_path / "a.fuse")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FuselineError) as caught:
        read_package(folder)
    assert caught.value.code == "bad_package"


def test_what_is_no_package(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FuselineError):
            read_package(path)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target/who").read_text() == "new"
    os.replace(tmp_path / "target", tmp_path / "target.old")  # a kill between the two renames
    assert (settle(tmp_path / "target") / "who").read_text() == "new"


def test_finite_makes_json() -> None:
    import numpy as np

    value = {"a": float("nan"), "b": [np.float32(1.5), np.array([1.0, np.inf])], 3: np.int64(2)}
    assert finite(value) == {"a": None, "b": [1.5, [1.0, None]], "3": 2}


def with_members(folder: Path, **members: str) -> Path:
    """Add or (with "") take away members, and seal again."""
    for name, text in members.items():
        path = folder / name.replace("_", ".")
        path.write_text(text) if text else path.unlink()
    write_package(
        folder,
        name="demo",
        recipe_yaml=(folder / "recipe.yaml").read_text(),
        columns={"note": {"modality": "text", "state": {"tokenizer": "{}", "max_length": 8}}},
        task={"kind": "classification", "state": {}},
        extra={},
        card="# demo",
        fuseline_version="0",
    )
    return folder


def test_a_package_says_which_backends_it_has(tmp_path: Path) -> None:
    folder = made(tmp_path / "a.fuse")
    package = read_package(folder)
    assert (package.backends, package.backend, package.runtime) == (("onnxruntime",), "onnxruntime", {})
    assert package.precisions("onnxruntime") == {"float32"}
    with_members(folder, openvino_xml="<net/>")
    assert read_package(folder).backends == ("onnxruntime",)  # half of a graph is none
    with_members(folder, openvino_bin="weights")
    assert read_package(folder).backends == ("onnxruntime", "openvino")
    assert read_package(folder).backend == "onnxruntime"
    told = '{"runtime": {"backend": "openvino", "precision": "int8+bf16", "options": {}}}'
    with_members(folder, compression_json=told)
    package = read_package(folder)
    assert package.backend == "openvino"
    assert package.precisions("openvino") == {"int8", "bf16"}
    assert package.precisions("onnxruntime") == {"float32"}
    with_members(folder, graph_onnx="")
    package = read_package(folder)
    assert (package.backends, package.backend) == (("openvino",), "openvino")
    with pytest.raises(FuselineError, match="lists no graph"):
        with_members(folder, openvino_xml="")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not laid out"),
        ('{"runtime": []}', "not laid out"),
        ('{"runtime": {"options": 3}}', "not laid out"),
        ('{"runtime": {"backend": "tensorflow"}}', "backend 'tensorflow'"),
        ('{"runtime": {"backend": ["openvino"]}}', "which there is not"),
        ('{"runtime": {"backend": "openvino"}}', "whose graph is not there"),
        ('{"runtime": {"precision": "int8+int3"}}', "precision 'int8\\+int3'"),
        ('{"runtime": {"precision": 8}}', "precision 8"),
        ("{", "not JSON"),
    ],
)
def test_what_nobody_understands_is_refused(tmp_path: Path, text: str, said: str) -> None:
    folder = made(tmp_path / "a.fuse")
    with pytest.raises(FuselineError, match=said) as caught:
        with_members(folder, compression_json=text)
    assert caught.value.code == "bad_package"


def test_a_lineage_without_a_runtime_is_one_of_float32(tmp_path: Path) -> None:
    folder = with_members(made(tmp_path / "a.fuse"), compression_json='{"parent": "x"}')
    assert read_package(folder).runtime == {}


def test_a_buffer_is_checked_as_a_member_is(tmp_path: Path) -> None:
    folder = made(tmp_path / "a.fuse")
    package = read_package(folder)
    buffer = read_buffer(package, "graph.onnx")
    assert buffer == b"graph"
    assert isinstance(buffer, bytearray)
    for text in (b"grape", b"grap", b"graphs", b""):
        (folder / "graph.onnx").write_bytes(text)
        with pytest.raises(FuselineError, match="is not the file that was packaged"):
            read_buffer(package, "graph.onnx")
