"""How unlike the training rows a row's inputs are, from the statistics that profile.json keeps of each. numpy only.

An input's statistics (a picture's brightness and contrast, a text's length and unknown words, a record's numbers ...)
each have a tail chance in the training rows; the score is the largest surprise, -ln of the smallest one, with what lies
outside all that was seen the more surprising the farther out it is. What is told is the share of held-out rows that are
less odd. It sees what the statistics see: a sharp picture of another thing altogether may look ordinary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

POINTS = 101
"""quantiles of the held-out rows' scores that are kept"""


class Oddness:
    """Scores inputs against a package's profile."""

    def __init__(self, profile: Mapping[str, Any], held_out: Mapping[str, Any]) -> None:
        """`held_out`: input -> {"rows", "quantiles" of their scores}, as :func:`fit_odd` gives it."""
        self.profile = profile
        self.held_out = {name: np.array(one["quantiles"], np.float64) for name, one in held_out.items()}
        self.rows = {name: int(one["rows"]) for name, one in held_out.items()}

    def score(self, name: str, stats: Mapping[str, float | str]) -> float:
        """The largest surprise among one input's statistics; 0 where it has none."""
        surprises = [
            surprise(self.profile[key], value)
            for stat, value in stats.items()
            if (key := f"{name}.{stat}") in self.profile
        ]
        return _rounded(max(surprises, default=0.0))

    def share(self, name: str, stats: Mapping[str, float | str]) -> float | None:
        """Share of the held-out rows that are less odd in this input, ties half; None where none had it."""
        known = self.held_out.get(name)
        if known is None or not len(known):
            return None
        score = self.score(name, stats)
        below = (np.searchsorted(known, score, "left") + np.searchsorted(known, score, "right")) / 2
        return float(below / len(known))


def _rounded(score: float) -> float:
    """As it is kept: rows of the same score must find each other again."""
    return float(f"{score:.6g}")


def surprise(sketch: Mapping[str, Any], value: float | str) -> float:
    """-ln of the chance that a training row is at least as far out as this value, >= 0."""
    count = int(sketch.get("count") or 0)
    if not count:
        return 0.0
    least = 1 / (count + 1)
    if sketch["kind"] == "category":
        counts = {str(v): int(n) for v, n in sketch["top"]}
        own = counts.get(str(value), 0)
        rarer = sum(n for n in counts.values() if n <= own)
        return -math.log(max(rarer / count, least))
    number = float(value)
    if not math.isfinite(number) or "cdf" not in sketch:
        return -math.log(least)
    at, share = sketch["cdf"]["at"], sketch["cdf"]["share"]
    below = float(np.interp(number, at, share, left=0.0))
    above = 1 - float(np.interp(number, at, [0.0, *share[:-1]], left=0.0, right=1.0))
    out = -math.log(min(1.0, max(2 * min(below, above), least)))
    low, high = float(sketch["min"]), float(sketch["max"])
    gap = max(low - number, number - high, 0.0)
    return out + math.log1p(gap / (float(sketch["std"] or 0.0) or max(abs(high), 1e-9))) if gap else out


def fit_odd(profile: Mapping[str, Any], stats: Mapping[str, Sequence[Mapping[str, float | str]]]) -> dict[str, Any]:
    """What sure.json holds. `stats`: input -> the statistics of held-out rows that have it."""
    scorer = Oddness(profile, {})
    out = {}
    for name, rows in stats.items():
        scores = np.array([scorer.score(name, one) for one in rows])
        if len(scores):
            kept = np.quantile(scores, np.linspace(0, 1, POINTS)) if len(scores) > POINTS else np.sort(scores)
            out[name] = {"rows": len(scores), "quantiles": [_rounded(float(v)) for v in kept]}
    return out
