"""A run on videos, sets of pictures and texts, and documents: what it says of the table, and what its report shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made
import pytest

import fuseline
from fuseline.api.run import Run

SMALL: dict[str, Any] = {
    "clip": {"kind": "small", "frame": {"kind": "small", "channels": [8]}, "width": 16, "layers": 1},
    "photos": {"kind": "small", "channels": [8, 16]},
    "remarks": {"kind": "small", "width": 16},
    "form": {"kind": "small", "width": 16, "layers": 1, "patch": 16},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("media")
    table = made.make_table(folder, 36)
    inputs = {name: {**made.INPUTS[name], "encoder": encoder} for name, encoder in SMALL.items()}
    inputs["photos"]["several"] = 2
    recipe = made.recipe(
        table,
        inputs=inputs,
        training={"epochs": 1, "batch_size": 8, "precision": "float32", "loggers": []},
        evaluation={"bootstrap": 0, "degradation": False, "export": False},
    )
    return fuseline.train(recipe, out=folder / "run", quiet=True)


def test_items_left_out_are_said(run: Run) -> None:
    [note] = [n for n in run.record["notes"] if n.startswith("photos holds")]
    assert note.startswith("photos holds more than 2 items in ")


def test_a_picture_of_a_set_on_both_sides_is_a_leak(run: Run) -> None:
    leaks = json.loads((run.folder / "data.json").read_text())["leaks"]
    assert any(leak["column"] == "photos" and "an item of the same file content" in leak["message"] for leak in leaks)


def test_statistics_of_every_kind_are_kept(run: Run) -> None:
    columns = json.loads((run.folder / "data.json").read_text())["columns"]
    told = {key for column in columns for key in column["summary"]}
    assert {"clip.motion", "clip.seconds", "photos.items", "photos.left_out", "remarks.tokens", "form.words"} <= told


def test_the_report_shows_strips_and_words(run: Run) -> None:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "frames shown" in page
    assert "pictures shown" in page
    assert "The pictures of input photos" in page


@pytest.mark.parametrize("name", ["photos", "clip"])
def test_a_broken_item_stops_the_run_by_name(name: str, tmp_path: Path) -> None:
    table = made.make_table(tmp_path, 12, absent=0.0)
    (tmp_path / "media/4.png").write_bytes(b"no picture")
    (tmp_path / "media/4.gif").write_bytes((tmp_path / "media/4.gif").read_bytes()[:-40])
    inputs = {name: {**made.INPUTS[name], "encoder": SMALL[name]}}
    with pytest.raises(fuseline.FuselineError) as caught:
        fuseline.train(made.recipe(table, inputs=inputs), out=tmp_path / "run", quiet=True)
    assert (caught.value.code, caught.value.column) == ("bad_cell", name)
    assert "row 4" in str(caught.value) or caught.value.row == 4
