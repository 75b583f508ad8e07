"""Every kind of bad input gives its named error, from Python and from the command line, and never a traceback."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.testing import CliRunner

from fuseline.api import train
from fuseline.cli import app
from fuseline.errors import FuselineError


def _beside(name: str) -> ModuleType:
    """A module of this folder: pytest's importlib mode puts no folder on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


made = _beside("bad_inputs")
BAD = [name for name in made.CASES if not name.endswith(("-is-fine", "-is-absent"))]
FINE = [name for name in made.CASES if name not in BAD]


def test_there_are_many_kinds(tmp_path: Path) -> None:
    cases = made.make_bad_inputs(tmp_path)
    assert {c.name for c in cases if c.code is not None} == set(BAD)
    assert len(BAD) >= 30


@pytest.mark.parametrize("name", BAD)
def test_training_names_the_error(name: str, tmp_path: Path) -> None:
    case = made.make_bad_input(tmp_path, name)
    with pytest.raises(FuselineError) as caught:
        train(case.recipe, out=tmp_path / "run", quiet=True)
    error = caught.value
    assert error.code == case.code, str(error)
    if case.row is not None:
        assert error.row == case.row, str(error)
    if case.column is not None:
        assert error.column == case.column, str(error)
    assert error.message
    assert len(str(error)) < 3000


@pytest.mark.parametrize("name", BAD)
def test_the_command_line_prints_no_traceback(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSELINE_DEBUG", raising=False)
    case = made.make_bad_input(tmp_path, name)
    recipe = case.recipe
    if isinstance(recipe, dict):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(case.recipe), encoding="utf-8")
    result = CliRunner().invoke(app, ["train", str(recipe), "--out", str(tmp_path / "run"), "--quiet"])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert str(case.code) in result.output
    if case.column is not None:
        assert case.column in result.output


@pytest.mark.parametrize("name", FINE)
def test_what_only_looks_bad_trains(name: str, tmp_path: Path) -> None:
    case = made.make_bad_input(tmp_path, name)
    assert train(case.recipe, out=tmp_path / "run", quiet=True).metrics["parts"]["test"]["rows"] > 0
