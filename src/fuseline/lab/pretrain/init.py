"""`init:`: what of a pretrained folder a recipe can take, and taking it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.model import FusionModel
from fuseline.lab.pretrain.folder import FILE, WEIGHTS, PretrainedFolder, read_folder
from fuseline.lab.training.checkpoint import trained_names
from fuseline.package.files import replace_folder
from fuseline.recipe import Recipe

if TYPE_CHECKING:
    from fuseline.lab.build import Plan

COPY = "init"
"""a run's own copy of what it began from: it goes on where the original is gone"""
LOOSE = frozenset(("dropout", "token_dropout", "feature_dropout", "modality_dropout", "augment", "mirror"))
"""options that change how weights are trained, and not what they mean"""


@dataclass
class Begun:
    """`why_not`: of each input of the recipe, and of `fusion`, why it cannot be taken; "" where it can."""

    source: PretrainedFolder
    why_not: dict[str, str]
    fusion_why_not: str
    loaded: dict[str, int] = field(default_factory=dict)
    """part -> numbers that were loaded"""

    def state(self, name: str) -> dict[str, Any]:
        return dict(self.source.inputs[name]["state"])

    @property
    def taken(self) -> tuple[str, ...]:
        """Inputs whose state, and as a rule whose weights, are taken."""
        return tuple(name for name, why in self.why_not.items() if not why)

    @property
    def said(self) -> str:
        took = ", ".join(self.loaded)
        missed = [f"{name} ({why})" for name, why in {**self.why_not, "fusion": self.fusion_why_not}.items() if why]
        return f"began from pretrained {took}" + (f"; not taken: {', '.join(missed)}" if missed else "")

    def to_dict(self) -> dict[str, Any]:
        why = {name: why for name, why in {**self.why_not, "fusion": self.fusion_why_not}.items() if why}
        return {"digest": self.source.digest, "loaded": self.loaded, "not_taken": why}


