"""The moving average of the encoders that train, says hidden tokens. Dimensions: B batch, T tokens, D width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.checkpoint import trained_names


class AverageTeacher(nn.Module):
    """Holds a copy of what trains in the encoders, w' = decay · w' + (1 - decay) · w after each step, and nothing of
    what is frozen (BYOL: Grill et al. 2020; data2vec: Baevski et al. 2022). Its weights are buffers: they travel in
    checkpoints, and no optimiser sees them."""

    def __init__(self, model: FusionModel, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.places: dict[int, list[str]] = {}
        for place, encoder in enumerate(model.encoders):
            trained, state = trained_names(encoder), encoder.state_dict()
            if not any(p.requires_grad for p in encoder.parameters()):
                continue
            self.places[place] = sorted(trained)
            for i, name in enumerate(self.places[place]):
                self.register_buffer(f"average_{place}_{i}", state[name].detach().clone())

    def trains(self, place: int) -> bool:
        return place in self.places

    @torch.no_grad()
    def follow(self, model: FusionModel) -> None:
        for place, names in self.places.items():
            state = model.encoders[place].state_dict()
            for i, name in enumerate(names):
                mine = self.get_buffer(f"average_{place}_{i}")
                if mine.is_floating_point():
                    mine.lerp_(state[name].to(mine), 1 - self.decay)
                else:
                    mine.copy_(state[name])

    @torch.no_grad()
    def encode(self, model: FusionModel, arrays: Mapping[str, Tensor]) -> dict[str, Tokens]:
        """The encoders' own tokens of whole cells, without dropout."""
        out = {}
        for place, (name, encoder) in enumerate(zip(model.names, model.encoders, strict=True)):
            own = own_arrays(name, arrays)
            if "tokens" in own:
                out[name] = Tokens(own["tokens"], own["tokens_mask"].bool())
                continue
            with eval_mode(encoder):
                if self.trains(place):
                    names = self.places[place]
                    mine = {n: self.get_buffer(f"average_{place}_{i}") for i, n in enumerate(names)}
                    found: Tokens = functional_call(encoder, mine, (), own)
                else:
                    found = encoder(**own)
            out[name] = Tokens(found.values_BTD, found.mask_BT.bool())
        return out


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Within, a module is in eval mode; each of its parts is then as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
