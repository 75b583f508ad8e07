"""From a recipe's `augment` to options, before any work: presets, and what a task does not allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fuseline.errors import FuselineError, closest
from fuseline.lab.augment import AUGMENTED, augment_class
from fuseline.recipe import Frozen, read_options

PRESETS = ("auto", "none", "default", "strong")
OWN = {"augment": 0.0, "mirror": False, "token_dropout": 0.0, "feature_dropout": 0.0}
"""options by which encoders from scratch change their own cells: off where the recipe's `augment` does it instead"""


def plan_augment(
    modality: str, wanted: str | Mapping[str, Any], fixed: Sequence[str], where: str
) -> tuple[Frozen | None, bool]:
    """The options of one input's augmentation (None: none), and whether the encoder is left to its own.

    Args:
        modality: of the input.
        wanted: the recipe's `augment`.
        fixed: options that the task does not allow, see :meth:`fuseline.lab.heads.base.Head.fixed`.
        where: path of the key, for errors.

    Raises:
        FuselineError: ``bad_recipe``.
    """
    given = {"preset": wanted} if isinstance(wanted, str) else dict(wanted)
    preset = given.pop("preset", "default")
    if preset not in PRESETS:
        near = closest(str(preset), PRESETS)
        hint = f"did you mean {near!r}?" if near else f"one of {', '.join(PRESETS)}"
        raise FuselineError("bad_recipe", f"{where}: no preset {preset!r}", hint)
    if preset in ("auto", "none"):
        if given:
            options = ", ".join(str(k) for k in given)
            raise FuselineError("bad_recipe", f"{where}: preset {preset} takes no options ({options})", "leave it out")
        return None, preset == "auto"
    cls = augment_class(modality)
    if cls is None:
        hint = f"known for {', '.join(AUGMENTED)}"
        raise FuselineError("bad_recipe", f"{where}: nothing is known to do with {modality}", hint)
    asked = [name for name in given if name in fixed and given[name]]
    if asked:
        raise FuselineError(
            "bad_recipe",
            f"{where}.{asked[0]}: the task's truth would stay where it was",
            "for boxes, task.zoom and task.mirror move both",
        )
    base = {**(cls.strong if preset == "strong" else {}), **_still(cls.Config, fixed)}
    config = read_options(cls.Config, {**base, **given}, where)
    return config, False


def _still(config: type[Frozen], fixed: Sequence[str]) -> dict[str, Any]:
    """The fixed options that this augmentation has, off."""
    return {k: False if f.annotation is bool else 0.0 for k, f in config.model_fields.items() if k in fixed}
