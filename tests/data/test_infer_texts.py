"""A target of sentences is written, one of names is chosen among."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from fuseline.data.draft import draft_recipe
from fuseline.data.infer import infer
from fuseline.data.table import Table
from fuseline.recipe import parse_recipe

ROWS = 60


def guess(targets: list[Any]) -> Any:
    return infer(Table.open(pl.DataFrame({"age": [20 + i % 50 for i in range(ROWS)], "t": targets})), "t")


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        ([f"a boat of {i} sails, on the sea" for i in range(ROWS)], "generation"),
        (
            [
                f"咳嗽和发热持续了{i}天，没有其他症状，既往体健，无手术史，无药物过敏史，饮食睡眠可，二便正常。"
                for i in range(ROWS)
            ],
            "generation",
        ),
        ([None if i % 5 == 0 else f"boat number {i} leaves the port" for i in range(ROWS)], "generation"),
        ([f"id{i}" for i in range(ROWS)], "classification"),
        ([f"a class of {i % 4} with long name" for i in range(ROWS)], "classification"),
    ],
)
def test_sentences_are_written(targets: list[Any], kind: str, tmp_path: Path) -> None:
    found = guess(targets)
    assert found.task["kind"] == kind
    recipe = parse_recipe(yaml.safe_load(draft_recipe("t.csv", found, "t")))
    assert recipe.task.kind == kind
    if kind == "generation":
        assert recipe.split.kind == "random"
        assert "texts to write" in found.task_reason
