"""model.xml and model.bin: they run in plain OpenVINO and answer as the package."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lab.export.test_standalone import differences, run_bare, snippets
from runtime.graphs import sealed, with_openvino

from fuseline.errors import FuselineError
from fuseline.lab.encoders.tabular import SmallTabular, SmallTabularConfig
from fuseline.lab.export.standalone import export_to
from fuseline.modalities import MediaRoot
from fuseline.modalities.tabular import Tabular, TabularConfig
from fuseline.runtime.openvino import import_openvino, open_core


def test_the_readmes_python_runs_in_plain_openvino(package: Path, tmp_path: Path) -> None:
    done = export_to(package, "openvino", tmp_path / "out", threads=1)
    assert done.parity["max_abs_difference"] < 1e-4
    assert {"model.xml", "model.bin", "signature.json"} < set(done.files)
    first, second = snippets(done.folder)
    said = run_bare(first + second, done.folder)
    assert max(differences(said)) < 1e-5
    assert "['no'" in said or "['yes'" in said


def test_a_packages_own_graph_is_taken(package: Path, tmp_path: Path) -> None:
    folder = with_openvino(package, tmp_path / "ov.fuse", onnx=False)
    done = export_to(folder, "openvino", tmp_path / "out", threads=1)
    for suffix in ("xml", "bin"):
        assert (done.folder / f"model.{suffix}").read_bytes() == (folder / f"openvino.{suffix}").read_bytes()
    assert done.parity["max_abs_difference"] < 1e-5


def test_a_graph_that_openvino_cannot_read_is_said(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd.fuse"
    shutil.copytree(package, folder)
    graph = onnx.load_model(folder / "graph.onnx", load_external_data=False)
    graph.graph.node[-1].domain = "nobody.knows"
    (folder / "graph.onnx").write_bytes(graph.SerializeToString())
    sealed(folder)
    with pytest.raises(FuselineError, match="OpenVINO cannot read") as caught:
        export_to(folder, "openvino", tmp_path / "out")
    assert caught.value.code == "export_failed"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["piecewise", "linear", "periodic"])
def test_large_numbers_of_small_spread_keep_their_digits(kind: str, tmp_path: Path) -> None:
    """OpenVINO makes one product and one sum of a subtraction and a division that follow each other: x / s - c / s.
    Of a million with a spread of 1 nothing was left, a tenth of a token's size.
    """
    rng = np.random.default_rng(0)
    for base, spread in ((9_000, 1), (1e6, 1), (1.7e9, 86_400)):
        cells = [{"x": float(base + spread * rng.random())} for _ in range(200)]
        modality = Tabular.fit(TabularConfig(), {"x": "number"}, cells, MediaRoot(None))
        torch.manual_seed(0)
        encoder = SmallTabular(SmallTabularConfig(numbers=kind, layers=0), modality).eval()  # type: ignore[arg-type]
        numbers = torch.tensor(base + spread * rng.random((5, 1)), dtype=torch.float32)
        ov = import_openvino()
        example = {"numbers": numbers, "numbers_present": torch.ones(5, 1, dtype=torch.bool)}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            wanted = encoder(**example).values_BTD.numpy()
            program = torch.onnx.export(
                encoder, (), kwargs=example, dynamo=True, verbose=False, input_names=list(example)
            )
        assert program is not None
        program.save(tmp_path / "tabular.onnx")
        model = open_core(ov).compile_model(
            ov.convert_model(tmp_path / "tabular.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        got = model({k: v.numpy() for k, v in example.items()})[0]
        np.testing.assert_allclose(got, wanted, atol=1e-5)