def describe_input(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What an input's weights depend on, beside its fitted state, as JSON values."""
    spec = recipe.inputs[plan.name]
    cells = plan.modality_config.model_dump(mode="json")
    if cells.get("tokenizer"):
        cells["tokenizer"] = "sha256:" + hashlib.sha256(cells["tokenizer"].encode()).hexdigest()
    kinds = dict(spec.columns) if spec.columns else dict.fromkeys(recipe.columns_of(plan.name), "")
    return {
        "modality": plan.modality,
        "columns": [[column, kind] for column, kind in kinds.items()],
        "cells": cells,
        "encoder": plan.encoder,
        "options": _firm(plan.encoder_config.model_dump(mode="json")),
        "tune": plan.tune,
        "lora": plan.lora if plan.tune == "lora" else {},
    }


def describe_fusion(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Any]:
    """`recipe`: of the model that is trained end to end."""
    from fuseline.lab.build import ModelOptions  # build reads heads, which read this room's tasks
    from fuseline.lab.fusion import fusion_class
    from fuseline.lab.stacked.options import end_to_end

    recipe = end_to_end(recipe)
    options = recipe.fusion.options
    shared = ModelOptions(**{k: options.pop(k) for k in ModelOptions.model_fields if k in options})
    own = fusion_class(recipe.fusion.kind).Config.model_validate(options)
    return {
        "kind": recipe.fusion.kind,
        "options": _firm(own.model_dump(mode="json")),
        "width": shared.width,
        "inputs": list(names),
    }


def _firm(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in LOOSE}


def open_init(recipe: Recipe, plans: Mapping[str, Plan]) -> Begun | None:
    """What `recipe.init` has for this recipe; None where it names none.

    Raises:
        FuselineError: as :func:`read_folder`; ``init_mismatch`` where nothing in it fits.
    """
    if recipe.init is None:
        return None
    source = read_folder(recipe.init)
    why = {name: _why_not(source.inputs.get(name), describe_input(recipe, plan)) for name, plan in plans.items()}
    fusion = _differs(source.fusion, describe_fusion(recipe, tuple(plans)), {"kind": "fusion"})
    begun = Begun(source, why, fusion)
    if all(why.values()):
        told = "; ".join(f"{name}: {text}" for name, text in why.items())
        raise FuselineError(
            "init_mismatch", f"init: no pretrained input fits this recipe: {told}", "pretrain with this recipe"
        )
    return begun


def _why_not(given: dict[str, Any] | None, wanted: dict[str, Any]) -> str:
    if given is None:
        return "it was not pretrained"
    words = {"cells": "options", "options": "encoder options"}
    found = _differs(given, {k: v for k, v in wanted.items() if k not in ("tune", "lora")}, words)
    if found:
        return found
    before, now = given["tune"], wanted["tune"]
    if before == "lora" or now == "lora":
        return "" if (before, given["lora"]) == (now, wanted["lora"]) else "another tune, or another rank"
    if before == "full" and now == "frozen":
        return "its encoder was tuned, and tune: frozen would take the source's weights"
    return ""


def _differs(given: Mapping[str, Any], wanted: Mapping[str, Any], words: Mapping[str, str]) -> str:
    for key, value in wanted.items():
        other = given.get(key)
        if other == value:
            continue
        word = words.get(key, key)
        if isinstance(value, dict) and isinstance(other, dict):
            keys = [k for k in {**value, **other} if value.get(k) != other.get(k)]
            told = ", ".join(f"{k} {other.get(k)!r} there, {value.get(k)!r} here" for k in keys)
            return f"other {word}: {told}"
        return f"another {word}: {other!r} there, {value!r} here" if isinstance(value, (str, int)) else f"other {word}"
    return ""


def named_weights(model: FusionModel) -> dict[str, Tensor]:
    """All that trains but the head, under the inputs' names: `encoder/NAME/...`, `adapter/NAME/...`, `fusion/...`."""
    trained = trained_names(model)
    out: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        kind, _, rest = key.partition(".")
        if key not in trained or kind == "head":
            continue
        if kind in ("encoders", "adapters"):
            place, _, rest = rest.partition(".")
            out[f"{kind[:-1]}/{model.names[int(place)]}/{rest}"] = tensor
        else:
            out[f"{kind}/{rest}"] = tensor
    return out


@torch.no_grad()
def load_init(begun: Begun, model: FusionModel) -> None:
    """Copy what fits into the model, in place. A part is taken whole or not at all.

    Raises FuselineError ``bad_init``; ``init_mismatch`` where not one weight fits.
    """
    weights, own = begun.source.weights(), named_weights(model)
    for name in model.names:
        if not begun.why_not[name]:
            begun.why_not[name] = _take(begun, name, (f"encoder/{name}/",), weights, own)
    for name in model.names:  # the fusion's width is the adapters'
        if not begun.why_not[name]:
            _take(begun, f"{name}'s adapter", (f"adapter/{name}/",), weights, own)
    if not begun.fusion_why_not:
        begun.fusion_why_not = _take(begun, "fusion", ("fusion/",), weights, own)
    if not begun.loaded:
        raise FuselineError("init_mismatch", f"{begun.source.folder}: not one weight fits this model", begun.said)


def _take(
    begun: Begun, part: str, starts: tuple[str, ...], weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> str:
    given = {k: v for k, v in weights.items() if k.startswith(starts)}
    mine = {k: v for k, v in own.items() if k.startswith(starts)}
    if not mine or not given:  # a frozen encoder: its weights come from their source, only its state was taken
        return ""
    if {k: v.shape for k, v in given.items()} != {k: v.shape for k, v in mine.items()}:
        return "other shapes"
    for key, tensor in mine.items():
        tensor.copy_(given[key])
    begun.loaded[part] = sum(t.numel() for t in mine.values())
    return ""


def keep_copy(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with a copy, in the run's folder, of what it begins from."""
    if recipe.init is None:
        return recipe
    source, target = read_folder(recipe.init), folder / COPY
    source.weights()  # verified while the error can name the folder that the user knows, and before any work
    new = folder / (COPY + ".new")
    new.mkdir(parents=True, exist_ok=True)
    for name in (FILE, WEIGHTS):
        (new / name).write_bytes((source.folder / name).read_bytes())
    replace_folder(new, target)
    return recipe.model_copy(update={"init": str(target.resolve())})


def in_folder(recipe: Recipe) -> Recipe:
    """As it is written beside :func:`keep_copy`'s copy, so that the folder can be moved."""
    return recipe if recipe.init is None else recipe.model_copy(update={"init": COPY})
