"""What a recipe says of `fusion: stacked` and `fusion: auto`, and what it means for the end-to-end part of the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fuseline.errors import FuselineError
from fuseline.lab.fusion import BOOSTED, FUSIONS
from fuseline.recipe import Component, Frozen, Recipe, read_options

TASKS = ("classification", "regression")
OWN = ("base", "trees")


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


class StackedConfig(Frozen):
    """Keys of `fusion` beside those of its `base`."""

    base: Literal["sum", "concat", "gated", "low_rank", "attention", "cross_attention"] = Field(
        "attention",
        description="the fusion that is trained end to end; the other keys of `fusion` are its. stacked: only where an "
        "encoder trains (tune: lora or full)",
    )
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


def only_trees(recipe: Recipe) -> Recipe:
    """The recipe of a package whose answers are the trees'."""
    return recipe.model_copy(update={"fusion": Component(kind="stacked", **recipe.fusion.options)})


def check_stacked(recipe: Recipe) -> None:
    """Before anything is read. Raises FuselineError ``bad_recipe``."""
    if not boosts(recipe):
        return
    stacked_config(recipe)
    if recipe.task.kind not in TASKS:
        raise FuselineError(
            "bad_recipe",
            f"fusion: {recipe.fusion.kind} answers {' and '.join(TASKS)}, not task.kind: {recipe.task.kind}",
            f"choose one of {', '.join(FUSIONS)}",
        )
