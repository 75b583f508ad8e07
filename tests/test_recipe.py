"""A recipe that does not hold says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fuseline.errors import FuselineError
from fuseline.recipe import Frozen, dump_recipe, load_recipe, parse_recipe, read_options

GOOD: dict[str, Any] = {"inputs": {"note": {"modality": "text"}}, "task": {"kind": "classification", "target": "y"}}


def broken(**changes: Any) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        parse_recipe({**GOOD, **changes})
    assert caught.value.code == "bad_recipe"
    return caught.value


def test_round_trip(tmp_path: Path) -> None:
    recipe = parse_recipe({**GOOD, "fusion": {"kind": "sum", "layers": 3}})
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "r.yaml") == recipe
    assert recipe.fusion.options == {"layers": 3}
    assert recipe.columns_of("note") == ("note",)


def test_an_unknown_key_names_its_path_and_the_closest() -> None:
    assert "training.epoch: unknown key; did you mean 'epochs'?" in str(broken(training={"epoch": 3}))
    assert "tabel: unknown key; did you mean 'table'?" in str(broken(tabel={}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"a.b": {"modality": "text"}}}, "dot"),
        ({"inputs": {"present": {"modality": "text"}}}, "present"),
        ({"inputs": {"v": {"modality": "tabular"}}}, "columns"),
        ({"inputs": {"v": {"modality": "image", "columns": {"a": "number"}}}}, "column"),
        ({"split": {"kind": "group"}}, "split.group"),
        ({"split": {"kind": "time"}}, "split.time"),
        ({"split": {"kind": "given"}}, "split.column"),
        ({"split": {"val": 0.6, "test": 0.5}}, "no rows"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate"),
        ({"training": {"precision": "float8"}}, "training.precision"),
        ({"version": 2}, "version"),
    ],
)
def test_rules_between_fields(changes: dict[str, Any], words: str) -> None:
    assert words in str(broken(**changes))


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "!!python/object/apply:os.system ['true']", "\x00"])
def test_what_is_no_recipe(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(FuselineError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert caught.value.code == "bad_recipe"
    with pytest.raises(FuselineError, match="no recipe at"):
        load_recipe(tmp_path / "none.yaml")


def test_options_of_a_part() -> None:
    class Config(Frozen):
        layers: int = 2

    assert read_options(Config, {}, "fusion").layers == 2
    with pytest.raises(FuselineError, match=r"fusion\.layer: unknown key; did you mean 'layers'"):
        read_options(Config, {"layer": 3}, "fusion")


def test_a_date_without_quotes_is_a_moment() -> None:
    text = (
        "table: {path: x.csv, windows: {start: 2012-03-01, history: 2, horizon: 1}}\n"
        "inputs: {speed: {modality: timeseries}}\n"
        "task: {kind: forecast, target: speed@next}\n"
        "split: {kind: time, time: time, val_from: 2013-01-01, test_from: 2014-01-01 06:00:00}\n"
    )
    recipe = parse_recipe(yaml.safe_load(text))
    assert recipe.table.windows is not None
    assert recipe.table.windows.start == "2012-03-01"
    assert (recipe.split.val_from, recipe.split.test_from) == ("2013-01-01", "2014-01-01T06:00:00")


def test_places_are_those_of_the_yaml_and_not_of_the_types() -> None:
    base = {"inputs": {"note": {"modality": "text"}}, "task": {"kind": "classification", "target": "y"}}
    for change, words in (
        (
            {"tune": {"space": {"training.seed": 3}}},
            "tune.space.training.seed: give a section of keys, or: give a list",
        ),
        ({"training": {"unlabelled": {"threshold": "sure"}}}, "training.unlabelled.threshold: Input should be 'auto'"),
        ({"training": {"unlabelled": True}}, "training.unlabelled: give a section of keys"),
        ({"training": {"unlabelled": {"weigth": 2}}}, "training.unlabelled.weigth: unknown key; did you mean 'weight'"),
        ({"inputs": {"note": {}}}, "inputs.note.modality: Field required"),
    ):
        with pytest.raises(FuselineError) as caught:
            parse_recipe({**base, **change})
        assert words in caught.value.message
