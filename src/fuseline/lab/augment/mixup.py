"""Rows mixed with each other, all inputs at once. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fuseline.lab.tokens import Tokens


class Mixed(NamedTuple):
    """`share` of each row is its own, the rest its partner's."""

    tokens: dict[str, Tokens]
    partner_B: Tensor
    share: float


def mix(tokens: Mapping[str, Tokens], present_BM: Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """Mixup (Zhang et al. 2018): x = λ·x_i + (1 - λ)·x_j with λ from Beta(α, α), one λ a batch as in its authors' code;
    the loss is λ·L(y_i) + (1 - λ)·L(y_j).

    Mixed are the tokens between encoders and fusion (Verma et al. 2019, "Manifold Mixup", at one place): word ids and
    categories cannot be mixed before, sounds differ in length, and behind the fusion only a linear layer would learn of
    it. All inputs of a row get the same partner and λ, so that they still belong together. Partners have the same
    inputs present: an absent input stays absent and is never filled from another row. Where only one of two texts has a
    token, that token stays as it is.
    """
    share = float(rng.beta(alpha, alpha))
    partner_B = torch.from_numpy(partners(present_BM.cpu().numpy(), rng)).to(present_BM.device)
    out = {}
    for name, own in tokens.items():
        other_BTD, other_BT = own.values_BTD[partner_B], own.mask_BT[partner_B].bool()
        own_BT = own.mask_BT.bool()
        both_BTD = share * own.values_BTD + (1 - share) * other_BTD
        one_BTD = torch.where(own_BT[..., None], own.values_BTD, other_BTD)
        values_BTD = torch.where((own_BT & other_BT)[..., None], both_BTD, one_BTD)
        out[name] = own._replace(values_BTD=values_BTD, mask_BT=own_BT | other_BT)
    return Mixed(out, partner_B, share)


def partners(present_BM: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B,) of row numbers: a random order of the rows within each set of rows that have the same inputs."""
    out = np.arange(len(present_BM))
    _, pattern_B = np.unique(present_BM, axis=0, return_inverse=True)
    for pattern in range(int(pattern_B.max(initial=-1)) + 1):
        rows = np.flatnonzero(pattern_B.reshape(-1) == pattern)
        out[rows] = rng.permutation(rows)
    return out
