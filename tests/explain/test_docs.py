"""docs/explanations.md names every key of the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fuseline.explain import Explanations


def test_every_key_is_in_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanations.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```text\n(\{\"format\".*?)```", page, flags=re.DOTALL)
    schema: dict[str, Any] = Explanations.model_json_schema()
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
    assert keys | {"name", "version"} == set(re.findall(r'"(\w+)"', block))
