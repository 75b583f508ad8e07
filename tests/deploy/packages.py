"""Sealed packages that are quickly made, and a measurement that was not: writers must not wait for training."""

from __future__ import annotations

from pathlib import Path

from fuseline.deploy import Measured
from fuseline.package import write_package
from fuseline.recipe import dump_recipe, parse_recipe

MEASURED = Measured(
    base_bytes=80 * 2**20,
    loaded_bytes=100 * 2**20,
    peak_bytes=60 * 2**20,
    load_seconds=1.5,
    batch_seconds=0.4,
    batch_rows=32,
    cores=2,
)


def make(folder: Path, name: str = "chest", text: str = "") -> Path:
    """A sealed package whose graph nobody runs; `text` changes its version."""
    folder.mkdir(parents=True)
    (folder / "graph.onnx").write_bytes(b"graph" + text.encode())
    recipe = parse_recipe({"inputs": {"note": {"modality": "text"}}, "task": {"kind": "classification", "target": "y"}})
    write_package(
        folder, name=name, recipe_yaml=dump_recipe(recipe), columns={"note": {"modality": "text", "state": {}}},
        task={"kind": "classification", "state": {}}, extra={}, card="# card", fuseline_version="0",
    )  # fmt: skip
    return folder
