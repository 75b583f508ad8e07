"""What a package promises is of its own numbers: it is fitted and checked anew around the compressed graph.

A candidate of the search keeps its parent's thresholds, which hold for the parent; only what is chosen is handed out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fuseline.lab.compress.workshop import Workshop
from fuseline.lab.sure.fit import calibration_rows, wants
from fuseline.lab.sure.run import checked, sets_for, settle_on
from fuseline.lab.training.evaluate import Outputs
from fuseline.lab.training.reader import Reader
from fuseline.runtime import Predictor
from fuseline.tasks.sure import Sure

BATCH = 16


def resettled(workshop: Workshop, predictor: Predictor) -> Sure | None:
    """Calibration (left in the task), thresholds and the rest, on what the package itself says of the rows for it."""
    prepared = workshop.subject.prepared
    if not wants(prepared.recipe.evaluation):
        return None
    rows = calibration_rows(prepared)
    title = "how sure the chosen one is"
    profile = predictor.package.read_json("profile.json") or {}
    return settle_on(prepared, _outputs(workshop, predictor, rows, title), profile)


def rechecked(workshop: Workshop, predictor: Predictor, sure: Sure) -> dict[str, Any]:
    """Whether it holds on the test rows."""
    prepared = workshop.subject.prepared
    return checked(prepared, sure, _outputs(workshop, predictor, prepared.rows("test"), "checking how sure it is"))


def _outputs(workshop: Workshop, predictor: Predictor, rows: np.ndarray, title: str) -> Outputs:
    """What a package says of rows for every set of inputs, through its own backend."""
    base = workshop.subject.prepared
    reader = Reader(base.table, predictor.rows, base.task, base.reader.media, base.reader.cache)
    read = [row for row in reader.read(rows) if row.error is None and row.target is not None]
    sets = sets_for(base, rows)
    parts: dict[tuple[str, ...], list[dict[str, np.ndarray]]] = {s: [] for s in sets}
    with workshop.voice.track(title, len(read)) as advance:
        for start in range(0, len(read), BATCH):
            chunk = read[start : start + BATCH]
            for subset in sets:
                seen = [{n: v if n in subset else None for n, v in row.values.items()} for row in chunk]
                parts[subset].append(predictor.run(seen))
            advance(len(chunk))
    return Outputs(
        rows=np.array([row.index for row in read]),
        targets=np.stack([row.target for row in read if row.target is not None]),
        present_NM=predictor.rows.present([row.values for row in read]),
        by_subset={s: {k: np.concatenate([p[k] for p in got]) for k in got[0]} for s, got in parts.items()},
    )
