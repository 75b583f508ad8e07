"""`fuseline profile`: what it prints, what it writes, and what it says of what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import made
import pytest
import typer
from typer.testing import CliRunner, Result

from fuseline.cli import profile
from fuseline.cli.app import verb

Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr("fuseline.runtime.profile.SECONDS", 0.05)
    monkeypatch.setattr("fuseline.runtime.peak.SECONDS", 0.02)
    monkeypatch.setenv("COLUMNS", "120")
    app = typer.Typer()
    app.command(profile.NAME)(verb(profile.command))
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def test_it_says_where_the_time_goes(package: Path, tmp_path: Path, call: Call) -> None:
    table = made.make_table(tmp_path / "table", 10)
    out = tmp_path / "profile.json"
    result = call(package, "--data", table, "--rows", 6, "--batch", "1,3", "--threads", 1, "--json", out, "-q")
    assert result.exit_code == 0, result.output
    for word in ("batches of 1:", "batches of 3:", "picture", "note", "sound", "vitals", "fusion.head", "decode cells"):
        assert word in result.output
    assert "measured peak of products of matrices: float32" in result.output
    assert "slowest operations" in result.output
    assert "6 rows: table" in result.output
    found = json.loads(out.read_text())
    assert [b["rows"] for b in found["batches"]] == [1, 3]
    assert found["batches"][0]["parts"][0]["modules"]


def test_without_a_table_it_says_that_rows_were_made(package: Path, call: Call) -> None:
    result = call(package, "--batch", "2", "--top", 0, "--threads", 1, "--backend", "onnxruntime")
    assert result.exit_code == 0, result.output
    assert "rows were made" in result.output
    assert "not measured" in result.output
    assert "slowest" not in result.output


@pytest.mark.parametrize("batch", ["", "0", "a,b", "1,,2", "1,-4"])
def test_a_wrong_list_of_sizes_is_an_error_in_words(package: Path, call: Call, batch: str) -> None:
    result = call(package, f"--batch={batch}")
    assert result.exit_code == 2
    assert "is no list of batch sizes" in result.stderr


def test_a_backend_that_the_package_lacks_is_named(package: Path, call: Call) -> None:
    result = call(package, "--backend", "openvino")
    assert result.exit_code == 2
    assert "no graph for openvino" in result.stderr
