"""What the user asked for, and whether a measured candidate keeps to it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from fuseline.errors import FuselineError
from fuseline.lab.compress.measure import SMALLEST_SUBSET
from fuseline.recipe import Frozen

FEW_ROWS = 200
CHANGE_A_POINT = 0.04
"""On fewer rows than that a metric hardly tells half a point, and of rows that the model has learned by heart it tells
nothing. There the answers themselves may not move by more than this, on average, for each point that may be lost."""
SIZES = {"": 1e6, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
TIMES = {"": 1.0, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


class Budget(Frozen):
    """Limits; None: no limit."""

    max_latency: float | None = Field(None, gt=0, description="milliseconds for one decoded row, median")
    max_size: float | None = Field(None, gt=0, description="bytes of the whole package")
    max_drop: float | None = Field(None, ge=0, description="points of the metric; of errors in units: percent")

    def why_not(self, trial: Mapping[str, Any]) -> list[str]:
        """What of the budget a trial breaks, in words; empty where it keeps to it.

        A subset of inputs breaks it only where its drop is surely above the limit (its interval's lower end), since
        few rows have just those inputs; the drop over all rows is taken as measured. Where few rows judge, the mean
        change of the answers is limited, too.
        """
        if trial["failed"]:
            return [str(trial["failed"])]
        broken = self.of_drop(trial)
        latency, size = trial["latency"]["1"]["median"], trial["size_bytes"]
        if self.max_latency is not None and latency > self.max_latency:
            broken.append(f"{latency:.1f} ms > {self.max_latency:g} ms")
        if self.max_size is not None and size > self.max_size:
            broken.append(f"{size / 1e6:.1f} MB > {self.max_size / 1e6:g} MB")
        return broken

    def of_drop(self, trial: Mapping[str, Any]) -> list[str]:
        """The part of `why_not` that no smaller or faster model mends."""
        if trial["failed"]:
            return [str(trial["failed"])]
        if self.max_drop is None:
            return []
        broken = []
        value = trial["drop"]["value"]
        if value is None:
            broken.append("the metric is not defined on the rows that choose")
        elif value > self.max_drop:
            broken.append(f"drop {value:.2f} > {self.max_drop:g}")
        rows, change = trial["subsets"][0]["rows"] if trial["subsets"] else FEW_ROWS, trial["change"]
        if rows < FEW_ROWS and change > CHANGE_A_POINT * self.max_drop:
            broken.append(f"mean change {change:.3f} > {CHANGE_A_POINT * self.max_drop:.3f}, and {rows} rows are few")
        for entry in trial["subsets"][1:]:
            low = entry["drop"]["low"]
            if low is not None and entry["rows"] >= SMALLEST_SUBSET and low > self.max_drop:
                present = ", ".join(entry["present"])
                broken.append(f"with {present} only: drop {entry['drop']['value']:.2f}, surely above {low:.2f}")
        return broken

    def distance(self, trial: Mapping[str, Any]) -> float:
        """How far a trial is from the budget, 0 where it keeps to it: the sum of logarithms of what is too much."""
        if trial["failed"]:
            return math.inf
        far = 0.0
        if self.max_latency is not None:
            far += max(0.0, math.log(trial["latency"]["1"]["median"] / self.max_latency))
        if self.max_size is not None:
            far += max(0.0, math.log(trial["size_bytes"] / self.max_size))
        if self.max_drop is not None:
            value = trial["drop"]["value"]
            far += math.inf if value is None else max(0.0, value - self.max_drop) / max(1.0, self.max_drop)
        return far

    def to_dict(self) -> dict[str, Any]:
        return {
            "max_latency_ms": self.max_latency,
            "max_size_mb": None if self.max_size is None else self.max_size / 1e6,
            "max_drop": self.max_drop,
        }


def read_budget(latency: str | float | None, size: str | float | None, drop: float | None) -> Budget:
    """From `30ms`, `50MB`, `0.5`. A bare number is milliseconds, megabytes, points. Raises ``bad_budget``."""
    if drop is not None and not 0 <= drop <= 100:
        raise FuselineError("bad_budget", f"a drop of {drop} points", "between 0 and 100; 0.5 is half a point")
    return Budget(
        max_latency=_quantity(latency, TIMES, "latency", "30ms"),
        max_size=_quantity(size, SIZES, "size", "50MB"),
        max_drop=drop,
    )


def _quantity(given: str | float | None, units: Mapping[str, float], what: str, example: str) -> float | None:
    if given is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?\d+)?)\s*([a-zµ]*)\s*", str(given).lower())
    if found is None or found[2] not in units or float(found[1]) <= 0:
        raise FuselineError(
            "bad_budget", f"{given!r} is no {what}", f"e.g. {example}; units: {', '.join(u for u in units if u)}"
        )
    return float(found[1]) * units[found[2]]
