"""Drafts of recipes that have no single target: pairs, and several targets at once."""

from __future__ import annotations

from pathlib import Path

import made
import polars as pl
import pytest
import yaml

from fuseline import api
from fuseline.errors import FuselineError
from fuseline.recipe import parse_recipe, read_options
from fuseline.tasks import task_class


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.make_table(tmp_path_factory.mktemp("draft"), 40, absent=0.1)


def test_several_targets_are_a_task_each(table: Path) -> None:
    text, inferred = api.init(table, ["sick", "score"])
    recipe = parse_recipe(yaml.safe_load(text))
    assert recipe.task.kind == "multi"
    assert recipe.task.options["tasks"] == {
        "sick": {"kind": "classification", "target": "sick"},
        "score": {"kind": "regression", "target": "score"},
    }
    config = read_options(task_class("multi").Config, recipe.task.options, "task")
    assert config.columns == ("sick", "score")
    read = {c for name in recipe.inputs for c in recipe.columns_of(name)}
    assert not read & {"sick", "score"}
    assert {c.name for c in inferred.columns if c.kind == "target"} == {"sick", "score"}
    assert recipe.split.kind == "group"


def test_without_groups_several_targets_are_all_spread() -> None:
    frame = pl.DataFrame({"note": [f"a note of {i} words" for i in range(40)], "a": ["x", "y"] * 20, "b": range(40)})
    text, inferred = api.init(frame, ["a", "b"])
    assert parse_recipe(yaml.safe_load(text)).split.kind == "stratified"
    assert inferred.split_reason == "every part holds each target's classes in like shares"


def test_a_column_that_gives_one_target_away_is_suspected_for_all() -> None:
    frame = pl.DataFrame(
        {"copy": ["x", "y"] * 20, "a": ["x", "y"] * 20, "b": range(40), "n": [i % 7 for i in range(40)]}
    )
    _, inferred = api.init(frame, ["b", "a"])
    assert inferred["copy"].kind == "leak"


def test_a_pair_reads_its_sides_alone(table: Path) -> None:
    text, inferred = api.init(table, left=["note", "age"], right=["picture"])
    recipe = parse_recipe(yaml.safe_load(text))
    assert recipe.task.kind == "retrieval"
    assert recipe.task.options == {"left": ["note", "left_table"], "right": ["picture"]}
    assert {name: recipe.columns_of(name) for name in recipe.inputs} == {
        "note": ("note",),
        "left_table": ("age",),
        "picture": ("picture",),
    }
    assert inferred["sick"].kind == "ignored"
    assert "on neither side" in text


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        (["note"], [], "both sides"),
        (["note"], ["note"], "both sides"),
        (["gone"], ["note"], "no column 'gone'"),
        (["patient"], ["note"], "patient is no input"),
    ],
)
def test_a_pair_that_is_none_is_said(table: Path, left: list[str], right: list[str], words: str) -> None:
    with pytest.raises(FuselineError, match=words):
        api.init(table, left=left, right=right)


def test_a_pair_has_no_target(table: Path) -> None:
    with pytest.raises(FuselineError, match="has no target"):
        api.init(table, "sick", left=["note"], right=["picture"])
