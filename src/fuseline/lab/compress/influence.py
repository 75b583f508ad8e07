"""How much each layer of a stack matters. Dimensions: B batch, T tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.probe import Part, channels_last, first_tensor, steady
from fuseline.lab.compress.stacks import Stack, only
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.reader import Batch


def importance(model: FusionModel, stack: Stack, batches: Sequence[Batch]) -> dict[int, float]:
    """How much each removable layer matters: sqrt(I · C), to be compared within one stack.

    I, block influence (Men et al. 2024, "ShortGPT"): 1 - cos(x_in, x_out), mean over real tokens or a map's places.
    Needs no labels, but does not see what becomes of the change. C, what it changes in the answer: with the layer left
    out, the root mean square change of every output and of the embedding, divided by that output's spread over the
    rows, and averaged over them. The product of both has no unit, and a layer that is small in either can go. One
    layer is left out at a time; `batches` hold cells, and only rows that have the input count.
    """
    influence = {i: _Mean() for i in stack.removable}
    change = {i: _Mean() for i in stack.removable}
    layers = model.get_submodule(stack.path)
    with steady(model), torch.no_grad():
        for batch in batches:
            part = Part(model, stack.part, batch)
            assert part.runs, f"{stack.part}: the batch holds tokens, not cells"
            answer = _Answer(model, part)
            here_B = batch.present_BM.any(1) if stack.part == FUSION else batch.present_BM[:, answer.column]
            if not here_B.any():
                continue
            seen = {i: _Influence(here_B) for i in stack.removable}
            hooks = [layers[i].register_forward_hook(seen[i], with_kwargs=True) for i in stack.removable]  # type: ignore[index]
            try:
                whole = answer.run()
            finally:
                for hook in hooks:
                    hook.remove()
            for i in stack.removable:
                influence[i].add(*seen[i].result(answer.mask_BT))
                with only(layers, [j for j in range(stack.length) if j != i]):
                    cut = answer.run()
                change[i].add(_change(whole, cut, here_B), int(here_B.sum()))
    return {i: float(np.sqrt(max(0.0, influence[i].value) * change[i].value)) for i in stack.removable}


class _Mean:
    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, mean: float, count: int) -> None:
        self.total, self.count = self.total + mean * count, self.count + count

    @property
    def value(self) -> float:
        return self.total / max(1, self.count)


class _Answer:
    """The whole model's outputs, of which only one part is run again."""

    def __init__(self, model: FusionModel, part: Part) -> None:
        self.model, self.part = model, part
        self.mask_BT: Tensor | None = None
        if part.name != FUSION:
            self.column = model.names.index(part.name)
            self.tokens = model.encode(part.batch.arrays)

    def run(self) -> list[Tensor]:
        if self.part.name == FUSION:
            return self.part.run()
        values_BTD, mask_BT = self.part.run()
        tokens = Tokens(values_BTD, mask_BT, self.part.aside)
        self.mask_BT = tokens.mask_BT
        self.tokens[self.part.name] = self.model.adapters[self.column](tokens)
        return list(self.model.answer(self.tokens, self.part.batch.present_BM).values())


def _change(whole: Sequence[Tensor], cut: Sequence[Tensor], here_B: Tensor) -> float:
    shares = []
    for a, b in zip(whole, cut, strict=True):
        x, y = a[here_B].float().flatten(1), b[here_B].float().flatten(1)
        spread = (x - x.mean(0)).square().mean().sqrt()
        shares.append(float((y - x).square().mean().sqrt() / (spread + 1e-6)))
    return float(np.mean(shares))


class _Influence:
    """A forward hook that gathers 1 - cos(in, out) of one layer over its calls in one batch."""

    def __init__(self, here_B: Tensor) -> None:
        self.here_B = here_B
        self.calls: list[tuple[Tensor, Tensor | None]] = []

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        given, got = first_tensor((args, kwargs)), first_tensor(result)
        assert given is not None
        assert got is not None
        x, y = channels_last(given).float(), channels_last(got).float()
        cosine = torch.cosine_similarity(x, y, dim=-1)
        # Where a layer takes nothing but zeros (past a sound's end), nothing can be said.
        cosine = torch.where(x.any(-1), cosine, torch.nan)
        self.calls.append((1 - cosine, _mask(args, kwargs, cosine)))

    def result(self, mask_BT: Tensor | None) -> tuple[float, int]:
        """Mean over real places of rows that have the input, and how many they are."""
        places = []
        for apart, own in self.calls:
            mask = own if own is not None else mask_BT
            if mask is not None and mask.shape == apart.shape:
                apart = torch.where(mask, apart, torch.nan)
            if len(apart) == len(self.here_B):
                apart = apart[self.here_B]
            places.append(apart.flatten())
        joined = torch.cat(places) if places else torch.zeros(0)
        joined = joined[~joined.isnan()]
        return (float(joined.mean()), len(joined)) if len(joined) else (0.0, 0)


def _mask(args: Any, kwargs: Any, like: Tensor) -> Tensor | None:
    """The layer's own mask of tokens, where it was given one."""
    flat: list[Any] = []
    for value in (*args, *kwargs.values()):
        flat += value if isinstance(value, tuple) else [value]
    return next((v for v in flat if isinstance(v, Tensor) and v.dtype == torch.bool and v.shape == like.shape), None)
