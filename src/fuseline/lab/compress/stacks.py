"""Stacks of layers of which some can be left out, found by trying: no table of model families to keep up to date."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.probe import Part, channels_last, first_tensor, same_shapes, some_rows, steady
from fuseline.lab.model import FusionModel
from fuseline.lab.training.reader import Batch


@dataclass(frozen=True)
class Stack:
    """A list of layers inside the model.

    `path`: of the ModuleList or Sequential. `length`: its layers. `removable`: indexes of those that can go, each by
    itself and together. `least`: how many layers must stay in all, the fixed ones included.
    """

    part: str
    path: str
    removable: tuple[int, ...]
    length: int
    least: int

    @property
    def fixed(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.length) if i not in self.removable)


def find_stacks(model: FusionModel, batch: Batch) -> list[Stack]:
    """All stacks with a removable layer, in the model's order.

    A layer is removable when it has weights and modules of its own, gives tensors of the shape that it takes wherever
    it is called, holds no kind of weight that all others lack (T5's first layer makes the positions of all), and the
    part runs without it to results of the same shape, deaf to no input. In an encoder it must also add to what it
    takes (residual): of a plain layer, all that follows reads what it alone makes. Where a layer holds a stack itself,
    its layers are given and not it.

    `batch` must hold cells: of an encoder whose tokens are given instead, no stack is found. Needs a row or more in
    which every input is present to hear all of them.
    """
    found: list[Stack] = []
    with steady(model), torch.no_grad():
        rows = some_rows(batch)
        for name in (*model.names, FUSION):
            part = Part(model, name, rows)
            if part.runs:
                found += _stacks(part)
    return found


@contextmanager
def only(layers: nn.Module, kept: Sequence[int]) -> Iterator[None]:
    """Within, the list holds these layers alone."""
    before = dict(layers._modules)
    keep_layers(layers, kept)
    try:
        yield
    finally:
        layers._modules.clear()
        layers._modules.update(before)


def keep_layers(layers: nn.Module, kept: Sequence[int]) -> None:
    """Drop all but these layers from a list, in place, and number them anew where they had numbers for names."""
    named = list(layers._modules.items())
    numbered = all(name.isdigit() for name, _ in named)
    layers._modules.clear()
    for new, old in enumerate(kept):
        layers._modules[str(new) if numbered else named[old][0]] = named[old][1]


def _stacks(part: Part) -> list[Stack]:
    lists = [
        (path, module)
        for path, module in part.modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and not isinstance(module, ParametrizationList)
    ]
    layers = [layer for _, module in lists for layer in module.children() if _is_layer(layer)]
    calls = _keep_shape(part, layers)
    # Fusion learned all it knows from this table, and healing can teach it again.
    same = {key for key, call in calls.items() if part.name == FUSION or call.adds()}
    whole, heard = part.run(), part.heard()
    found = []
    for path, module in lists:
        children = list(module.children())
        removable = [
            i
            for i, child in enumerate(children)
            if id(child) in same
            and not _alone_of_its_kind(children, i)
            and _works(part, module, [j for j in range(len(children)) if j != i], whole, heard)
        ]
        if removable:
            stack = Stack(part.name, path, tuple(removable), len(children), 0)
            found.append(replace(stack, least=_least(part, module, stack, whole, heard)))
    paths = [stack.path for stack in found]
    return [kept for stack in found if (kept := _without_nests(part, stack, paths)).removable]


def _is_layer(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


@dataclass(frozen=True)
class _Call:
    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def adds(self) -> bool:
        """Whether something of the layer's input is left in its output when all its matrices are 0."""
        weights = [(w, w.clone()) for w in self.layer.parameters() if w.dim() > 1]
        try:
            for weight, _ in weights:
                weight.zero_()
            with warnings.catch_warnings():
                # WavLM gives torch a bool mask beside a float one, which is right but deprecated there.
                warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
                out = first_tensor(self.layer(*self.args, **self.kwargs))
        finally:
            for weight, old in weights:
                weight.copy_(old)
        assert out is not None
        places = channels_last(out).flatten(0, -2)
        return bool((places != places[0]).any())


def _keep_shape(part: Part, layers: Sequence[nn.Module]) -> dict[int, _Call]:
    """The layers that were called and always gave what they took, in shape; by id, with their last call."""
    kept: dict[int, _Call | None] = {}

    def look(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        given, got = first_tensor((args, kwargs)), first_tensor(result)
        alike = given is not None and got is not None and given.shape == got.shape
        kept[id(module)] = _Call(module, args, kwargs) if alike and kept.get(id(module), True) else None

    hooks = [layer.register_forward_hook(look, with_kwargs=True) for layer in layers]
    try:
        part.run()
    finally:
        for hook in hooks:
            hook.remove()
    return {key: call for key, call in kept.items() if call is not None}


def _alone_of_its_kind(children: Sequence[nn.Module], index: int) -> bool:
    own = {name for name, _ in children[index].named_parameters()}
    others = {name for i, child in enumerate(children) if i != index for name, _ in child.named_parameters()}
    return bool(others) and not own <= others


def _works(part: Part, layers: nn.Module, kept: Sequence[int], whole: Sequence[Tensor], heard: frozenset[str]) -> bool:
    with only(layers, kept):
        try:
            return same_shapes(whole, part.run()) and part.heard() >= heard
        except Exception:  # whatever a model raises that counts on the layer
            return False


def _least(part: Part, layers: nn.Module, stack: Stack, whole: Sequence[Tensor], heard: frozenset[str]) -> int:
    """How many must stay: some code takes its first and last layer by name (`sum`)."""
    for count in range(len(stack.removable)):
        kept = sorted((*stack.fixed, *stack.removable[:count]))
        if _works(part, layers, kept, whole, heard):
            return len(kept)
    return stack.length - 1


def _without_nests(part: Part, stack: Stack, paths: Sequence[str]) -> Stack:
    """A layer that holds a stack is cut inside, which is finer."""
    names = list(part.model.get_submodule(stack.path)._modules)
    nests = {i for i, name in enumerate(names) if any(p.startswith(f"{stack.path}.{name}.") for p in paths)}
    if not nests:
        return stack
    return replace(
        stack, removable=tuple(i for i in stack.removable if i not in nests), least=max(stack.least, len(nests))
    )
