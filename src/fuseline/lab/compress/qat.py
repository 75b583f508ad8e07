"""Quantisation-aware fine-tuning: a model trains while its weights and inputs are rounded as int8 will round them.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference". The
rounding is torch's own `fake_quantize_*` (its gradient passes straight through inside the range and is 0 outside). Not
torch.ao's modules, which left torch for a package of its own that rounds linear layers alone; not NNCF's, which wraps
the model's functions and keeps its ranges for its own export: here nothing stays but float weights under their old
names, and whoever quantises the exported graph measures its ranges again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn

from fuseline.lab.compress.distil import DistilConfig, Keep
from fuseline.lab.compress.heal import HealReport, heal, healing_steps
from fuseline.lab.compress.names import modules_of
from fuseline.lab.compress.teacher import Teacher, own_reader
from fuseline.lab.encoders.layers import StandardisedConv2d
from fuseline.lab.model import FusionModel
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Batch
from fuseline.progress import Voice

MOMENTUM = 0.1
"""share of a step's own range in the moving range"""
OBSERVED = 0.5
"""share of the training in which ranges move; in the rest the weights settle to fixed ones"""
SAMPLE = 2**17
"""numbers of an activation at most that its range is read from"""
CALIBRATION_ROWS = 64
INT8, UINT8 = 127, 255


class RoundedWeight(nn.Module):
    """A weight on its int8 grid: symmetric, one scale an output channel, max |w| / 127."""

    def __init__(self, standardised: bool) -> None:
        super().__init__()
        self.standardised = standardised

    def forward(self, weight: Tensor) -> Tensor:
        if self.standardised:
            # The layer standardises its filters and only then multiplies: what is rounded is the standardised filter.
            # Standardising once more leaves it as it is, but for the rounding errors' own mean.
            variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, correction=0)
            weight = (weight - mean) * torch.rsqrt(variance * weight[0].numel() + 1e-4)
        scale_O = weight.detach().flatten(1).abs().amax(1).clamp(min=1e-12) / INT8
        zero_O = torch.zeros_like(scale_O, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale_O, zero_O, 0, -INT8, INT8)


class RoundedInput(nn.Module):
    """A layer's input on a uint8 grid: affine, one scale a tensor, over a range that holds 0.

    The range follows the steps' own (`percentile` of the values on each side) by a moving mean, for `steps` calls in
    training mode, and is fixed from then on. It and the count are buffers: a resumed training knows them.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile, self.steps, self.calibrating = percentile, 0, False
        for name in ("low", "high"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.calibrated = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.calibrating:
            self._follow(x.detach(), 1 / (self.calibrated + 1))  # the plain mean over the calibration's batches
            self.calibrated += 1
            return x
        if self.training:
            if int(self.seen) < self.steps:
                self._follow(x.detach(), MOMENTUM)
            self.seen += 1
        # In float32 whatever the precision: a range in bfloat16 has no 255 steps.
        scale = ((self.high - self.low) / UINT8).clamp(min=1e-12)
        zero = (-self.low / scale).round().clamp(0, UINT8).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, UINT8).to(x.dtype)

    def _follow(self, x: Tensor, share: float) -> None:
        flat = x.flatten().float()
        stride = max(1, flat.numel() // SAMPLE)
        while math.gcd(stride, flat.numel()) > 1:  # or it would see some features only, in every row and token
            stride += 1
        flat = flat[::stride]
        tail = max(1, round(flat.numel() * (1 - self.percentile / 100)))
        low, high = flat.kthvalue(tail)[0], flat.kthvalue(flat.numel() + 1 - tail)[0]
        self.low.lerp_(low.clamp(max=0), share)
        self.high.lerp_(high.clamp(min=0), share)


def roundable(model: FusionModel, parts: Collection[str]) -> dict[str, nn.Module]:
    """Path -> the linear layers and convolutions of the parts. Not those inside torch's own attention, which reads its
    projections' weights without calling them, nor those whose weight is made of others already (a weight norm)."""
    found: dict[str, nn.Module] = {}
    for part in parts:
        for top in modules_of(part, model.names):
            inside: list[str] = []
            for path, module in model.get_submodule(top).named_modules(prefix=top):
                if isinstance(module, nn.MultiheadAttention):
                    inside.append(path + ".")
                layer = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))
                if layer and not parametrize.is_parametrized(module) and not path.startswith(tuple(inside)):
                    found[path] = module
    return found


