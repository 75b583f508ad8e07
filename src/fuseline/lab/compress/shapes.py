"""Sizes of modules after their weights: what makes a fresh model take the weights of one that was cut."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from fuseline.lab.compress.heads import attentions


def put(module: nn.Module, name: str, value: Tensor) -> None:
    """Another tensor in the place of a module's own; a weight stays a weight, and asks for a gradient as before."""
    old = module._parameters.get(name)
    if old is not None:
        module._parameters[name] = nn.Parameter(value, requires_grad=old.requires_grad)
    else:
        module._buffers[name] = value


def fit_numbers(module: nn.Module) -> None:
    """Set a module's own numbers (in_features, groups, ...) after the shapes of its weights."""
    weight = module._parameters.get("weight")
    if weight is None:
        return
    size = tuple(weight.shape)
    match module:
        case nn.Linear():
            module.out_features, module.in_features = size
        case _ConvNd():
            if 1 < module.groups == module.in_channels:
                # Depthwise: one filter, or several, a channel.
                module.groups = module.in_channels = size[0] * module.groups // module.out_channels
            else:
                module.in_channels = size[1] * module.groups
            module.out_channels = size[0]
        case _BatchNorm():
            module.num_features = size[0]
        case nn.GroupNorm():
            if module.num_groups == module.num_channels:  # a group a channel
                module.num_groups = size[0]
            module.num_channels = size[0]
        case nn.LayerNorm():
            module.normalized_shape = size
        case nn.Embedding():
            module.num_embeddings, module.embedding_dim = size
            if module.padding_idx is not None and module.padding_idx >= size[0]:
                module.padding_idx = None  # only ever told the optimiser to leave that row alone


def fit_pads(model: nn.Module) -> None:
    """Where an encoder fills padding with a word that its table has no more, let it take word 0: it is masked."""
    for module in model.modules():
        pad = getattr(module, "pad_id", None)
        if isinstance(pad, int):
            tables = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
            if pad >= max(tables, default=pad + 1):
                module.pad_id = 0  # type: ignore[assignment]


def fit_shapes(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make a freshly built model take the state dict of a cut one: then a strict load works.

    Weights get the shapes in `state` (their values are undefined until it is loaded), modules the numbers that follow,
    and attention as many heads as its query is wide, at the size of a head that it was built with. Cropped layers are
    not seen from shapes: `crop` first. The dtype and device stay the model's.
    """
    before = attentions(model)
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        changed = False
        for name, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            wanted = state.get(f"{path}.{name}" if path else name)
            if wanted is None or wanted.shape == old.shape:
                continue
            changed = True
            if id(old) in made:  # shared by two modules, and so it stays
                module._parameters[name] = made[id(old)]
                continue
            put(module, name, torch.zeros(wanted.shape, dtype=old.dtype, device=old.device))
            if isinstance(old, nn.Parameter):
                made[id(old)] = module._parameters[name]
        if changed:
            fit_numbers(module)
    for attention in before:
        attention.fit_heads(model)
    fit_pads(model)
