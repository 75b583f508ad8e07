"""A package around a changed graph: everything else is its parent's, and it says what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fuseline
from fuseline.lab.compress.candidate import Candidate
from fuseline.lab.compress.subject import lineage
from fuseline.lab.export.datasheet import DATASHEET
from fuseline.package import Package, write_package
from fuseline.package.files import finite
from fuseline.recipe import dump_recipe


def seal(source: Package, folder: Path, candidate: Candidate, runtime: Mapping[str, Any]) -> Package:
    """Make a package of `folder`, which holds a graph and its weights already.

    Args:
        source: the float package that the graph was made from.
        folder: gets all other members.
        candidate: what was done.
        runtime: the backend and options that the graph is meant for.
    """
    compression = {
        **lineage(source),
        "candidate": candidate.model_dump(mode="json"),
        "words": candidate.words(),
        "runtime": dict(runtime),
    }
    return reseal(source, folder, compression=compression)


def reseal(
    source: Package,
    folder: Path,
    *,
    compression: Mapping[str, Any],
    name: str | None = None,
    card: str | None = None,
    task: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Package:
    """Write the manifest of `folder` anew, with the members of `source` that a graph needs and `extra` JSON members
    (metrics, parity, profile, sure), and its `task`, in place of its own."""
    members = {key: source.read_json(f"{key}.json") for key in ("profile", "metrics", "parity", "sure")}
    if (sheet := source.folder / DATASHEET).exists() and source.folder != folder:
        (folder / DATASHEET).write_text(sheet.read_text(encoding="utf-8"), encoding="utf-8")
    members |= extra
    return write_package(
        folder,
        name=name or source.name,
        recipe_yaml=dump_recipe(source.recipe),
        columns=source.columns,
        task=dict(task or source.task),
        extra={
            **{f"{key}.json": finite(value) for key, value in members.items() if value is not None},
            "compression.json": finite(dict(compression)),
        },
        card=card if card is not None else (source.folder / "README.md").read_text(encoding="utf-8"),
        fuseline_version=fuseline.__version__,
    )
