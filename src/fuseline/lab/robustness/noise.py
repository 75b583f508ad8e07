"""Noise of stated strength, from the same parts that training uses, with nothing left to chance but the draw.

Dimensions: B batch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fuseline.lab.augment import augment_class
from fuseline.lab.augment.base import Arrays, Draw
from fuseline.modalities import Modality

BASE: dict[str, tuple[dict[str, float], str]] = {
    "image": ({"noise": 0.1}, "deviation of noise on pixels, in shares of their range"),
    "video": ({"noise": 0.1}, "deviation of noise on pixels, in shares of their range"),
    "audio": ({"noise": 0.3}, "deviation of noise, in shares of the sound's loudness"),
    "text": ({"drop": 0.2}, "share of tokens hidden"),
    "tabular": ({"jitter": 0.3, "drop": 0.1}, "noise in columns' deviations; a third as many features are taken away"),
    "timeseries": ({"jitter": 0.3}, "deviation of noise, in channels' deviations"),
    "document": ({"drop": 0.2, "noise": 0.1}, "share of words hidden; half as much noise on pixels"),
}
"""by modality: what noise of strength 1 is, and the unit in which the first option is told"""
SETS = {"images": "image", "texts": "text"}


def noise_of(modality: Modality) -> tuple[dict[str, float], str] | None:
    """None where no noise is known (entities of a graph)."""
    return BASE.get(SETS.get(modality.name, modality.name))


def noisy(own: Arrays, present_B: Tensor, modality: Modality, strength: float, draw: Draw) -> Arrays:
    """One input's arrays under noise; only of an input that :func:`noise_of` knows."""
    found, cls = noise_of(modality), augment_class(modality.name)
    assert found is not None
    assert cls is not None
    fields: Any = cls.Config.model_fields
    still = {k: f.default if f.annotation not in (float, bool) else type(f.default)(0) for k, f in fields.items()}
    options = {k: min(v * strength, 0.95) for k, v in found[0].items()}
    return cls(cls.Config(**{**still, **options}), modality)(own, present_B, draw)
