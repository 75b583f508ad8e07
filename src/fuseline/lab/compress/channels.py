"""Finding a convolutional part's channels, with torch-pruning's dependency graph (Fang et al. 2023, "DepGraph").

Dimensions: U channels, K places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from fuseline.errors import FuselineError
from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.probe import Part
from fuseline.lab.compress.units import Axis, Units, inputs_of, outputs_of
from fuseline.lab.encoders.layers import StandardisedConv2d


class _Traced(nn.Module):
    """Encoder and adapter: what reaches the adapter is the part's output, whose width must stay."""

    def __init__(self, encoder: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.encoder, self.adapter = encoder, adapter

    def forward(self, arrays: dict[str, Tensor]) -> Tensor:
        out: Tensor = self.adapter(self.encoder(**arrays)).values_BTD
        return out


def find_channels(part: Part) -> list[Units]:
    """Channels that can go: all layers that a skip connection ties together lose the same ones.

    Left out: whatever reaches the part's output; channels that pass a layer norm (a Transformer's width) or a grouped
    convolution; those that several places read side by side (DenseNet).

    Raises:
        FuselineError: ``missing_extra`` without torch-pruning, for a part that has convolutions.
    """
    if part.name == FUSION or not any(isinstance(m, _ConvNd) and m.groups == 1 for _, m in part.modules()):
        return []
    try:
        import torch_pruning
    except ImportError:
        raise FuselineError(
            "missing_extra", "channels need torch-pruning", "pip install 'fuseline[compress]'"
        ) from None
    index = part.model.names.index(part.name)
    traced = _Traced(part.model.encoders[index], part.model.adapters[index])
    paths = {id(module): path for path, module in part.modules()}
    weights = {id(w): f"{path}.{n}" for path, m in part.modules() for n, w in m.named_parameters(recurse=False)}
    graph = torch_pruning.DependencyGraph()
    traced.requires_grad_(True)  # the graph is read off autograd's
    try:
        with torch.enable_grad():
            graph.build_dependency(traced, part.arrays, forward_fn=lambda m, x: m(x), verbose=False)
    finally:
        traced.requires_grad_(False)
    found: list[Units] = []
    used: set[tuple[str, str, int]] = set()
    for group in graph.get_all_groups(root_module_types=(nn.Conv1d, nn.Conv2d)):
        units = _units(part.model, group, graph, paths, weights)
        if units is None:
            continue
        axes = {(axis.module, axis.tensor, axis.dim) for axis in (*units.made, *units.read)}
        if not axes & used:
            used |= axes
            found.append(units)
    return found


def _units(
    model: nn.Module, group: Any, graph: Any, paths: Mapping[int, str], weights: Mapping[int, str]
) -> Units | None:
    """A group as units, or None where something in it cannot be cut here."""
    count = len(group[0].idxs)
    made: list[Axis] = []
    read: list[Axis] = []
    blocks, exact = 1, True
    for item in group:
        module = item.dep.target.module
        places_U1 = torch.zeros(count, 1, dtype=torch.int64)
        places_U1[torch.tensor(item.root_idxs), 0] = torch.tensor(item.idxs)
        if isinstance(module, nn.Parameter):
            path, _, name = weights.get(id(module), "").rpartition(".")
            dims = [d for d, size in enumerate(module.shape) if size == count]
            if not path or len(dims) != 1:
                return None
            made.append(Axis(path, name, dims[0], places_U1))
            continue
        if not isinstance(module, nn.Module) or not any(True for _ in module.parameters(recurse=False)):
            continue  # the graph's own, for sums and reshapes; activations
        if id(module) not in paths:
            return None  # the adapter
        path, makes = paths[id(module)], graph.is_out_channel_pruning_fn(item.dep.handler)
        match module:
            case _ConvNd() if makes and module.groups in (1, module.in_channels):
                made += outputs_of(module, path, places_U1)
            case _ConvNd() if module.groups == 1 and not makes:
                read.append(inputs_of(path, places_U1))
                exact = exact and not isinstance(module, StandardisedConv2d)
            case nn.Linear() if not makes and module.in_features % count == 0:
                # A map flattened with its channels outermost: each is as many inputs as it had places.
                each = module.in_features // count
                read.append(inputs_of(path, places_U1 * each + torch.arange(each)))
            case _BatchNorm():
                made += outputs_of(module, path, places_U1)
            case nn.GroupNorm():
                made += outputs_of(module, path, places_U1)
                if module.num_groups < module.num_channels:
                    blocks, exact = module.num_groups, False
            case _:
                return None
    if not read:
        return None
    root = paths[id(group[0].dep.target.module)]
    made += _norm_beside(model, root, made, count)
    return Units("channels", root, tuple(made), tuple(read), blocks=blocks, exact=exact)


def _norm_beside(model: nn.Module, conv: str, made: list[Axis], count: int) -> tuple[Axis, ...]:
    """wav2vec 2.0's first convolution has a norm of one channel a group beside it, which our encoder computes itself,
    without calling it: the graph cannot see it."""
    parent = conv.rpartition(".")[0]
    for name, child in model.get_submodule(parent).named_children():
        path = f"{parent}.{name}"
        apart = isinstance(child, nn.GroupNorm) and child.num_groups == child.num_channels == count
        if apart and all(axis.module != path for axis in made):
            return outputs_of(child, path, torch.arange(count)[:, None])
    return ()
