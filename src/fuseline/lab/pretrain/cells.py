"""Which tokens are hidden, and hiding what of a cell they were made of.

Dimensions: B batch, T tokens of an input's encoder, S samples, L steps, C channels, N numbers, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fuseline.modalities import Modality

MASKS = ("[MASK]", "<mask>", "[UNK]", "<unk>")


def draw_hidden(mask_BT: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """`share` of each row's real tokens (B, T), at least one of them and never all; a lone one with chance `share`.

    Without a generator torch's global one draws, on the CPU.
    """
    rows = mask_BT.shape[0]
    noise_BT = torch.rand(mask_BT.shape, generator=generator).to(mask_BT.device)
    lone_B = torch.rand(rows, generator=generator).to(mask_BT.device) < share
    count_B = mask_BT.sum(dim=1)
    some_B = torch.minimum((count_B * share).round().clamp(min=1), count_B - 1)
    hidden_B = torch.where(count_B == 1, lone_B.to(some_B), some_B)
    rank_BT = noise_BT.masked_fill(~mask_BT, 2.0).argsort(dim=1).argsort(dim=1)
    return (rank_BT < hidden_B[:, None]) & mask_BT


def hide(modality: Modality, own: Mapping[str, Tensor], hidden_BT: Tensor) -> dict[str, Tensor]:
    """An input's arrays without what its hidden tokens were made of, where the modality's tokens have such a place:
    words become the tokenizer's mask or unknown word, cells of a picture's grid its mean colour, a stretch of sound
    silence, patches of a series gaps, features absent. The others (videos, documents, graphs, sets) and encoders whose
    tokens are arranged in another way come back as they are: their tokens are hidden behind the encoder alone.
    """
    out = dict(own)
    tokens = hidden_BT.shape[1]
    if modality.name == "text" and own["ids"].shape[1] == tokens:
        out["ids"] = torch.where(hidden_BT, _mask_id(modality), own["ids"])
    elif modality.name == "image" and math.isqrt(tokens) ** 2 == tokens:
        out["pixels"] = _without_cells(own["pixels"], hidden_BT)
    elif modality.name == "audio":
        samples = own["waveform"].shape[1]
        at_S = torch.arange(samples, device=hidden_BT.device) * tokens // samples
        out["waveform"] = own["waveform"].masked_fill(hidden_BT[:, at_S], 0.0)
    elif modality.name == "timeseries":
        out |= _with_gaps(own, hidden_BT)
    elif modality.name == "tabular":
        out |= _without_features(own, hidden_BT)
    return out


def _mask_id(modality: Modality) -> int:
    tokenizer = getattr(modality, "tokenizer", None)
    found = (tokenizer.token_to_id(word) for word in MASKS) if tokenizer is not None else ()
    return next((int(i) for i in found if i is not None), int(getattr(modality, "pad_id", 0)))


def _without_cells(pixels_BHWC: Tensor, hidden_BT: Tensor) -> Tensor:
    rows, high, wide, _ = pixels_BHWC.shape
    side = math.isqrt(hidden_BT.shape[1])
    grid = hidden_BT.view(rows, 1, side, side).float()
    hidden_BHW1 = F.interpolate(grid, size=(high, wide), mode="nearest").permute(0, 2, 3, 1) > 0
    mean_B11C = pixels_BHWC.float().mean(dim=(1, 2), keepdim=True).to(pixels_BHWC.dtype)
    return torch.where(hidden_BHW1, mean_B11C, pixels_BHWC)


def _with_gaps(own: Mapping[str, Tensor], hidden_BT: Tensor) -> dict[str, Tensor]:
    _, length, channels = own["values"].shape
    patches, rest = divmod(hidden_BT.shape[1], channels)
    if rest:
        return {}
    # Patches end with the series: the first one is short.
    size = -(-length // patches)
    hidden_BLC = hidden_BT.reshape(len(hidden_BT), channels, patches).repeat_interleave(size, dim=2)[:, :, -length:]
    hidden_BLC = hidden_BLC.transpose(1, 2)
    return {"values": own["values"].masked_fill(hidden_BLC, 0.0), "known": own["known"] & ~hidden_BLC}


def _without_features(own: Mapping[str, Tensor], hidden_BT: Tensor) -> dict[str, Tensor]:
    numbers = own["numbers"].shape[1] if "numbers" in own else 0
    categories = own["categories"].shape[1] if "categories" in own else 0
    if numbers + categories != hidden_BT.shape[1]:
        return {}
    out = {}
    if numbers:
        out["numbers_present"] = own["numbers_present"] & ~hidden_BT[:, :numbers]
    if categories:
        out["categories"] = own["categories"].masked_fill(hidden_BT[:, numbers:], 0)
    return out
