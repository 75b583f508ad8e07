"""How much a loss would change without a unit: gates. Dimensions: B batch, U units, K places of one unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fuseline.lab.compress.units import Units
from fuseline.lab.model import FusionModel
from fuseline.lab.training.reader import Batch


def taylor(model: FusionModel, found: Sequence[Units], batches: Sequence[Batch]) -> list[Tensor]:
    """Importance (U,) of each unit: |∂L/∂g|, mean over rows, g = 1 a gate on all that is read of the unit.

    First-order Taylor: without the unit, its gate at 0, the loss differs by -∂L/∂g (Molchanov et al. 2019, "Importance
    Estimation for Neural Network Pruning"; with heads, Michel et al. 2019, "Are Sixteen Heads Really Better than
    One?", equation 2). The gates stand at the inputs of what reads the unit, so that biases and norms in between count
    in, and no weight needs a gradient. The model must be steady.
    """
    scores = [torch.zeros(units.count) for units in found]
    rows = 0
    for batch in batches if found else ():
        assert batch.targets is not None, "importance needs rows with targets"
        rows += len(batch.rows)
        with torch.enable_grad(), gates(model, found) as gate_of:
            outputs = model(batch.arrays, batch.present_BM)
            loss = model.head.loss(outputs, batch.targets)
            flat = [gate for calls in gate_of.values() for gate in calls]
            slopes = dict(zip(map(id, flat), torch.autograd.grad(loss, flat, allow_unused=True), strict=True))
        for i, units in enumerate(found):
            change_BU: Any = 0
            for axis in units.read:
                for gate in gate_of[axis.module]:
                    slope = slopes[id(gate)]
                    if slope is not None:
                        change_BU = change_BU + slope.flatten(1)[:, axis.places_UK.to(slope.device)].sum(2)
            if isinstance(change_BU, Tensor):
                # The loss is a mean over the batch: times its length, each row weighs the same in any batch.
                scores[i] += (change_BU.abs().sum(0) * len(batch.rows)).cpu()
    return [score / max(1, rows) for score in scores]


@contextmanager
def gates(model: nn.Module, found: Sequence[Units]) -> Iterator[dict[str, list[Tensor]]]:
    """Within, every reader's input is multiplied by gates of 1, one a row and place, new at each call."""
    made: dict[str, list[Tensor]] = {axis.module: [] for units in found for axis in units.read}

    def gated(path: str, dim: int) -> Any:
        def look(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = args[0]
            shape = [1] * x.dim()
            shape[0], shape[dim] = x.shape[0], x.shape[dim]
            gate = torch.ones(shape, dtype=x.dtype, device=x.device, requires_grad=True)
            made[path].append(gate)
            return (x * gate, *args[1:])

        return look

    hooks = []
    for path in made:
        module = model.get_submodule(path)
        hooks.append(module.register_forward_pre_hook(gated(path, 1 if isinstance(module, _ConvNd) else -1)))
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()
