"""The other backend: the same answers, from the bytes that were hashed, on the caller's terms."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
from runtime.graphs import sealed, with_openvino

from fuseline.errors import FuselineError
from fuseline.lab.export.parity import difference
from fuseline.modalities import MediaRoot
from fuseline.package import read_package
from fuseline.runtime import Predictor, load
from fuseline.runtime import openvino as backend_file
from fuseline.runtime.backend import open_backend
from fuseline.runtime.openvino import BLOB, GRAPH, WEIGHTS, OpenVino, import_openvino, options_for

SIZES = (1, 2, 3, 7, 64)
TOLERANCE = 1e-4


def values(predictor: Predictor, count: int, seed: int = 5) -> list[dict[str, Any]]:
    parsed = [predictor.rows.parse(row, MediaRoot()) for row in served.rows(count, seed=seed)]
    assert not any(p.error for p in parsed)
    return [p.values for p in parsed]


def gap(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(difference(a[name], b[name]) for name in a)


@pytest.mark.parametrize("size", SIZES)
def test_both_backends_give_the_same_answers(both: Path, size: int) -> None:
    one, other = (load(both, backend=b, threads=1) for b in ("onnxruntime", "openvino"))
    assert (one.backend_kind, other.backend_kind) == ("onnxruntime", "openvino")
    rows = values(one, size)
    assert gap(one.run(rows), other.run(rows)) < TOLERANCE


def test_a_row_does_not_depend_on_its_neighbours(both: Path) -> None:
    predictor = load(both, backend="openvino", threads=2)
    rows = values(predictor, 12)
    together = predictor.run(rows)
    for i, row in enumerate(rows):
        assert gap({k: v[i : i + 1] for k, v in together.items()}, predictor.run([row])) < 1e-5


@pytest.mark.parametrize("lanes", [1, 2])
def test_many_threads_at_once(both: Path, lanes: int) -> None:
    predictor = load(both, backend="openvino", threads=1, lanes=lanes)
    chunks = [values(predictor, 1 + i % 5, seed=i) for i in range(40)]
    expected = [predictor.run(chunk) for chunk in chunks]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for got, known in zip(pool.map(predictor.run, chunks), expected, strict=True):
                assert gap(got, known) < 1e-5


def test_threads_lanes_and_precision_are_as_asked(both: Path, tmp_path: Path) -> None:
    there = min(2, os.cpu_count() or 1)
    model = load(both, backend="openvino", threads=1, lanes=2).backend.model  # type: ignore[attr-defined]
    assert model.get_property("INFERENCE_NUM_THREADS") == model.get_property("NUM_STREAMS") == there
    assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    half = with_openvino(both, tmp_path / "half.fuse", runtime={"backend": "openvino", "precision": "int8+bf16"})
    predictor = load(half, threads=1)
    assert isinstance(predictor.backend, OpenVino)
    known = predictor.backend.model.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert (known == "bf16") != bool(predictor.backend.notes)  # some processors have none, and that is said
    rows = values(predictor, 8)
    assert gap(load(both).run(rows), predictor.run(rows)) < 0.5
    whole = load(half, backend="onnxruntime")  # not what was measured, and so as its graph says
    assert gap(load(both).run(rows), whole.run(rows)) == 0


class NoBfloat16:
    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["FP32", "INT8"]


def test_a_processor_without_bfloat16_computes_in_float32_and_says_so(both: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half.fuse"
    shutil.copytree(both, folder)
    sealed(folder, compression={"runtime": {"backend": "openvino", "precision": "bfloat16"}})
    options, notes = options_for(NoBfloat16(), read_package(folder), threads=1)
    assert options["INFERENCE_PRECISION_HINT"] == "f32"
    assert "no bfloat16" in notes[0]


@pytest.mark.parametrize("overflows", [True, False])
def test_int8_computes_in_float32_where_bytes_overflow(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflows: bool
) -> None:
    folder = tmp_path / "bytes.fuse"
    shutil.copytree(both, folder)
    sealed(folder, compression={"runtime": {"backend": "openvino", "precision": "int8"}})
    monkeypatch.setattr(backend_file, "_overflows", [overflows])
    options, notes = options_for(backend_file.open_core(import_openvino()), read_package(folder), threads=1)
    assert (options.get("LP_TRANSFORMS_MODE") is False) == overflows
    assert any("no VNNI" in note for note in notes) == overflows


def test_an_overflow_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenVINO itself computes, not what a processor says that it can do."""
    core = backend_file.open_core(import_openvino())
    monkeypatch.setattr(backend_file, "_overflows", [])
    flags = Path("/proc/cpuinfo")
    found = backend_file.overflows(core)
    if platform.machine() == "x86_64" and flags.exists():
        assert found != ("vnni" in flags.read_text())
    monkeypatch.setattr(backend_file, "_overflows", [])
    exact = Exact(core)
    assert not backend_file.overflows(exact)
    assert exact.compiled == 1
    assert not backend_file.overflows(exact)
    assert exact.compiled == 1, "asked once a process"


class Exact:
    """A core that computes int8 in float32, as the setting makes it."""

    def __init__(self, core: Any) -> None:
        self.core, self.compiled = core, 0

    def compile_model(self, model: Any, device: str, config: dict[str, Any]) -> Any:
        self.compiled += 1
        return self.core.compile_model(model, device, {**config, **backend_file.IN_FLOAT})