@contextmanager
def rounded(
    model: FusionModel,
    parts: Collection[str],
    batches: Iterable[Batch],
    *,
    percentile: float = 99.99,
    steps: int = 0,
) -> Iterator[dict[str, RoundedInput]]:
    """While open, the parts' layers compute with rounded weights and inputs, in training and in evaluation alike.

    Ranges of the inputs are read from `batches` first, as a calibration does, and then follow the first `steps` steps
    of training. Afterwards the model has float weights and the names that it had. Gives the roundings by path.
    """
    layers = roundable(model, parts)
    roundings: dict[str, RoundedInput] = {}
    orders = {layer: [name for name, _ in layer.named_parameters(recurse=False)] for layer in layers.values()}
    handles = []

    def round_input(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        own = layer.rounded_input
        assert isinstance(own, RoundedInput)
        return (own(args[0]), *args[1:])

    try:
        for path, layer in layers.items():
            roundings[path] = RoundedInput(percentile).to(next(layer.parameters()).device)
            layer.rounded_input = roundings[path]
            handles.append(layer.register_forward_pre_hook(round_input))
        _calibrate(model, list(roundings.values()), batches)
        for path, layer in layers.items():
            parametrize.register_parametrization(layer, "weight", RoundedWeight(isinstance(layer, StandardisedConv2d)))
            roundings[path].steps = steps
        yield roundings
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            if parametrize.is_parametrized(layer):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
                for name in orders[layer]:  # the weight came back as the last
                    parameter = getattr(layer, name)
                    delattr(layer, name)
                    layer.register_parameter(name, parameter)
            if hasattr(layer, "rounded_input"):
                del layer.rounded_input


@torch.no_grad()
def _calibrate(model: FusionModel, roundings: Sequence[RoundedInput], batches: Iterable[Batch]) -> None:
    """All layers in float at once, as a calibration of the graph reads them."""
    model.eval()
    device = next(model.parameters()).device
    for own in roundings:
        own.calibrating = True
    for batch in batches:
        model({k: v.to(device) for k, v in batch.arrays.items()}, batch.present_BM.to(device))
    for own in roundings:
        own.calibrating = False


def quantisation_aware(
    model: FusionModel,
    teacher: Teacher | None,
    prepared: Prepared,
    folder: Path,
    *,
    parts: Collection[str],
    config: DistilConfig | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    percentile: float = 99.99,
    keep: Keep = "last",
    voice: Voice | None = None,
) -> HealReport:
    """Train a model in place so that rounding `parts` to int8 costs little; see :func:`heal` for the rest.

    `before` and `after` of the report are measured under the rounding; the weights that stay are float, and not yet
    rounded. The encoders of `parts` train, with adapters, fusion and head.

    Args:
        model: float.
        teacher: the float model's own answers, or those of the model that it was cut from; None: labels alone.
        prepared: rows as they are read for the model.
        folder: as in `heal`.
        parts: inputs' names, or names.FUSION.
        config: the losses.
        epochs: None: as `heal`.
        learning_rate: None: a tenth of the recipe's: weights need to move by steps of their grid, not further.
        seed: of order and dropout.
        percentile: of an input's values that its range holds, on each side; the tails are cut.
        keep: which weights; see :data:`distil.Keep`.
        voice: progress.
    """
    rate = learning_rate or prepared.recipe.training.learning_rate / 10
    reader = own_reader(prepared)
    rows = prepared.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, min(CALIBRATION_ROWS, len(rows))).astype(int)]
    steps = round(OBSERVED * healing_steps(prepared, epochs))
    with rounded(model, parts, reader.batches(rows, 16), percentile=percentile, steps=steps):
        return heal(
            model,
            teacher,
            prepared,
            folder,
            parts=[n for n in model.names if n in parts],
            config=config,
            epochs=epochs,
            learning_rate=rate,
            seed=seed,
            keep=keep,
            voice=voice,
        )
