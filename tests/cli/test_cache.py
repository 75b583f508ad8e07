"""`fuseline cache`, and where `--cache` and `fuseline.train(cache_folder=)` put things."""

from __future__ import annotations

from pathlib import Path

import made
import pytest
from kept_tokens import kept, key
from typer.testing import CliRunner

from fuseline import api
from fuseline.api.sources import with_cache_folder
from fuseline.cli.app import app
from fuseline.lab.training.disk.store import Store
from fuseline.recipe import parse_recipe


def ask(*words: str) -> str:
    result = CliRunner().invoke(app, ["cache", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kept"
    monkeypatch.setenv("FUSELINE_CACHE", str(folder))
    assert ": 0.0 MB" in ask().replace("\n", "")  # nothing there yet
    shelf = Store(folder, 16).shelf("e" * 64, {"encoder": "[b]E", "input": "photo"})
    assert all(shelf.put(key(i), kept(2000 + i)) for i in range(4))
    text = ask()
    assert "[b]E" in text
    assert "photo" in text
    assert api.kept_outputs().bytes > 100_000
    assert "removed" in ask(str(folder), "--clear")
    assert api.kept_outputs(folder).entries == []
    assert folder.exists()
    monkeypatch.setenv("FUSELINE_CACHE", "off")
    assert "off" in ask()


def test_clearing_another_folder_removes_nothing_of_it(tmp_path: Path) -> None:
    for name in ("photo.png", "a/table.csv", "a/x.index"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    ask(str(tmp_path), "--clear")
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"photo.png", "table.csv", "x.index"}


def test_a_folder_given_by_hand_goes_before_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe(made.recipe(training={"cache_folder": "/elsewhere"}))
    assert with_cache_folder(recipe, None) is recipe
    assert with_cache_folder(recipe, "off").training.cache_folder == "off"
    monkeypatch.chdir(tmp_path)
    assert with_cache_folder(recipe, "kept").training.cache_folder == str(tmp_path / "kept")


def test_a_run_that_goes_on_takes_no_other_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "--resume", str(tmp_path), "--cache", "off"])
    assert result.exit_code == 2
