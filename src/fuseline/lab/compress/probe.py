"""Running one part of the model alone: what cuts are found with and checked by.

Dimensions: B batch, M inputs, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fuseline.lab.compress.names import FUSION, modules_of
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.reader import Batch

CLOSE = 1e-3
"""Two runs agree when they differ by less than this share of the largest value: another order of adding is far below,
and a wrong cut far above."""


@contextmanager
def steady(model: nn.Module) -> Iterator[None]:
    """Eval mode, and no weight asks for a gradient; afterwards both are as before, module by module.

    By hand, since a frozen encoder's own `train` would refuse; by name, since a cut puts new weights in old places.
    """
    modes = [(module, module.training) for module in model.modules()]
    asked = {name: weight.requires_grad for name, weight in model.named_parameters()}
    for module, _ in modes:
        module.training = False
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for name, weight in model.named_parameters():
            weight.requires_grad_(asked.get(name, False))


def some_rows(batch: Batch, count: int = 4) -> Batch:
    """The rows that have most of the inputs. At least two: a dimension of 1 hides mistakes."""
    order = batch.present_BM.sum(1).argsort(descending=True, stable=True)[:count]
    if len(order) == 1:
        order = order.repeat(2)
    targets = None if batch.targets is None else batch.targets[order]
    arrays = {name: array[order] for name, array in batch.arrays.items()}
    return Batch(arrays, batch.present_BM[order], targets, batch.rows[order.numpy()])


class Part:
    """An input's encoder, or fusion and head behind tokens that were computed once. The model must be steady."""

    def __init__(self, model: FusionModel, part: str, batch: Batch) -> None:
        self.model, self.name, self.batch = model, part, batch
        self.roots = modules_of(part, model.names)
        self.tokens: dict[str, Tokens] = {}
        self.aside: Mapping[str, Tensor] | None = None
        self.arrays: dict[str, Tensor] = {}
        if part == FUSION:
            with torch.no_grad():
                self.tokens = model.encode(batch.arrays)
        else:
            self.arrays = own_arrays(batch.arrays, part)
            self.roots = self.roots[:1]  # an adapter is as wide as the tokens and the model: nothing to cut

    @property
    def runs(self) -> bool:
        """Whether the batch holds the encoder's cells. Of a frozen encoder it may hold the tokens instead."""
        return "tokens" not in self.arrays

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Path and module of all that is in the part."""
        for root in self.roots:
            yield from self.model.get_submodule(root).named_modules(prefix=root)

    def run(self) -> list[Tensor]:
        """Real tokens (0 elsewhere) and their mask; or fusion's and head's outputs."""
        if self.name == FUSION:
            return list(self._answer(self.tokens).values())
        encoder = self.model.encoders[self.model.names.index(self.name)]
        values_BTD, mask_BT, self.aside = encoder(**self.arrays)
        return [torch.where(mask_BT[..., None], values_BTD, 0.0), mask_BT]

    def heard(self) -> frozenset[str]:
        """Inputs whose tokens make a difference to the answer. A cut must not make fusion deaf to one of them."""
        if self.name != FUSION:
            return frozenset()
        with torch.enable_grad():
            tokens = {n: t._replace(values_BTD=t.values_BTD.clone().requires_grad_()) for n, t in self.tokens.items()}
            answer = torch.stack([value.square().sum() for value in self._answer(tokens).values()]).sum()
            given = [t.values_BTD for t in tokens.values()]
            slopes = (
                torch.autograd.grad(answer, given, allow_unused=True) if answer.requires_grad else [None] * len(given)
            )
        return frozenset(n for n, g in zip(tokens, slopes, strict=True) if g is not None and bool(g.any()))

    def _answer(self, tokens: dict[str, Tokens]) -> dict[str, Tensor]:
        return self.model.answer(tokens, self.batch.present_BM)


def own_arrays(arrays: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """One input's arrays, as its encoder names them."""
    return {key[len(name) + 1 :]: value for key, value in arrays.items() if key.startswith(name + ".")}


def same_shapes(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    """And every number finite in `b`."""
    pairs = list(zip(a, b, strict=True))
    return all(x.shape == y.shape and bool(y.isfinite().all()) for x, y in pairs)


def close(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    """Equal up to rounding."""
    pairs = list(zip(a, b, strict=True))
    return same_shapes((x for x, _ in pairs), (y for _, y in pairs)) and all(
        float((x.float() - y.float()).abs().max()) <= CLOSE * max(float(x.float().abs().max()), 1e-6) for x, y in pairs
    )


def first_tensor(value: Any) -> Tensor | None:
    """The first floating tensor in a module's arguments or result, whatever they are wrapped in."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return next((found for item in value if (found := first_tensor(item)) is not None), None)
    return None


def channels_last(x: Tensor) -> Tensor:
    """A map (B, C, H, W) as (B, H, W, C); tokens (B, T, D) and vectors (B, D) as they are."""
    return x.movedim(1, -1) if x.dim() == 4 else x
