"""`fuseline explain`: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import made
import pytest
import typer
from typer.testing import CliRunner, Result

from fuseline.cli import explain
from fuseline.cli.app import verb
from fuseline.explain import Explanations


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.make_table(tmp_path_factory.mktemp("table"), 8, absent=0.0)


def call(*words: object) -> Result:
    app = typer.Typer()
    app.command(explain.NAME)(verb(explain.command))
    return CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "120"})


def test_bars_and_a_page(package: Path, table: Path, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    words = ("--rows", "1,3-4", "--inside", "--grid", 2, "--most-parts", 4, "--change", "age=70", "--html", page, "-q")
    result = call(package, table, *words)
    assert result.exit_code == 0, result.output
    for word in ("row 1:", "row 3:", "row 4:", "picture", "inside note, by word", "with age = 70", "mean of |share|"):
        assert word in result.output
    assert "row 0" not in result.output
    assert 'id="row-4"' in page.read_text(encoding="utf-8")


def test_json_is_the_schema(package: Path, table: Path) -> None:
    result = call(package, table, "--rows", "0", "--inside", "--input", "vitals", "--json", "--change", "sex=")
    assert result.exit_code == 0, result.output
    found = Explanations.model_validate_json(result.stdout)
    assert json.loads(result.stdout)["format"] == 1
    assert [p.input for p in found.rows[0].inside] == ["vitals"]
    assert found.rows[0].what_if[-1].changes == {"sex": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rows", "99"), "no row 99"),
        (("--rows", "one"), "cannot be read"),
        (("--rows", "9-3"), "is empty"),
        (("--rows", "0-99999999999999"), "more than"),
        (("--change", "age"), "COLUMN=VALUE"),
        (("--gradients",), "--inside"),
        (("--input", "note"), "--inside"),
        (("--change", "agee=3"), "'age'"),
    ],
)
def test_what_is_refused(package: Path, table: Path, words: tuple[str, ...], said: str) -> None:
    result = call(package, table, "-q", *words)
    assert result.exit_code == 2
    assert said in result.output
