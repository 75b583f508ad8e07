"""What was evaluated is what is served: the written package is replayed and compared, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.runtime import Predictor
from fuseline.tasks.decoding import Forced, by_steps


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |a - b|, relative where values exceed 1 (regression answers may be in the millions)."""
    return float((np.abs(a - b) / np.maximum(1.0, np.abs(a))).max(initial=0.0))


def replay(
    predictor: Predictor,
    rows: Sequence[Mapping[str, Any]],
    expected: Mapping[str, np.ndarray],
    *,
    batch_sizes: Sequence[int] = (1, 2, 3, 7),
    tolerance: float,
) -> dict[str, Any]:
    """Run parsed rows through the package in batches of several sizes. Raises ``parity`` above the tolerance.

    Args:
        predictor: the written package, opened.
        rows: parsed values by input.
        expected: the training model's outputs of the same rows, by name.
        batch_sizes: taken in turn.
        tolerance: of :func:`difference`.
    """
    worst, by_output, done, turn = 0.0, dict.fromkeys(expected, 0.0), 0, 0
    writes = by_steps(predictor.task)
    while done < len(rows):
        size = batch_sizes[turn % len(batch_sizes)]
        # A text is followed word by word: two words of equal chance may fall either way, what is said of them may not.
        how = Forced(expected["ids"][done : done + size]) if writes else None
        got = predictor.run(rows[done : done + size], how)
        for name, values in expected.items():
            gap = difference(values[done : done + size], got[name])
            if not np.isfinite(gap):
                raise FuselineError("parity", f"output {name} of the package is not finite", "report this")
            by_output[name] = max(by_output[name], gap)
            worst = max(worst, gap)
        done += size
        turn += 1
    report = {
        "rows": len(rows),
        "batch_sizes": list(batch_sizes),
        "max_abs_difference": worst,
        "by_output": by_output,
        "tolerance": tolerance,
    }
    if writes:
        same = (predictor.run(rows)["ids"] == expected["ids"]).all(axis=1)
        report["identical_answers"] = int(same.sum())
    if worst > tolerance:
        raise FuselineError(
            "parity",
            f"the package answers up to {worst:.2g} away from the trained model, more than {tolerance:g}",
            "the package was not written; raise evaluation.tolerance only if you know why they differ",
        )
    return report


def self_agreement(
    predictor: Predictor,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_sizes: Sequence[int] = (1, 2, 3, 7),
    tolerance: float,
) -> dict[str, Any]:
    """How far a row's answer depends on the rows that are asked with it. Of a compressed package, which is meant to
    differ from the model that it was made from, this is what can be proven; nothing is raised.

    Args:
        predictor: the package, opened.
        rows: parsed values by input.
        batch_sizes: each over all rows.
        tolerance: above it, the report says that answers depend on neighbours.
    """
    alone = [predictor.run([row]) for row in rows]
    expected = {name: np.concatenate([out[name] for out in alone]) for name in alone[0]}
    by_output = dict.fromkeys(expected, 0.0)
    for size in batch_sizes:
        for start in range(0, len(rows), size):
            got = predictor.run(rows[start : start + size])
            for name, values in got.items():
                by_output[name] = max(by_output[name], difference(expected[name][start : start + size], values))
    worst = max(by_output.values())
    return {
        "against": "its own answers one row at a time",
        "rows": len(rows),
        "batch_sizes": list(batch_sizes),
        "max_abs_difference": worst,
        "by_output": by_output,
        "tolerance": tolerance,
        "depends_on_neighbours": worst > tolerance,
    }
