"""`fuseline batch`: what it prints, how it ends, and what it says of what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import made
import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

from fuseline.cli import batch
from fuseline.cli.app import verb

Call = Callable[..., Result]


@pytest.fixture
def call() -> Call:
    app = typer.Typer()
    app.command(batch.NAME)(verb(batch.command))
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


def test_it_answers_says_how_many_and_goes_on(package: Path, tmp_path: Path, call: Call) -> None:
    table = made.make_table(tmp_path / "table", 10)
    words = (package, table, tmp_path / "out", "--shard-rows", "4", "--quiet")
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "10 rows answered, 0 with errors" in result.output
    assert "3 parts" in result.output.replace("\n", " ")
    assert pl.read_parquet(tmp_path / "out/part-*.parquet")["row"].to_list() == list(range(10))
    (tmp_path / "out/part-00001.parquet").unlink()
    result = call(*words[:-1])
    assert "2 of 3 parts are there already" in result.output
    assert call(package, table, tmp_path / "out", "-q").exit_code == 2
    assert call(package, table, tmp_path / "out", "-q", "--no-resume").exit_code == 0
    assert len(list((tmp_path / "out").glob("part-*"))) == 1


def test_rows_with_errors_end_with_status_1(package: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "table.jsonl").write_text('{"note": "calm", "age": "old"}\n{"note": "fever", "age": "40"}\n')
    absent = [w for name in ("picture", "sound", "sex", "smoker", "seen") for w in ("--absent", name)]
    result = call(package, tmp_path / "table.jsonl", tmp_path / "out", "-q", *absent)
    assert result.exit_code == 1, result.output
    assert "2 rows answered, 1 with errors" in result.output


def test_what_cannot_be_is_said_in_one_line(package: Path, tmp_path: Path, call: Call) -> None:
    table = made.make_table(tmp_path / "table", 4)
    for words, said in [
        (("--engine", "spark"), "unknown_kind"),
        (("--workers", "2"), "bad_usage"),
        (("--absent", "nota"), "unknown_column"),
    ]:
        result = call(package, table, tmp_path / "out", *words)
        assert result.exit_code == 2
        assert said in result.output
        assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()
