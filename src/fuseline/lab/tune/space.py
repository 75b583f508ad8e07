"""What a search may change in a recipe: paths into it, and the values that each may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fuseline.errors import FuselineError
from fuseline.lab.build import plan_inputs
from fuseline.lab.fusion import FUSIONS
from fuseline.lab.pretrain.init import describe_fusion
from fuseline.lab.stacked.options import boosts, stacked_config
from fuseline.recipe import Numbers, Recipe, parse_recipe

Space = dict[str, Numbers | tuple[Any, ...]]
"""path -> a range, or choices"""


class Trial(Protocol):
    """What of an Optuna trial is used."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def default_space(recipe: Recipe) -> Space:
    """What is worth trying for any recipe: how fast it learns, how much it is held back, and how inputs are fused."""
    rate = recipe.training.learning_rate
    space: Space = {
        "training.learning_rate": Numbers(low=rate / 10, high=rate * 10, log=True),
        "training.weight_decay": Numbers(low=1e-4, high=0.3, log=True),
        "training.batch_size": (16, 32, 64, 128),
        "fusion.width": (64, 128, 256),
        "fusion.input_dropout": Numbers(low=0.0, high=0.6),
        "fusion.head_dropout": Numbers(low=0.0, high=0.5),
        "fusion.modality_dropout": Numbers(low=0.0, high=0.5),
    }
    # Options of one kind of fusion alone would not hold for another.
    own = set(recipe.fusion.options) - {"width", "input_dropout", "head_dropout", "modality_dropout", "dropout"}
    if boosts(recipe) and stacked_config(recipe).estimator in ("linear_probe", "prototypes"):
        space["fusion.linear.distance"] = ("cosine", "euclidean")
    elif boosts(recipe):
        space |= {
            "fusion.trees.learning_rate": Numbers(low=0.02, high=0.2, log=True),
            "fusion.trees.leaves": (4, 8, 15, 31),
            "fusion.trees.components": (8, 16, 32, 64),
        }
    elif not own:
        space["fusion.kind"] = tuple(FUSIONS)
    if recipe.task.kind == "classification":
        space["task.label_smoothing"] = Numbers(low=0.0, high=0.2)
    return space


def read_space(recipe: Recipe) -> Space:
    """The recipe's own space, or the default one. Raises FuselineError ``bad_recipe`` where a path leads nowhere."""
    if recipe.tune is None or not recipe.tune.space:
        return default_space(recipe)
    space: Space = dict(recipe.tune.space)
    for path, values in space.items():
        if path.split(".")[0] in ("version", "table", "split", "evaluation", "tune") or path == "task.target":
            message = f"tune.space: {path} decides what is measured, so that trials could not be compared"
            raise FuselineError("bad_recipe", message, "paths into inputs, task, fusion and training")
        _check(recipe, path, values)
    return space


def _check(recipe: Recipe, path: str, values: Numbers | tuple[Any, ...]) -> None:
    """That the recipe takes each choice, and the ends and the middle of a range: said now, not in every trial."""
    if values == ():
        raise FuselineError("bad_recipe", f"tune.space: {path} has no value to try", "list some, or remove it")
    for value in values if isinstance(values, tuple) else (values.low, values.high, _between(values)):
        try:
            changed = apply(recipe, {path: value})
            plan_inputs(changed)
            describe_fusion(changed, tuple(changed.inputs))
        except FuselineError as error:
            if error.code not in ("bad_recipe", "unknown_kind"):
                continue  # of this machine; a trial will say it
            whole = isinstance(values, Numbers) and value not in (values.low, values.high)
            hint = "say `whole: true` for whole numbers" if whole else error.hint
            raise FuselineError("bad_recipe", f"tune.space: {path}: {value!r}: {error.message}", hint) from None


def _between(values: Numbers) -> float:
    middle = values.low + (values.high - values.low) * 0.37
    return float(round(middle)) if values.whole else middle


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """One value for each path."""
    out: dict[str, Any] = {}
    for path, values in space.items():
        if isinstance(values, tuple):
            out[path] = trial.suggest_categorical(path, list(values))
        elif values.whole:
            out[path] = trial.suggest_int(path, round(values.low), round(values.high), log=values.log)
        else:
            out[path] = float(f"{trial.suggest_float(path, values.low, values.high, log=values.log):.4g}")
    return out


def apply(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at some paths. Raises FuselineError ``bad_recipe``."""
    data = recipe.model_dump()
    for path, value in changes.items():
        place, *rest = path.split(".")
        node: Any = data
        for step in (place, *rest[:-1]) if rest else ():
            node = node.setdefault(step, {}) if isinstance(node, dict) else None
        if not rest or not isinstance(node, dict) or (place == "inputs" and rest[0] not in recipe.inputs):
            raise FuselineError("bad_recipe", f"tune.space: {path} leads nowhere", "e.g. training.learning_rate")
        node[rest[-1]] = value
    return parse_recipe(data)
