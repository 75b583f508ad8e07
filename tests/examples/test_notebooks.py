"""Every notebook's code cells run, from top to bottom, in a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.rglob("*.ipynb"))


def test_there_is_one_for_every_system() -> None:
    systems = {p.parent.name for p in EXAMPLES.rglob("__main__.py")}
    assert systems
    assert {p.parent.name for p in NOTEBOOKS} == systems


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("Agg")
    monkeypatch.chdir(path.parent)
    book = json.loads(path.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in book["cells"]), "notebooks are kept without their outputs"
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(book["cells"]):
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
