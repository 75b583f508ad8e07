"""Leaving out whole layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import nn

from fuseline.errors import FuselineError
from fuseline.lab.compress.influence import importance
from fuseline.lab.compress.stacks import Stack, keep_layers

__all__ = ["Rule", "choose", "crop", "importance"]

Rule = Literal["importance", "last", "every"]

_COUNTS = ("num_hidden_layers", "encoder_layers", "num_layers")
"""how transformers' configs name the number of layers; `depths` lists one a stage"""


def choose(stack: Stack, scores: Mapping[int, float], n: int, rule: Rule = "importance") -> list[int]:
    """Which layers stay when `n` of the removable ones do: indexes for `crop`, with those that cannot go.

    importance: those of the highest `scores` (from :func:`importance`). last: the first n stay. every: n evenly spread,
    the first and last among them, as DistilBERT was made (Sanh et al. 2019). Never fewer than the stack needs.
    """
    n = min(len(stack.removable), max(n, stack.least - len(stack.fixed), 0))
    match rule:
        case "importance":
            kept = sorted(stack.removable, key=lambda i: (-scores[i], i))[:n]
        case "last":
            kept = list(stack.removable[:n])
        case "every":
            spread = np.linspace(0, len(stack.removable) - 1, n)
            kept = [stack.removable[int(i)] for i in np.floor(spread + 0.5)]
    return sorted({*stack.fixed, *kept})


def crop(model: nn.Module, keep: Mapping[str, Sequence[int]]) -> None:
    """Leave out all but the layers `keep`, in place: path of a list of layers -> indexes that stay.

    The rest is numbered anew, so that the state dict is one of a model of so many layers; the same `keep` makes a fresh
    model take it. Paths are those of the whole model. Layer counts in transformers' configs follow.

    Raises:
        FuselineError: ``bad_cut`` where the model has no such layers.
    """
    for path in sorted(keep, key=lambda p: -p.count(".")):  # inner lists first: their paths hold outer numbers
        kept = sorted({int(i) for i in keep[path]})
        try:
            layers = model.get_submodule(path)
        except AttributeError:
            layers = None
        if not isinstance(layers, (nn.ModuleList, nn.Sequential)) or (
            kept and not 0 <= kept[0] <= kept[-1] < len(layers)
        ):
            raise FuselineError("bad_cut", f"the model has no layers {kept} in {path}", "the cut is another model's")
        before = len(layers)
        keep_layers(layers, kept)
        _tell_configs(model, path, before, len(kept))


def _tell_configs(model: nn.Module, path: str, before: int, after: int) -> None:
    names = path.split(".")
    stage = next((int(name) for name in reversed(names) if name.isdigit()), 0)
    told: set[int] = set()
    for end in range(len(names)):
        config: Any = getattr(model.get_submodule(".".join(names[:end])), "config", None)
        if config is None or not hasattr(config, "model_type") or id(config) in told:
            continue
        told.add(id(config))
        for name in _COUNTS:
            if getattr(config, name, None) == before:
                setattr(config, name, after)
                break
        depths = list(getattr(config, "depths", None) or ())
        if stage < len(depths) and depths[stage] == before:
            depths[stage] = after
            config.depths = depths
