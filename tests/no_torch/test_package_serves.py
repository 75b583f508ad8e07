"""A package that the main tests trained answers here, on a machine without torch.

The main run writes it (tests/demo/test_end_to_end.py) to the folder that FUSELINE_TEST_PACKAGE names, with the rows
and the answers that it gave there beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fuseline

ATOL = 1e-4
"""The same graph in the same runtime: only its thread count may differ."""


@pytest.fixture(scope="module")
def handed_over() -> Path:
    named = os.environ.get("FUSELINE_TEST_PACKAGE")
    if not named:
        pytest.skip("FUSELINE_TEST_PACKAGE names no package: run `make test`, whose main tests make one")
    folder = Path(named)
    assert (folder / "model.fuse").is_dir(), f"{folder} holds no package: the main tests should have made it"
    return folder


@pytest.fixture(scope="module")
def expected(handed_over: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((handed_over / "answers.json").read_text(encoding="utf-8"))
    assert len(said["rows"]) == len(said["answers"]) >= 8
    return said


def test_the_same_answers_without_torch(handed_over: Path, expected: dict[str, Any]) -> None:
    answers = fuseline.load(handed_over / "model.fuse").predict(expected["rows"], media=handed_over)
    for got, told in zip(answers, expected["answers"], strict=True):
        assert got.error is None
        assert got.to_dict()["used"] == told["used"]
        assert got.probabilities == pytest.approx(told["probabilities"], abs=ATOL)
    assert "torch" not in sys.modules


def test_the_program_predicts_without_torch(handed_over: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    code = "from fuseline.cli import main; main()"
    verb = ["predict", str(handed_over / "model.fuse"), str(handed_over / "table.csv"), "-o", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *verb], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    table = (handed_over / "table.csv").read_text(encoding="utf-8").splitlines()
    assert len(out.read_text(encoding="utf-8").splitlines()) == len(table)


def test_rows_to_label_are_suggested_without_torch(handed_over: Path, tmp_path: Path) -> None:
    import polars as pl

    predictor = fuseline.load(handed_over / "model.fuse")
    frame = pl.read_csv(handed_over / "table.csv", infer_schema=False).drop(predictor.task.columns)
    frame.write_csv(handed_over / "pool.csv")
    found = fuseline.suggest(predictor, handed_over / "pool.csv", 5, out=tmp_path / "label.csv", quiet=True)
    assert (len(found.rows), found.by) == (5, "badge")
    assert pl.read_csv(tmp_path / "label.csv").height == 5
    assert "torch" not in sys.modules


def test_a_changed_package_is_refused(handed_over: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "model.fuse"
    shutil.copytree(handed_over / "model.fuse", broken)
    graph = broken / "graph.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    with pytest.raises(fuseline.FuselineError):
        fuseline.load(broken)


def test_first_answer_comes_soon(handed_over: Path, expected: dict[str, Any]) -> None:
    """Load and first answer in a warm interpreter. Generous, since machines differ: a hang fails, not a slow day."""
    start = time.monotonic()
    fuseline.load(handed_over / "model.fuse").predict(expected["rows"][:1], media=handed_over)
    assert time.monotonic() - start < 20