@pytest.mark.parametrize("member", [GRAPH, WEIGHTS, BLOB])
def test_what_was_changed_is_refused(compiled: Path, tmp_path: Path, member: str) -> None:
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(compiled, folder)
    package = read_package(folder)
    data = bytearray((folder / member).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / member).write_bytes(data)
    with pytest.raises(FuselineError, match=f"{member} is not the file") as caught:
        load(folder)
    assert caught.value.code == "bad_package"
    if member != BLOB:
        (folder / BLOB).unlink()
        del package.manifest["members"][BLOB]
    with pytest.raises(FuselineError, match=f"{member} is not the file"):  # changed after it was verified
        open_backend(None, package, threads=1)
    (folder / member).write_bytes(data[:-1])
    with pytest.raises(FuselineError, match=f"{member} is not the file"):
        open_backend(None, package, threads=1)


def test_files_that_change_later_change_no_answer(both: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(both, folder)
    predictor = load(folder, backend="openvino", threads=1)
    rows = values(predictor, 4)
    before = predictor.run(rows)
    for member in (GRAPH, WEIGHTS):
        with (folder / member).open("r+b") as file:
            file.write(bytes((folder / member).stat().st_size))
    assert gap(predictor.run(rows), before) == 0
    assert gap(predictor.run(values(predictor, 9)), load(both, threads=1).run(values(predictor, 9))) < TOLERANCE


def test_a_graph_that_is_no_xml_is_not_read(both: Path, tmp_path: Path) -> None:
    """OpenVINO would read an ONNX graph just as well, and with it any file that the graph names."""
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(both, folder)
    shutil.copyfile(folder / "graph.onnx", folder / GRAPH)
    with pytest.raises(FuselineError, match="is not XML") as caught:
        load(sealed(folder), backend="openvino")
    assert caught.value.code == "bad_package"


@pytest.mark.parametrize("text", [b"<?xml version='1.0'?><net", b"<net/>", b"<?xml version='1.0'?><a/>"])
def test_a_broken_graph_is_an_error_in_words(both: Path, tmp_path: Path, text: bytes) -> None:
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(both, folder)
    (folder / GRAPH).write_bytes(text)
    with pytest.raises(FuselineError, match="OpenVINO cannot load") as caught:
        load(sealed(folder), backend="openvino")
    assert caught.value.code == "bad_package"


def test_the_compiled_cache_is_used_where_it_fits(compiled: Path, both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the graph was compiled")

    monkeypatch.setattr(backend_file, "read_graph", never)
    predictor = load(compiled, threads=2)
    assert predictor.backend_kind == "openvino"
    assert predictor.backend.notes == ()
    there = min(2, os.cpu_count() or 1)
    assert predictor.backend.model.get_property("INFERENCE_NUM_THREADS") == there  # type: ignore[attr-defined]
    rows = values(predictor, 7)
    assert gap(predictor.run(rows), load(both, threads=1).run(rows)) < TOLERANCE


@pytest.mark.parametrize("fact", ["openvino", "processor", "capabilities", "precision", "graph", "weights", ""])
def test_a_cache_made_elsewhere_is_left_aside(compiled: Path, both: Path, tmp_path: Path, fact: str) -> None:
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(compiled, folder)
    head, _, blob = (folder / BLOB).read_bytes().partition(b"\n")
    foreign = json.dumps({**json.loads(head), fact: "another"}).encode() if fact else b""
    (folder / BLOB).write_bytes(foreign + b"\n" + blob)
    predictor = load(sealed(folder), threads=1)
    assert "compiled anew" in predictor.backend.notes[0]
    rows = values(predictor, 3)
    assert gap(predictor.run(rows), load(both, threads=1).run(rows)) < TOLERANCE


def test_a_cache_that_cannot_be_read_is_left_aside(compiled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(compiled, folder)
    head, _, _ = (folder / BLOB).read_bytes().partition(b"\n")
    (folder / BLOB).write_bytes(head + b"\nnonsense")
    predictor = load(sealed(folder), threads=1)
    assert "compiled anew" in predictor.backend.notes[0]
    predictor.run(values(predictor, 2))


def test_the_extra_is_named_where_it_is_missing(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(FuselineError) as caught:
        load(both, backend="openvino")
    assert caught.value.code == "missing_extra"
    assert caught.value.hint == "pip install 'fuseline[openvino]'"
    assert load(both).backend_kind == "onnxruntime"


def test_nothing_is_told_to_anybody(tmp_path: Path) -> None:
    """`import openvino` alone tells a web service of it, from a process of its own, and writes to the home folder."""
    code = """
import multiprocessing, sys, urllib.request
def never(*_, **__): raise AssertionError("it spoke")
multiprocessing.Process.start = urllib.request.urlopen = never
from fuseline.runtime.openvino import import_openvino
ov = import_openvino()
assert ov.convert_model
assert "openvino_telemetry" not in sys.modules
"""
    home = {**os.environ, "HOME": str(tmp_path)}
    home.pop("CI", None)
    subprocess.run([sys.executable, "-c", code], env=home, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []


def test_importing_leaves_other_users_of_the_telemetry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", json)
    assert import_openvino().__name__ == "openvino"
    assert sys.modules["openvino_telemetry"] is json


def test_ctrl_c_is_no_crash_after_the_plugin_has_gone() -> None:
    """OpenVINO's plugin lays a signal stack of its own under the thread that loads it, and later frees it."""
    text = (
        "import gc, signal, threading\n"
        "from fuseline.runtime.openvino import import_openvino, open_core\n"
        "held = [open_core(import_openvino())]\n"
        "def drop():\n"
        "    held.clear(); gc.collect()\n"
        "thread = threading.Thread(target=drop); thread.start(); thread.join()\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('as ever')\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "as ever\n"), done.stderr[-500:]
