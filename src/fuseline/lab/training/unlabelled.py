"""Which rows without a target may teach, and whether a recipe can have it at all. Dimensions: N rows."""

from __future__ import annotations

import numpy as np

from fuseline.data.guess import is_blank
from fuseline.data.moments import moments
from fuseline.data.split import TEST, TRAIN, UNUSED, VAL, codes_of, given_parts
from fuseline.data.table import Table, cells
from fuseline.errors import FuselineError
from fuseline.recipe import Recipe
from fuseline.tasks import Task
from fuseline.tasks.classification import Classification

TASKS = ("classification", "regression")


def check_unlabelled(recipe: Recipe) -> None:
    """Before any work. Raises FuselineError ``bad_recipe``."""
    if recipe.training.unlabelled is None:
        return
    if recipe.task.kind not in TASKS:
        raise FuselineError(
            "bad_recipe",
            f"training.unlabelled: the task {recipe.task.kind} learns nothing from rows without a target",
            f"{' and '.join(TASKS)} do; remove the section",
        )


def check_threshold(recipe: Recipe, task: Task) -> None:
    """Once the target is known. Raises FuselineError ``bad_recipe``."""
    spec = recipe.training.unlabelled
    if spec is not None and isinstance(task, Classification) and task.mode == "multilabel" and spec.threshold == "auto":
        raise FuselineError(
            "bad_recipe",
            "training.unlabelled.threshold: auto is for one class a row; these rows have several labels",
            "give a number, such as 0.95",
        )


def unlabelled_rows(recipe: Recipe, table: Table, part: np.ndarray, targets: list[str]) -> tuple[np.ndarray, list[str]]:
    """Numbers of the rows without any target that may teach, rising, and what to say of the others.

    `part` (N,) as the split made it. A row from which the split keeps training away may not come in by the back door:
    left out are rows of a group that validates or tests, of a moment not before the first such row, and those that the
    split's column names val or test.
    """
    blank = np.ones(table.n_rows, dtype=bool)
    for column in targets:
        blank &= np.array([_absent(cell, recipe.table.absent) for cell in cells(table.column(column))], dtype=bool)
    blank &= (part == UNUSED) | (part == TRAIN)
    held = blank & _held_back(recipe, table, part)
    rows, lost = np.flatnonzero(blank & ~held), int(held.sum())
    target = ", ".join(targets)
    notes = [f"{len(rows)} rows have no {target}: they train without it (training.unlabelled)"] if len(rows) else []
    if lost:
        notes.append(f"{lost} rows without {target} belong to what validates or tests by split.{recipe.split.kind}")
        notes[-1] += ": they are left out"
    return rows, notes


def _absent(cell: object, words: tuple[str, ...]) -> bool:
    return is_blank(cell) or (isinstance(cell, str) and cell.strip() in words)


def _held_back(recipe: Recipe, table: Table, part: np.ndarray) -> np.ndarray:
    """(N,) whether the split's rule would keep a row from training."""
    spec, kept = recipe.split, (part == VAL) | (part == TEST)
    nothing = np.zeros(table.n_rows, dtype=bool)
    if spec.kind == "group" and spec.group in table.columns:
        codes = codes_of(table.column(str(spec.group)))
        return np.asarray(np.isin(codes, np.unique(codes[kept & (codes >= 0)])))
    if spec.kind == "time" and spec.time in table.columns and kept.any():
        when = moments(table.column(str(spec.time)))
        return np.asarray(~(when < np.nanmin(when[kept])))  # so that a row without a moment is held back, too
    if spec.kind == "given" and spec.column in table.columns:
        return np.asarray(given_parts(table.column(str(spec.column)), str(spec.column)) > TRAIN)
    return nothing
