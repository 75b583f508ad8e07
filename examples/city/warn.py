"""Warnings from a forecast's interval, and how good they were.

Dimensions: N rows, K steps ahead, C channels. Three levels, by what of the forecast's 80 % interval crosses the
threshold at any step: `watch`, its nearer end; `warning`, the median; `alarm`, all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

LEVELS = ("none", "watch", "warning", "alarm")
Side = Literal["below", "above"]


@dataclass(frozen=True)
class Threshold:
    """What is bad: numbers `side` the `bound`, for at least one step."""

    bound: float
    side: Side

    def crossed(self, values: np.ndarray) -> np.ndarray:
        """bool, False where a number is not known."""
        with np.errstate(invalid="ignore"):
            return values < self.bound if self.side == "below" else values > self.bound


JAM = Threshold(35.0, "below")
"""mph: the road is jammed"""
SMOG = Threshold(150.0, "above")
"""µg/m³ of pm2.5: "very unhealthy" by the scale of the United States' air quality index as it was in 2014"""


def levels(
    low: np.ndarray, middle: np.ndarray, high: np.ndarray, threshold: Threshold
) -> tuple[np.ndarray, np.ndarray]:
    """`low`, `middle`, `high`: quantiles (..., K, C). Returns level (..., C), an index into LEVELS, and the first step
    (..., C) at which that level is reached, from 1; 0 where there is none."""
    order = (high, middle, low) if threshold.side == "above" else (low, middle, high)
    crossed = np.stack([threshold.crossed(np.asarray(q, dtype=float)) for q in order])  # (3, ..., K, C)
    level = crossed.any(axis=-2).sum(axis=0)  # quantiles are in order: the alarm crosses where the watch does
    chosen = np.take_along_axis(crossed, np.maximum(level - 1, 0)[None, ..., None, :], axis=0)[0]
    step = np.where(level > 0, chosen.argmax(axis=-2) + 1, 0)
    return level, step


def proof(truth_NKC: np.ndarray, now_NC: np.ndarray, level_NC: np.ndarray, threshold: Threshold) -> dict[str, Any]:
    """Precision and recall of each level, for what had not crossed yet: that it goes on is no forecast.

    `now_NC`: the last known number; NaN counts as not crossed. `calm` is the share of all (row, channel) left in.
    """
    calm_NC = ~threshold.crossed(now_NC) & ~np.isnan(truth_NKC).all(axis=1)
    came_NC = threshold.crossed(truth_NKC).any(axis=1)
    out: dict[str, Any] = {
        "calm": float(calm_NC.sum() / max(1, calm_NC.size)),
        "events": int((came_NC & calm_NC).sum()),
    }
    for index, name in enumerate(LEVELS[1:], start=1):
        said_NC = (level_NC >= index) & calm_NC
        right = int((said_NC & came_NC).sum())
        said, came = int(said_NC.sum()), out["events"]
        out[name] = {
            "said": said,
            "precision": right / said if said else None,
            "recall": right / came if came else None,
        }
    return out
