"""One cell through a frozen encoder. Dimensions: B batch, T tokens, D encoder width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from fuseline.lab.tokens import Tokens
from fuseline.lab.training.cache import Kept


def device_of(encoder: nn.Module) -> torch.device:
    return next((p.device for p in encoder.parameters()), torch.device("cpu"))


def encode_cell(encoder: nn.Module, arrays: Mapping[str, np.ndarray], threads: int) -> Kept:
    """The tokens of a batch of one.

    One cell at a time and in one thread, so that what is kept depends on that cell alone: neighbours pad a batch, and
    the number of threads changes the last bits of a convolution. Callers spread cells over threads instead.

    `threads`: of torch, as before and after.
    """
    device = device_of(encoder)
    with torch.inference_mode(), _one_thread(threads):
        tokens: Tokens = encoder(**{k: torch.from_numpy(v).to(device) for k, v in arrays.items()})
    aside = {k: v[0].cpu().numpy().copy() for k, v in (tokens.aside or {}).items()}
    values_TD, mask_T = tokens.values_BTD[0].float().cpu(), tokens.mask_BT[0].bool().cpu()
    return Kept(values_TD.numpy().copy(), mask_T.numpy().copy(), aside)


def same(a: Kept, b: Kept) -> bool:
    """To the bit: NaN is NaN."""
    pairs = [(a.values_TD, b.values_TD), (a.mask_T, b.mask_T), *((a.aside[k], b.aside.get(k)) for k in a.aside)]
    return a.aside.keys() == b.aside.keys() and all(
        y is not None and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


@contextmanager
def _one_thread(threads: int) -> Iterator[None]:
    """For the calling thread: torch counts its threads for each thread that calls it. What is set afterwards comes from
    the caller, since another thread may be inside here and be asked in vain."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
