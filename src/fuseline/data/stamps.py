"""Values with stamps of their own to an even grid. Dimensions: N stamped values, L steps, C channels."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_STEPS = 1_000_000


def seconds_of(stamp: Any) -> float:
    """A stamp as seconds: a number as it is, a date or an ISO 8601 text since 1970 (without an offset: UTC).

    Raises ValueError for anything else.
    """
    if isinstance(stamp, bool) or stamp is None:
        raise ValueError("no stamp")
    if isinstance(stamp, (int, float, np.number)):
        seconds = float(stamp)
    else:
        when = stamp if isinstance(stamp, datetime.datetime) else datetime.datetime.fromisoformat(str(stamp).strip())
        seconds = (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)).timestamp()
    if not np.isfinite(seconds):
        raise ValueError("no stamp")
    return seconds


def usual_step(seconds_N: np.ndarray) -> float:
    """The median distance of neighbours that differ; 1 where there are none."""
    gaps = np.diff(np.unique(seconds_N))
    return float(np.median(gaps)) if len(gaps) else 1.0


def on_grid(seconds_N: np.ndarray, values_NC: np.ndarray, step: float, most: int = MOST_STEPS) -> np.ndarray:
    """(L, C) float64: the mean of what falls nearest to each step, NaN where nothing does. The last step is the last
    stamp; what lies more than `most` steps before it is left out."""
    back_N = np.rint((seconds_N.max() - seconds_N) / step)
    kept_N = back_N < most
    place_N = back_N[kept_N].astype(np.int64)
    length = int(place_N.max(initial=0)) + 1
    known_NC = ~np.isnan(values_NC[kept_N])
    total_LC = np.zeros((length, values_NC.shape[1]))
    count_LC = np.zeros((length, values_NC.shape[1]))
    np.add.at(total_LC, length - 1 - place_N, np.where(known_NC, values_NC[kept_N], 0.0))
    np.add.at(count_LC, length - 1 - place_N, known_NC)
    return np.where(count_LC > 0, total_LC / np.maximum(count_LC, 1), np.nan)


def read_stamps(stamps: Sequence[Any]) -> np.ndarray:
    """(N,) seconds. Raises ValueError naming the place of what is none."""
    out = []
    for i, stamp in enumerate(stamps):
        try:
            out.append(seconds_of(stamp))
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"stamp {i + 1}, {str(stamp)[:40]!r}, is neither a number nor a date") from None
    return np.array(out)
