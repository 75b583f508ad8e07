"""The last ten minutes of a model in points of five seconds: what the console draws."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Any

STEP = 5.0
POINTS = 120
KEPT = 2000
"""latencies of one point that its percentiles are taken of"""
REFUSED = frozenset({"overloaded", "rate_limited", "draining", "not_ready"})
"""the server said no: neither an answer nor a fault"""
HARMLESS = frozenset({"ok", "cancelled", *REFUSED})


class Series:
    """Counts of one model. Times are unix seconds, latencies seconds."""

    def __init__(self) -> None:
        self.points: deque[list[float | None]] = deque(maxlen=POINTS)
        self.totals = {"requests": 0, "errors": 0, "rows": 0}
        self.answers: Counter[str] = Counter()
        self.waiting = 0
        self._start = 0.0
        self._requests = self._errors = self._refused = 0
        self._latencies: list[float] = []

    def add(self, now: float, code: str, seconds: float, rows: int) -> None:
        self.roll(now)
        self._requests += 1
        self.totals["requests"] += 1
        self.totals["rows"] += rows
        if code in REFUSED:
            self._refused += 1
        elif code not in HARMLESS:
            self._errors += 1
            self.totals["errors"] += 1
        if code == "ok" and len(self._latencies) < KEPT:
            self._latencies.append(seconds)

    def roll(self, now: float) -> None:
        """Close points that have ended; silent ones count zero."""
        start = now - now % STEP
        if not self._start:
            self._start = start
        self._start = max(self._start, start - STEP * POINTS)
        while self._start < start:
            self.points.append(self._point())
            self._start += STEP
            self._requests = self._errors = self._refused = 0
            self._latencies = []

    def _point(self) -> list[float | None]:
        ordered = sorted(self._latencies)
        return [
            self._start,
            self._requests,
            self._errors,
            self._refused,
            _percentile(ordered, 0.5),
            _percentile(ordered, 0.95),
            self.waiting,
        ]

    def to_dict(self, now: float) -> dict[str, Any]:
        self.roll(now)
        return {"series": [list(p) for p in self.points], "totals": dict(self.totals), "answers": dict(self.answers)}


def _percentile(ordered: list[float], share: float) -> float | None:
    """Milliseconds; None where nothing was answered."""
    if not ordered:
        return None
    return round(1000 * ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 2)
