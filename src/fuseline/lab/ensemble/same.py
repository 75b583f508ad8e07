"""Whether folds' models can answer as one: what each fitted on its own training rows, compared.

What a fold fitted is either in its model (medians, quantiles, deviations: each member keeps its own), or decides how a
cell is read (a vocabulary, a tokenizer), and then all members must read alike, since a package reads a cell once. Of
tables' categories the members' values are put together, and each member takes those that it never met for unseen, as
it would have alone. So no member learns anything of rows that it was not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from fuseline.errors import FuselineError
from fuseline.lab.ensemble.model import Recode
from fuseline.lab.stacked.options import boosts
from fuseline.modalities import Modality
from fuseline.modalities.tabular import Tabular
from fuseline.recipe import Recipe
from fuseline.tasks import Task

TASKS: Final = ("classification", "regression", "forecast")
IN_THE_GRAPH: Final[Mapping[str, tuple[str, ...]]] = {
    "timeseries": ("mean", "std"),
    "tabular": ("numbers", "categories", "notes"),
}
"""keys of a modality's state that do not decide how a cell is read; of tables' numbers and categories see below"""
OF_THE_TASK: Final[Mapping[str, tuple[str, ...]]] = {
    "classification": ("counts", "rows"),
    "regression": ("mean", "std"),
    "forecast": ("mean", "std", "scale"),
}
"""keys of a task's state that do not decide what its outputs mean"""


def check_ensemble(recipe: Recipe) -> None:
    """Raises FuselineError ``bad_recipe`` where folds of this recipe cannot be one package: said before training."""
    if recipe.split.folds < 2:
        raise FuselineError("bad_recipe", "an ensemble is of the folds of a cross-validation", "set split.folds")
    if recipe.task.kind not in TASKS:
        raise FuselineError(
            "bad_recipe",
            f"answers of the task {recipe.task.kind} have no mean",
            f"an ensemble is of {', '.join(TASKS)}",
        )
    if boosts(recipe):
        raise FuselineError(
            "bad_recipe", "an ensemble of boosted trees is not made", "trees are an ensemble already; fusion: attention"
        )


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raises FuselineError ``unlike_folds`` where the folds' outputs do not mean the same."""
    leave = OF_THE_TASK[tasks[0].name]
    first, *others = (_text({k: v for k, v in t.state().items() if k not in leave}) for t in tasks)
    for i, other in enumerate(others, 1):
        if other != first:
            hint = "name all classes: task.classes" if tasks[0].name == "classification" else "the same task in all"
            raise FuselineError("unlike_folds", f"folds 0 and {i} do not answer the same classes or steps", hint)


def joined(name: str, members: Sequence[Modality]) -> tuple[Modality, list[Recode] | None]:
    """One modality that reads for all members, and each one's own codes of its categories where they differ.

    Raises FuselineError ``unlike_folds``.
    """
    leave = IN_THE_GRAPH.get(members[0].name, ())
    first, *others = (_text({k: v for k, v in m.state().items() if k not in leave}) for m in members)
    numbers = [m.number_names for m in members if isinstance(m, Tabular)]
    if any(o != first for o in others) or any(n != numbers[0] for n in numbers):
        what = "tokenizer" if members[0].name in ("text", "texts", "document") else "reading"
        hint = "a pretrained encoder brings its tokenizer, or give one: inputs.NAME.tokenizer"
        raise FuselineError(
            "unlike_folds",
            f"inputs.{name}: each fold fitted its own {what} on its own training rows, so that one package cannot "
            "read a cell for all of them",
            hint if what == "tokenizer" else "serve the folds' own packages",
        )
    if not isinstance(members[0], Tabular):
        return members[0], None
    tables = [m for m in members if isinstance(m, Tabular)]
    if all(t.values == tables[0].values for t in tables):
        return members[0], None
    together = {c: list(dict.fromkeys(v for t in tables for v in t.values[c])) for c in tables[0].category_names}
    union = Tabular({**tables[0].state(), "categories": [[c, v] for c, v in together.items()]})
    return union, [Recode(_codes(together, t)) for t in tables]


def _codes(together: Mapping[str, list[str]], own: Tabular) -> np.ndarray:
    """(C, V) a member's code of every common code: 0 absent and 1 unseen stay."""
    out = np.ones((len(together), 2 + max(len(v) for v in together.values())), np.int64)
    out[:, 0] = 0
    for i, (column, values) in enumerate(together.items()):
        index = {value: k + 2 for k, value in enumerate(own.values[column])}
        out[i, 2 : 2 + len(values)] = [index.get(value, 1) for value in values]
    return out


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
