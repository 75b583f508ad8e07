"""Why the worst answers are what they are: each input's share in them, for the report. Dimensions: N rows, M inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from fuseline.errors import FuselineError
from fuseline.explain.explainer import Options, Plan, finish
from fuseline.explain.quantity import choose
from fuseline.explain.schema import Explanation
from fuseline.explain.shapley import Subset, subsets
from fuseline.lab.model import FusionModel
from fuseline.lab.report.gallery import worst
from fuseline.lab.report.reasons import FILE
from fuseline.lab.steps import decoder_of
from fuseline.lab.training.evaluate import Outputs, run_rows
from fuseline.lab.training.prepare import Prepared
from fuseline.package.files import finite, write_json
from fuseline.progress import Voice
from fuseline.runtime import Answer
from fuseline.tasks import Task

MOST_INPUTS = 7
"""of models that are explained here: 128 answers a row; `fuseline explain` knows more"""


def write_reasons(
    prepared: Prepared, model: FusionModel, predictions: pl.DataFrame, folder: Path, voice: Voice
) -> None:
    """Exact Shapley values over the inputs of the rows that the report shows as worst errors, by the trained model's
    own answers without these and those inputs. Nothing is written where there is one input or too many, or an answer is
    neither a chance nor a number."""
    (folder / FILE).unlink(missing_ok=True)
    if not 2 <= len(model.names) <= MOST_INPUTS or decoder_of(model) is not None:
        return
    found = worst(predictions)
    rows = np.array([] if found is None else found.rows["row"].to_list(), dtype=np.int64)
    if not len(rows):
        return
    wanted = [tuple(n for n in model.names if n in subset) for subset in reversed(subsets(model.names))]
    size = max(64, prepared.recipe.training.batch_size)
    outputs = run_rows(model, prepared.reader, rows, wanted, batch_size=size, voice=voice, title="explaining errors")
    try:
        told = explained(prepared.task, model.names, outputs)
    except FuselineError as error:
        if error.code != "cannot_explain":
            raise
        return
    write_json(folder / FILE, finite({"rows": [row.model_dump(mode="json") for row in told]}))


def explained(task: Task, names: tuple[str, ...], outputs: Outputs) -> list[Explanation]:
    """`outputs`: for every subset of the inputs. Raises FuselineError ``cannot_explain``."""
    answers: Mapping[Subset, list[Answer]] = {
        frozenset(subset): [
            Answer(value=d.value, probabilities=d.probabilities, details=d.details) for d in task.decode(arrays)
        ]
        for subset, arrays in outputs.by_subset.items()
    }
    choose(task, answers[frozenset(names)][0])
    out = []
    for i, (row, present_M) in enumerate(zip(outputs.rows, outputs.present_NM, strict=True)):
        used = tuple(name for name, there in zip(names, present_M, strict=True) if there)
        asked = list(reversed(subsets(used)))  # the row as it is comes first
        plan = Plan(int(row), [], Options(), used, sets={subset: place for place, subset in enumerate(asked)})
        out.append(finish(plan, [answers[subset][i] for subset in asked], task))
    return out
