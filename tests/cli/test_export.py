"""`fuseline export`: what it prints, how it ends, and what it says of what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import made
import pytest
import typer
from typer.testing import CliRunner, Result

from fuseline.cli import export
from fuseline.cli.app import verb

Call = Callable[..., Result]


@pytest.fixture
def call() -> Call:
    app = typer.Typer(rich_markup_mode="markdown")
    app.command(export.NAME)(verb(export.command))
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def test_it_says_what_was_written_how_large_and_how_near(package: Path, tmp_path: Path, call: Call) -> None:
    table = made.make_table(tmp_path / "table", 10)
    words = (package, "--to", "onnx", "-o", tmp_path / "out", "--threads", "1", "--data", table, "--rows", "8")
    result = call(*words, "--embed", "--quiet")
    assert result.exit_code == 0, result.output
    for said in (
        f"written to {tmp_path / 'out'}",
        "model.onnx: 3.",
        "batches of 1, 2, 3, 7, 64 rows",
        "allowed 0.001",
        "note.T: lengths 1, 2,",
        "embedded: note: ids equal on",
        "picture: EXIF orientation is not applied",
        "left out: vitals: ",
    ):
        assert said in result.output
    again = call(*words)
    assert again.exit_code == 2
    assert "file_exists" in again.output
    assert "--force" in again.output


def test_openvino_too(package: Path, tmp_path: Path, call: Call) -> None:
    result = call(package, "--to", "openvino", "--out", tmp_path / "out", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "model.bin: 3." in result.output
    assert "comparing" not in result.stdout  # progress is not output


def test_what_cannot_be_is_said_in_one_line(package: Path, tmp_path: Path, call: Call) -> None:
    for words, said in [
        ((package, "--to", "coreml", "-o", tmp_path / "out"), "unknown_kind"),
        ((package, "--to", "openvino", "--embed", "-o", tmp_path / "out"), "bad_usage"),
        ((tmp_path / "none.fuse", "--to", "onnx", "-o", tmp_path / "out"), "no_such_file"),
        ((package, "--to", "onnx", "-o", tmp_path / "out", "--data", tmp_path / "none.csv"), "no_such_file"),
    ]:
        result = call(*words, "-q")
        assert result.exit_code == 2, result.output
        assert said in result.output
        assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_the_help_teaches(call: Call) -> None:
    said = " ".join(call("--help").output.split())
    for word in ("model.onnx", "signature.json", "example.json", "parity.json", "--embed", "Example:"):
        assert word in said
