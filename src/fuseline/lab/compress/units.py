"""What can be cut to fewer: units (heads, hidden widths, channels), and where each lies in which weights.

Dimensions: U units, K places of one unit along an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fuseline.lab.compress.heads import Attention
from fuseline.lab.compress.probe import close, same_shapes
from fuseline.lab.compress.shapes import fit_numbers, put
from fuseline.lab.encoders.layers import StandardisedConv2d

What = Literal["heads", "feed_forward", "channels"]


@dataclass(frozen=True)
class Axis:
    """One axis of one tensor of a module. `places_UK`: the indexes along it that belong to each unit."""

    module: str
    tensor: str
    dim: int
    places_UK: Tensor


@dataclass(frozen=True)
class Units:
    """Units that can be cut together.

    `made`: axes along which the units are made. `read`: the input axes of the modules that read them, in the same
    order. `step`: how many may go at a time. `blocks`: as many must stay in each of so many equal runs of units (the
    groups of a group norm). `exact`: leaving a unit out is the same as reading zeros in its place.
    """

    what: What
    path: str
    made: tuple[Axis, ...]
    read: tuple[Axis, ...]
    step: int = 8
    blocks: int = 1
    exact: bool = True
    attentions: tuple[Attention, ...] = ()

    @property
    def count(self) -> int:
        return len(self.read[0].places_UK)


Choice = tuple[Units, Tensor]
"""units, and the sorted numbers of those that stay"""


def outputs_of(module: nn.Module, path: str, places_UK: Tensor) -> tuple[Axis, ...]:
    """All tensors of a layer or norm that have one entry (or filter) an output channel, along axis 0."""
    names = ("weight", "bias", "gain", "running_mean", "running_var")
    own = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])
    return tuple(Axis(path, name, 0, places_UK) for name in names if name in own)


def inputs_of(path: str, places_UK: Tensor) -> Axis:
    """The input axis of a linear layer's or a convolution's weight."""
    return Axis(path, "weight", 1, places_UK)


def cut_units(model: nn.Module, choices: Sequence[Choice], run: Callable[[], list[Tensor]]) -> list[Choice]:
    """Cut, in place, and give the choices that were cut.

    Every cut is proved: where it is exact, the part must answer as it does when the readers see zeros in the place of
    the units that go, else at least in the same shapes. Choices that fail (a model counts on a width somewhere) are
    found by halving and left whole.
    """
    if not choices:
        return []
    modules = _touched(model, choices)
    exact = all(units.exact for units, _ in choices)
    with _restored(modules):
        for units, stay in choices:
            _blind(model, units, stay)
        wanted = run()
    try:
        with _restored(modules, only_on_error=True):
            for units, stay in choices:
                _take(model, units, stay)
            got = run()
            if not (close(wanted, got) if exact else same_shapes(wanted, got)):
                raise ValueError("the cut model answers otherwise")
    except Exception:  # whatever a model raises that counts on a width
        if len(choices) == 1:
            return []
        half = len(choices) // 2
        return [*cut_units(model, choices[:half], run), *cut_units(model, choices[half:], run)]
    return list(choices)


def _touched(model: nn.Module, choices: Sequence[Choice]) -> list[nn.Module]:
    paths = {axis.module for units, _ in choices for axis in (*units.made, *units.read)}
    paths |= {attention.path for units, _ in choices for attention in units.attentions}
    return [model.get_submodule(path) for path in sorted(paths)]


@contextmanager
def _restored(modules: Sequence[nn.Module], only_on_error: bool = False) -> Iterator[None]:
    """Modules as they were, afterwards: cuts put new tensors in place and leave the old ones untouched."""
    saved = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers)) for m in modules]
    finished = False
    try:
        yield
        finished = True
    finally:
        if not (finished and only_on_error):
            for module, own, parameters, buffers in saved:
                module.__dict__.update(own)
                module._parameters.update(parameters)
                module._buffers.update(buffers)


def _blind(model: nn.Module, units: Units, stay: Tensor) -> None:
    gone = torch.ones(units.count, dtype=torch.bool)
    gone[stay] = False
    for axis in units.read:
        module = model.get_submodule(axis.module)
        weight = _tensor(module, axis.tensor).detach().clone()
        weight.index_fill_(axis.dim, axis.places_UK[gone].flatten().to(weight.device), 0.0)
        put(module, axis.tensor, weight)


def _take(model: nn.Module, units: Units, stay: Tensor) -> None:
    gone = torch.ones(units.count, dtype=torch.bool)
    gone[stay] = False
    for axis in (*units.made, *units.read):
        module = model.get_submodule(axis.module)
        old = _tensor(module, axis.tensor).detach()
        # Places of no unit at all stay: a layer may read other things beside these.
        kept = torch.ones(old.shape[axis.dim], dtype=torch.bool)
        kept[axis.places_UK[gone].flatten()] = False
        index = kept.nonzero()[:, 0].to(old.device)
        if isinstance(module, StandardisedConv2d) and axis in units.read:
            _standardised_inputs(module, index)
        else:
            put(module, axis.tensor, old.index_select(axis.dim, index).contiguous())
        fit_numbers(module)
    for attention in units.attentions:
        attention.fit_heads(model)


def _standardised_inputs(conv: StandardisedConv2d, index: Tensor) -> None:
    """Fewer inputs of a filter that is brought to mean 0 and length g: the gains are set so that what stays of it
    weighs what it weighed, up to its mean."""
    with torch.no_grad():
        weight = conv.standardised().index_select(1, index).contiguous()
        variance = weight.var(dim=(1, 2, 3), keepdim=True, correction=0)
        gain = (variance * weight[0].numel()).sqrt()
    put(conv, "weight", weight)
    put(conv, "gain", gain)


def _tensor(module: nn.Module, name: str) -> Tensor:
    found: Any = getattr(module, name)
    assert isinstance(found, Tensor)
    return found
