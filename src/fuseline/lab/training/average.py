"""A moving average of the weights while they are trained: often better than the last ones, and a steadier teacher.

Tarvainen & Valpola 2017, "Mean teachers are better role models"; Polyak & Juditsky 1992.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from fuseline.lab.model import FusionModel


class Average:
    """avg ← d·avg + (1 - d)·weights after each optimiser step, of what training changes; the rest is the model's own.

    d = min(decay, (1 + n)/(10 + n)) at step n, so that a short training does not drag its first weights along: the
    average then spans about the last tenth of the steps made.
    """

    def __init__(self, model: FusionModel, names: frozenset[str], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items() if k in names}

    @torch.no_grad()
    def update(self, model: FusionModel) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = model.state_dict()
        for name, old in self._on(next(iter(now.values())).device).items():
            new = now[name]
            if new.is_floating_point():
                # What stayed as it is is no sum of shares of itself: constants may be infinite.
                old.copy_(torch.where(old == new, new, torch.lerp(old, new, 1 - decay)))
            else:
                old.copy_(new)

    def answer(self, model: FusionModel, arrays: Mapping[str, Tensor], present_BM: Tensor) -> dict[str, Tensor]:
        """The model's outputs under the averaged weights, in the mode (training or not) that the model is in."""
        weights = self._on(present_BM.device)
        # Tied weights are here under each of their names, with the same numbers.
        outputs: dict[str, Tensor] = functional_call(model, weights, (arrays, present_BM), tie_weights=False)
        return outputs

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        if any(v.device != device for v in self.weights.values()):
            self.weights = {k: v.to(device) for k, v in self.weights.items()}
        return self.weights

    def kept(self) -> dict[str, Tensor]:
        """A copy, as :func:`fuseline.lab.training.checkpoint.trained_state` makes of the model's own."""
        return {k: v.detach().cpu().clone() for k, v in self.weights.items()}

    def state(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": self.weights}

    def load(self, state: Mapping[str, Any]) -> None:
        self.updates, self.weights = state["updates"], {k: v.clone() for k, v in state["weights"].items()}
