"""Columns that give the target away: copies of it, or values that decide it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from fuseline.data.guess import is_blank, key_of, to_number

SURE = 0.99
LEAST_ROWS = 20
MOST_ROWS = 5000


def gives_away(cells: Sequence[Any], target: Sequence[Any], *, numeric: bool) -> str | None:
    """Why `cells` (N,) are suspected to give `target` (N,) away, or None.

    A value decides a row's target if the other rows with the same value foretell it. Most rows must share their value
    with another, so that a column of all different values is never suspected. Both columns are a sample of
    the same rows, of which 5,000 are looked at; rows with either absent do not count.
    """
    step = -(-len(cells) // MOST_ROWS)
    cells, target = cells[::step], target[::step]
    pairs = [(c, t) for c, t in zip(cells, target, strict=True) if not is_blank(c) and not is_blank(t)]
    if len(pairs) < LEAST_ROWS:
        return None
    column, aim = zip(*pairs, strict=True)
    if numeric:
        return _of_number(column, [to_number(str(t)) for t in aim])
    labels = [key_of(t) for t in aim]
    if [key_of(c) for c in column] == labels:
        return "a copy of the target"
    shared, right, rest = _foretold(list(map(key_of, column)), labels)
    # Rows of one class are foretold by anything: the column must explain most of the other classes' rows too.
    if shared >= max(LEAST_ROWS, 0.8 * len(pairs)) and right >= SURE * shared and shared - right <= 0.2 * rest:
        return f"its value decides the target in {right} of {shared} rows" if rest >= 5 else None
    return None


def _foretold(values: list[str], labels: list[str]) -> tuple[int, int, int]:
    """Rows whose value others share; how many of them have the label that is most frequent among the others; and how
    many of them are not of the commonest label."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for value, label in zip(values, labels, strict=True):
        counts[value][label] += 1
    shared = right = 0
    total: Counter[str] = Counter()
    for labels_of in counts.values():
        size = sum(labels_of.values())
        if size == 1:
            continue
        shared += size
        total += labels_of
        for label, count in labels_of.items():
            others = max((n for other, n in labels_of.items() if other != label), default=0)
            right += count if count - 1 > others else 0
    return shared, right, shared - max(total.values(), default=0)


def _of_number(column: Sequence[Any], aim: list[float | None]) -> str | None:
    numbers = [to_number(key_of(c)) for c in column]
    both = [(a, b) for a, b in zip(numbers, aim, strict=True) if a is not None and b is not None]
    if len(both) >= max(LEAST_ROWS, 0.98 * len(aim)):
        x, y = np.array(both).T
        if np.ptp(x) > 0 and np.ptp(y) > 0:
            correlation = abs(float(np.corrcoef(x, y)[0, 1]))
            if correlation >= 0.9999:
                return f"the target on another scale (correlation {correlation:.5f} over {len(both)} rows)"
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for value, number in zip(column, aim, strict=True):
        if number is not None:
            groups[key_of(value)].append(number)
    known = np.array([n for n in aim if n is not None])
    total = float(((known - known.mean()) ** 2).sum())
    if total == 0:
        return None
    # Leaving each row out: with n rows of a value, its own share of the error grows by (n / (n - 1))².
    left = 0.0
    for numbers_of in groups.values():
        n = len(numbers_of)
        mean = float(known.mean()) if n == 1 else float(np.mean(numbers_of))
        factor = 1.0 if n == 1 else (n / (n - 1)) ** 2
        left += factor * float(((np.array(numbers_of) - mean) ** 2).sum())
    if 1 - left / total >= SURE:
        return f"its value decides the target ({100 * (1 - left / total):.1f} % of its variance, {len(known)} rows)"
    return None
