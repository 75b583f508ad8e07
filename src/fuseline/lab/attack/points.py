"""Where an attack can push one input, and how far. Dimensions: B batch, T tokens, D width of an embedding.

A point is an array of numbers (pixels, samples, numbers of a record, steps of a series, a frozen encoder's kept tokens)
or what an embedding gave for ids (words, categories). An array's change is bounded in each number (L-infinity, Madry et
al. 2018), a row of vectors' in its length (L2, Miyato et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fuseline.lab.augment.sound import loudness
from fuseline.lab.encoders.base import Encoder
from fuseline.modalities import Modality
from fuseline.recipe import Radii

ARRAYS = {
    "pixels": "pixels",
    "frames": "pixels",
    "waveform": "waveform",
    "numbers": "numbers",
    "values": "series",
    "tokens": "embeddings",
}
"""array -> the radius that bounds its change"""
RANGES = {"pixels": (0.0, 255.0), "waveform": (-1.0, 1.0)}
"""what no change leaves"""


@dataclass
class Point:
    """One place of one input. `radius` is a tensor that broadcasts over `plain`, 0 where nothing may move."""

    plain: Tensor
    radius: Tensor
    kind: str
    """a key of :class:`fuseline.recipe.Radii`"""

    @property
    def lengths(self) -> bool:
        """Whether the length of a row's change is bounded, not each of its numbers."""
        return self.kind == "embeddings"

    def start(self, generator: torch.Generator) -> Tensor:
        """A random change within the radius."""
        noise = torch.rand(self.plain.shape, generator=generator, device=self.plain.device) * 2 - 1
        reach = self.radius / length_of(noise).clamp_min(1e-12) if self.lengths else self.radius
        return self.project(noise * reach)

    def step(self, gradient: Tensor, size: float) -> Tensor:
        """The steepest way up, `size` radii long."""
        if not self.lengths:
            return size * self.radius * gradient.sign()
        # Divided by the largest first: gradients of a sure model are so small that their squares are 0.
        scaled = gradient / _largest(gradient).clamp_min(1e-30)
        return size * self.radius * scaled / length_of(scaled).clamp_min(1e-12)

    def project(self, change: Tensor) -> Tensor:
        """The nearest change within the radius and the input's own range."""
        if self.lengths:
            return change * (self.radius / length_of(change).clamp_min(1e-12)).clamp_max(1.0)
        change = torch.minimum(torch.maximum(change, -self.radius), self.radius)
        low, high = RANGES.get(self.kind, (-torch.inf, torch.inf))
        return (self.plain + change).clamp(low, high) - self.plain if self.kind in RANGES else change


def length_of(rows: Tensor) -> Tensor:
    """L2 of each row over all of its numbers, (B, 1, ...)."""
    length_B: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1)
    return length_B.reshape(-1, *(1,) * (rows.ndim - 1))


def _largest(rows: Tensor) -> Tensor:
    return rows.flatten(1).abs().amax(dim=1).reshape(-1, *(1,) * (rows.ndim - 1))


def array_points(own: Mapping[str, Tensor], modality: Modality, radii: Radii) -> dict[str, Point]:
    """The arrays of one input that can be pushed, as points."""
    out = {}
    for key, kind in ARRAYS.items():
        if key in own:
            plain = own[key].float()
            out[key] = Point(plain, getattr(radii, kind) * _unit(key, plain, own, modality), kind)
    return out


def _unit(key: str, plain: Tensor, own: Mapping[str, Tensor], modality: Modality) -> Tensor:
    fitted: Any = modality
    match key:
        case "pixels" | "frames":
            return torch.full((1,) * plain.ndim, 255.0, device=plain.device)
        case "waveform":
            real = torch.arange(plain.shape[-1], device=plain.device) < own["length"][..., None]
            return loudness(plain, real) * real
        case "numbers":
            return torch.as_tensor(fitted.std).to(plain) * own["numbers_present"]
        case "values":
            return torch.tensor(fitted.std).to(plain) * own["known"]
        case _:
            return length_of(torch.where(own["tokens_mask"].bool()[..., None], plain, 0.0))


@contextmanager
def watched(encoder: Encoder, seen: dict[int, Tensor], changes: Mapping[int, Tensor]) -> Iterator[None]:
    """Within, each of the encoder's lookups leaves its vectors in `seen` and adds its change, where there is one."""

    def hook(place: int) -> Callable[..., Tensor]:
        def add(module: nn.Module, ids: Any, vectors: Tensor) -> Tensor:
            seen[place] = vectors.detach()
            return vectors + changes[place] if place in changes else vectors

        return add

    handles = [e.register_forward_hook(hook(i)) for i, e in enumerate(encoder.lookups())]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
