"""What a recipe says of `fusion: stacked` and `fusion: auto`, and what it means for the end-to-end part of the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fuseline.errors import FuselineError
from fuseline.lab.fusion import BOOSTED, FUSIONS
from fuseline.recipe import Component, Frozen, Recipe, read_options
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification

TASKS = ("classification", "regression")
OWN = ("base", "estimator", "linear", "trees")
ESTIMATORS = ("linear_probe", "prototypes", "trees")
"""of equals on validation rows the first one is kept: the simplest"""


FEW = 20
"""rows of a class below which a head for few rows is worth a try"""


class TreesConfig(Frozen):
    """Options of the boosted trees."""

    components: int = Field(
        32, ge=0, le=512, description="principal components kept of each input's embedding, its mean token"
    )
    probe: bool = Field(
        True,
        description="also give the trees each embedding's own linear answer, made out of fold for training rows",
    )
    iterations: int = Field(300, ge=1, le=5000, description="most rounds of boosting; each adds one tree a class")
    learning_rate: float = Field(0.05, gt=0, le=1, description="what each tree counts")
    leaves: int = Field(15, ge=2, le=255, description="most leaves of a tree")
    min_rows: int | None = Field(
        None, ge=1, description="fewest training rows of a leaf; default: a fiftieth of them, from 2 to 20"
    )
    l2: float = Field(1.0, ge=0, description="shrinks the leaves' values")
    patience: int = Field(
        30, ge=1, description="rounds without a better validation loss before stopping; the best round's trees are kept"
    )


class LinearConfig(Frozen):
    """Options of the estimators for few rows a class."""

    distance: Literal["cosine", "euclidean"] = Field(
        "cosine",
        description="cosine: each input's vector, less the training rows' mean, is brought to length 1; euclidean: it "
        "is not, and prototypes go by the squared distance",
    )


class StackedConfig(Frozen):
    """Keys of `fusion` beside those of its `base`."""

    base: Literal["sum", "concat", "gated", "low_rank", "attention", "cross_attention"] = Field(
        "attention",
        description="the fusion that is trained end to end; the other keys of `fusion` are its. stacked: only where an "
        "encoder trains (tune: lora or full)",
    )
    estimator: Literal["trees", "linear_probe", "prototypes", "auto"] = Field(
        "trees",
        description="what answers from the embeddings: boosted trees; logistic regression; class means, for a handful "
        "of rows a class (docs/few-shot.md); auto: what does best on validation rows",
    )
    linear: LinearConfig = Field(LinearConfig(), description="of linear_probe and prototypes; its keys are below")
    trees: TreesConfig = Field(TreesConfig(), description="what is boosted; its keys are below")


def boosts(recipe: Recipe) -> bool:
    """Whether trees are boosted in this recipe's run."""
    return recipe.fusion.kind in BOOSTED


def stacked_config(recipe: Recipe) -> StackedConfig:
    """The trees' side of `fusion`. Raises FuselineError ``bad_recipe``."""
    options = {k: v for k, v in recipe.fusion.options.items() if k in OWN}
    return read_options(StackedConfig, options, "fusion")


def end_to_end(recipe: Recipe) -> Recipe:
    """The recipe of the model that is trained end to end: itself, unless trees are boosted."""
    if not boosts(recipe):
        return recipe
    base = {k: v for k, v in recipe.fusion.options.items() if k not in OWN}
    return recipe.model_copy(update={"fusion": Component(kind=stacked_config(recipe).base, **base)})


def only_stacked(recipe: Recipe, estimator: str) -> Recipe:
    """The recipe of a package whose answers are an estimator's."""
    options = {**recipe.fusion.options, "estimator": estimator}
    return recipe.model_copy(update={"fusion": Component(kind="stacked", **options)})


def estimators(recipe: Recipe, task: Task) -> tuple[str, ...]:
    """Those that are fitted. Raises FuselineError ``bad_recipe`` where the one that is asked for cannot do the task."""
    asked = stacked_config(recipe).estimator
    multilabel = getattr(task, "mode", "") == "multilabel"
    chooses = task.name == TASKS[0]
    able = tuple(e for e in ESTIMATORS if e == "trees" or (chooses and not (multilabel and e == "prototypes")))
    if asked == "auto":
        return able
    if asked not in able:
        what = "several labels a row" if multilabel else f"task.kind: {task.name}"
        message = f"fusion.estimator: {asked} does not answer {what}"
        raise FuselineError("bad_recipe", message, f"choose one of {', '.join(able)}")
    return (asked,)


def few_rows(recipe: Recipe, task: Task) -> list[str]:
    """A hint where the rarest class has fewer than FEW training rows: which, and what to try."""
    if not isinstance(task, Classification) or (boosts(recipe) and stacked_config(recipe).estimator != "trees"):
        return []
    counts = {label: n for label, n in zip(task.labels, task.counts, strict=True) if n}
    few = sum(n < FEW for n in counts.values())
    if not few:
        return []
    rarest = min(counts, key=lambda label: counts[label])
    return [
        f"{few} of {len(counts)} classes have fewer than {FEW} rows to learn from ({rarest[:40]!r}: {counts[rarest]}): "
        "fusion: {kind: stacked, estimator: auto} tries heads for few rows (docs/few-shot.md)"
    ]


def check_stacked(recipe: Recipe) -> None:
    """Before anything is read. Raises FuselineError ``bad_recipe``."""
    if not boosts(recipe):
        return
    config = stacked_config(recipe)
    few = config.estimator in ("linear_probe", "prototypes")
    if few and recipe.task.kind == TASKS[1]:
        raise FuselineError(
            "bad_recipe",
            f"fusion.estimator: {config.estimator} chooses between classes; task.kind is {recipe.task.kind}",
            "choose trees or auto",
        )
    if recipe.task.kind not in TASKS:
        raise FuselineError(
            "bad_recipe",
            f"fusion: {recipe.fusion.kind} answers {' and '.join(TASKS)}, not task.kind: {recipe.task.kind}",
            f"choose one of {', '.join(FUSIONS)}",
        )
