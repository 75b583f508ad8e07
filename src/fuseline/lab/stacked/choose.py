"""Which model a run ends with where trees are boosted: the trees, or the one trained end to end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.fit import stack
from fuseline.lab.stacked.fusion import StackedFusion
from fuseline.lab.stacked.linear import LinearHead, SideBySide
from fuseline.lab.stacked.options import boosts, end_to_end, estimators, only_stacked, stacked_config
from fuseline.lab.training.callbacks import Watch, better
from fuseline.lab.training.prepare import Prepared
from fuseline.progress import Voice
from fuseline.recipe import Recipe
from fuseline.tasks.decoding import watched

END = "end to end"
ESTIMATOR_WORDS = {"trees": "boosted trees", "linear_probe": "a linear probe", "prototypes": "prototypes"}


@dataclass
class Choice:
    """`facts` is what run.json holds as `choice`, `best` what it holds as `best`."""

    model: FusionModel
    best: dict[str, Any]
    facts: dict[str, Any]


def learns_end_to_end(prepared: Prepared) -> bool:
    """Whether a model is trained end to end. `stacked` needs that only for encoders that train; tables need none,
    since trees read their cells themselves.

    Raises FuselineError ``no_validation`` where `auto` would have nothing to choose by, ``bad_recipe`` where the
    estimator cannot do the task.
    """
    recipe = prepared.recipe
    chooses = boosts(recipe) and (recipe.fusion.kind == "auto" or len(estimators(recipe, prepared.task)) > 1)
    if chooses and not len(prepared.rows("val")):
        what = "fusion: auto" if recipe.fusion.kind == "auto" else "fusion.estimator: auto"
        message = f"{what} chooses by validation rows, and the split leaves none"
        raise FuselineError("no_validation", message, "set split.val, e.g. 0.15, or choose stacked or another fusion")
    plans = prepared.plans.values()
    trains = any(plan.modality != "tabular" and plan.tune != "frozen" for plan in plans)
    return not boosts(recipe) or recipe.fusion.kind == "auto" or trains


def choose(
    prepared: Prepared,
    base: FusionModel,
    folder: Path,
    voice: Voice,
    *,
    trained: dict[str, Any] | None,
    watch: Watch | None,
) -> Choice:
    """Boost, and with `fusion: auto` keep what does better on validation rows; of equals the one trained end to end,
    whose answers are smooth and which can be compressed. Both figures are said aloud and noted.

    `trained`: how the training of `base` ended, where there was one.
    """
    task, spec = prepared.task, prepared.recipe.training
    metric = watched(task) if spec.metric == "auto" else spec.metric
    made = stack(prepared, base, folder, voice, metric=metric)
    ours = float("nan") if made.value is None else made.value
    theirs = None if trained is None else trained["value"]
    chosen = "stacked"
    if prepared.recipe.fusion.kind == "auto" and not better(ours, theirs, made.higher_is_better):
        chosen = "end_to_end"
    facts = {"chosen": chosen, "metric": metric, "end_to_end": theirs, "stacked": made.value, **made.facts}
    note = _said(facts, auto=prepared.recipe.fusion.kind == "auto", rows=len(prepared.rows("val")))
    voice.say(f"· {note}")
    prepared.notes.append(note)
    best = {"metric": metric, "value": made.value}
    if trained is None and made.value is not None and watch is not None:
        watch(0, made.value)
    if chosen == "stacked":
        return Choice(made.model, best, facts)
    assert trained is not None
    return Choice(base, trained, facts)


def packaged(recipe: Recipe, model: FusionModel) -> Recipe:
    """The recipe that a package of `model` holds: of `auto`, what was chosen."""
    if not boosts(recipe):
        return recipe
    if not isinstance(model.fusion, (StackedFusion, SideBySide)):
        return end_to_end(recipe)
    asked = stacked_config(recipe).estimator
    if isinstance(model.fusion, StackedFusion):
        return only_stacked(recipe, "trees")
    assert isinstance(model.head, LinearHead)
    return only_stacked(recipe, model.head.kind if asked == "auto" else asked)


def _said(facts: dict[str, Any], *, auto: bool, rows: int) -> str:
    ours = ESTIMATOR_WORDS[facts["estimator"]]
    trees = f"{facts['trees']} trees" if facts["estimator"] == "trees" else ours
    trees += f" over {facts['features']} features"
    if facts["stacked"] is None:
        less = "; no validation rows said when to stop" if facts["estimator"] == "trees" else "; no validation rows"
        return f"fusion stacked: {trees}{less}"
    figures = {ESTIMATOR_WORDS[e]: value for e, value in facts["estimators"].items()} or {ours: facts["stacked"]}
    figures |= {END: facts["end_to_end"]} if facts["end_to_end"] is not None else {}
    shown = ", ".join(f"{word} {_figure(float('nan') if v is None else v)}" for word, v in figures.items())
    measured = f"{facts['metric']} of {rows} validation rows: {shown}"
    chosen = ours if facts["chosen"] == "stacked" else END
    return f"fusion auto: {chosen}, by {measured}" if auto else f"fusion stacked: {trees}; {measured}"


def _figure(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.4g}"
