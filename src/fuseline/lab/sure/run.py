"""Fitting and checking inside a run, and once more around a compressed package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fuseline.data.table import Table
from fuseline.lab.model import FusionModel
from fuseline.lab.sure.check import check_sure
from fuseline.lab.sure.fit import ALL_SETS_UP_TO, by_cells, calibration_rows, fit_sure, odd_of, sets_of, wants
from fuseline.lab.training.evaluate import Outputs, run_rows
from fuseline.lab.training.prepare import CALIBRATION, Prepared
from fuseline.progress import Voice
from fuseline.tasks.conformal import Key
from fuseline.tasks.slices import sliced
from fuseline.tasks.sure import Sure


def settle(prepared: Prepared, model: FusionModel, voice: Voice, *, batch_size: int) -> Sure | None:
    """Fit what the recipe asks for, on the rows for it; None where it asks for nothing."""
    if not wants(prepared.recipe.evaluation):
        return None
    rows = calibration_rows(prepared)
    outputs = run_rows(
        model, prepared.reader, rows, sets_for(prepared, rows), batch_size=batch_size, voice=voice, title="how sure"
    )
    return settle_on(prepared, outputs, prepared.profile)


def sets_for(prepared: Prepared, rows: np.ndarray) -> list[Key]:
    """The sets of inputs that these rows are shown with."""
    names = prepared.parser.names
    if len(names) <= ALL_SETS_UP_TO:
        return sets_of(names, np.zeros((0, len(names)), dtype=bool))
    present = [
        prepared.parser.present([r.values for r in prepared.reader.read(rows[i : i + 256])])
        for i in range(0, len(rows), 256)
    ]
    return sets_of(names, np.concatenate(present))


def settle_on(prepared: Prepared, outputs: Outputs, profile: Mapping[str, Any]) -> Sure:
    """The same from outputs that are there. `outputs.rows` are in whatever order."""
    spec, seed = prepared.recipe.evaluation, prepared.recipe.training.seed
    apart = bool((prepared.part[outputs.rows] == CALIBRATION).all())
    about = {
        "rows": len(outputs.rows),
        "of": "set apart" if apart else "validation",
        "ordered": prepared.recipe.split.kind == "time",
    }
    sure, notes = fit_sure(
        prepared.task,
        spec,
        prepared.parser.names,
        outputs,
        cells=by_cells(prepared, outputs.rows),
        groups=None if prepared.groups is None else prepared.groups[outputs.rows],
        seed=seed,
        odd=odd_of(prepared, profile, outputs.rows, seed) if spec.odd else {},
        about=about,
    )
    if about["ordered"] and (spec.conformal or spec.abstain):
        notes.append(
            "what is promised assumes that new rows are like the held-out ones, and time may change them: check it"
        )
    prepared.notes += notes
    return sure


def checked(prepared: Prepared, sure: Sure, outputs: Outputs) -> dict[str, Any]:
    """Whether it holds on these rows."""
    return check_sure(prepared.task, sure, prepared.parser.names, outputs, by_cells(prepared, outputs.rows))


def slice_rows(prepared: Prepared, outputs: Outputs) -> dict[str, Any]:
    """The metrics by the values of the recipe's `evaluation.slices`."""
    spec, columns = prepared.recipe.evaluation, list(dict.fromkeys(prepared.recipe.evaluation.slices))
    found = Table.rows(prepared.table.take(outputs.rows, columns))
    return sliced(
        prepared.task,
        outputs.targets,
        outputs.full,
        {c: [prepared.parser.cell(row[c]) for row in found] for c in columns},
        bootstrap=min(200, spec.bootstrap),
        seed=prepared.recipe.training.seed,
        groups=None if prepared.groups is None else prepared.groups[outputs.rows],
    )
