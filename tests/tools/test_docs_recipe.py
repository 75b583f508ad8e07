"""docs/recipe.md is what the code says now, and its example is a recipe."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from fuseline.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_recipe", ROOT / "tools" / "docs_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool: ModuleType) -> None:
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run `make docs`"


def test_the_example_is_a_recipe(tool: ModuleType) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", tool.HEAD, re.DOTALL)
    assert set(parse_recipe(yaml.safe_load(example)).inputs) == {"xray", "note", "vitals"}
