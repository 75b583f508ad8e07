"""The trained model behind the loop that a package's graphs are behind, too: numpy in, numpy out.

Dimensions: B rows, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuseline.lab.decoders.base import Decoder
from fuseline.lab.model import FusionModel
from fuseline.tasks.decoding import State, Steps


def to_numpy(outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {k: v.float().cpu().numpy() for k, v in outputs.items()}


def decoder_of(model: FusionModel) -> Decoder | None:
    """What writes token by token in this model, if anything does."""
    decoder: Any = getattr(model.head, "decoder", None)
    return decoder if isinstance(decoder, Decoder) else None


def steps_of(model: FusionModel) -> Steps | None:
    """What makes one token more (:data:`fuseline.tasks.decoding.Steps`); None where the model does not write."""
    decoder = decoder_of(model)
    if decoder is None:
        return None
    device = next(model.parameters()).device

    @torch.inference_mode()
    def step(ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        given = {k: torch.from_numpy(np.ascontiguousarray(v)).to(device) for k, v in state.items()}
        said = decoder.step(torch.from_numpy(ids).to(device), given)
        grown = {k: v for k, v in said.state.items() if k.startswith("cache.")}
        return said.logits_BLV[:, -1].float().cpu().numpy(), {**state, **to_numpy(grown)}

    return step
