"""Which rows pretraining may see. Dimensions: N rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fuseline.data.moments import moments
from fuseline.data.split import Split, make_split
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.training.prepare import read_task, split_rows
from fuseline.recipe import Recipe


def unlabelled_split(recipe: Recipe, table: Table) -> Split:
    """The rows that the recipe's own training would train on, and those without a label; what it would validate on
    watches here, too, and what it would test on is not read at all: a test row whose picture was seen, even without its
    label, is no longer a new one.

    Where the table lacks the target, or holds nothing in its column, the split is made without it, and no row is kept
    for a test.
    """
    _, config = read_task(recipe)
    lacking = [c for c in config.columns if c not in table.columns]
    if not lacking:
        try:
            whole = split_rows(recipe, table)
        except FuselineError as error:
            if error.code != "no_target":
                raise
            lacking = list(config.columns)
    if lacking:
        spec = recipe.split if recipe.split.kind in ("given", "time") else recipe.split.model_copy(update={"test": 0.0})
        split = make_split(table, spec, target_column=None, stratify="none")
        note = f"the table has no {', '.join(lacking)}: rows that another training tests on must not be in it"
        split = replace(split, notes=[*split.notes, note])
    else:
        split = _with_unlabelled(recipe, table, whole) if config.columns else whole
    if recipe.split.folds:
        note = "split.folds: pretrained on one split; in other folds, rows seen here are tested on"
        split = replace(split, notes=[*split.notes, note])
    return split


def _with_unlabelled(recipe: Recipe, table: Table, whole: Split) -> Split:
    """Rows without a label join the training rows, unless their group or their moment belongs to those held out."""
    spec, part = recipe.split, whole.part.copy()
    free = part < 0
    if spec.kind == "given" or not free.any():
        return whole
    if spec.kind == "group" and spec.group:
        groups = np.array([str(v) for v in table.column(spec.group)])
        free &= ~np.isin(groups, np.unique(groups[part > 0]))
    elif spec.kind == "time" and spec.time and spec.time in table.columns:
        when = moments(table.column(spec.time))
        if (part > 0).any():
            free &= when < np.nanmin(when[part > 0])
    elif spec.kind == "time":  # windows reach into each other: what was left out stays out
        return whole
    part[free] = 0
    notes = [note for note in whole.notes if "left out" not in note]
    return Split(part, [*notes, f"{int(free.sum())} rows without a label are learned from"])
