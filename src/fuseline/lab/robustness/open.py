"""A finished run or a package, opened to be measured: on its own held-out rows, or on another table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fuseline.data.table import Table
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.lab.build import plan_inputs
from fuseline.lab.compress.subject import rebuild, split_of, table_of
from fuseline.lab.robustness.measure import ROWS, robustness
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.reader import Reader
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import RowParser
from fuseline.package import Package, read_package
from fuseline.progress import Voice
from fuseline.tasks import task_class


def measure_package(
    folder: Path, table: Any, *, voice: Voice, bootstrap: int = 200, most: int = ROWS
) -> dict[str, Any]:
    """Robustness of a package (or a run's folder). `table` None: the run's own test rows (its validation rows where it
    has none).

    Raises FuselineError ``no_table``, ``empty_table``, ``cannot_rebuild``, ``already_quantised``: the attack needs the
    model's gradients, so that weights and torch must be here.
    """
    package = read_package(folder)
    recipe = package.recipe
    parser = RowParser.from_states(recipe, package.columns)
    task = task_class(package.task["kind"]).from_state(package.task["state"])
    model = rebuild(package, plan_inputs(recipe), parser, task)
    given = table_of(package.folder) if table is None else table
    if given is None:
        raise FuselineError("no_table", "the run was given a table in memory", "name the table: MODEL TABLE")
    opened = open_table(given, recipe.table)
    opened.require([*parser.columns, *task.columns])
    media = MediaRoot(recipe.table.media_root or (str(opened.folder) if opened.folder else None))
    reader = Reader(opened, parser, task, media, Cache(recipe.training.cache_mb))
    of, rows = _rows(package, opened, own=table is None)
    good, bad = _readable(reader, rows, voice)
    if not len(good):
        raise FuselineError("empty_table", f"no {of} row can be read and has a target", bad)
    found = robustness(
        model,
        reader,
        good,
        radii=recipe.evaluation.radii,
        voice=voice,
        seed=recipe.training.seed,
        bootstrap=bootstrap,
        most=most,
        groups=_groups(recipe.split.group, opened),
    )
    left_out = len(rows) - len(good)
    return {**found, "of": of, **({"left_out": left_out, "first_left_out": bad} if left_out else {})}


def _rows(package: Package, table: Table, *, own: bool) -> tuple[str, np.ndarray]:
    if not own:
        return "table", np.arange(table.n_rows)
    part = split_of(package.recipe, table, package.folder).part
    for name, number in (("test", 2), ("val", 1)):
        rows = np.flatnonzero(part == number)
        if len(rows):
            return name, rows
    raise FuselineError("empty_table", "the run held no rows out", "name a table of other rows: MODEL TABLE")


def _readable(reader: Reader, rows: np.ndarray, voice: Voice) -> tuple[np.ndarray, str]:
    """The rows that can be read and have a target, and why the first of the others cannot."""
    good, first = [], ""
    with voice.track("reading cells", len(rows)) as advance:
        for start in range(0, len(rows), 256):
            for row in reader.read(rows[start : start + 256]):
                if row.error is None and row.target is not None:
                    good.append(row.index)
                else:
                    first = first or (str(row.error) if row.error else f"row {row.index} has no target")
            advance(len(rows[start : start + 256]))
    return np.array(good, dtype=int), first


def _groups(column: str | None, table: Table) -> np.ndarray | None:
    if column is None or column not in table.columns:
        return None
    _, codes = np.unique(np.array([str(v) for v in table.column(column)]), return_inverse=True)
    return codes
