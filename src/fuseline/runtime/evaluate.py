"""Evaluate a package on a labelled table, without torch. Dimensions: N rows, M inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import Parsed
from fuseline.package.files import finite
from fuseline.progress import Voice
from fuseline.runtime.bucket import WINDOW, by_length
from fuseline.runtime.predictor import Predictor
from fuseline.tasks import read_columns
from fuseline.tasks.degradation import degradation, subsets


def evaluate_frames(
    predictor: Predictor,
    frames: Iterable[tuple[int, Any]],
    *,
    rows: int,
    media: MediaRoot,
    voice: Voice,
    bootstrap: int,
    subsets_too: bool,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Metrics as a run's metrics.json holds them, under the part `test`.

    A row that cannot be read, or has no target, is counted and said, and left out.
    """
    task, names = predictor.task, predictor.names
    wanted = subsets(names) if subsets_too else [tuple(names)]
    outputs: dict[tuple[str, ...], list[dict[str, np.ndarray]]] = {s: [] for s in wanted}
    targets, present, bad, without = [], [], [], 0
    with voice.track("evaluating", rows) as advance:
        for start, frame in frames:
            cells = Table.rows(frame)
            for i in range(0, len(cells), WINDOW * batch_size):
                good = []
                for j, row in enumerate(cells[i : i + WINDOW * batch_size]):
                    try:
                        target = task.encode({c: predictor.rows.cell(row.get(c)) for c in read_columns(task)})
                    except FuselineError as error:
                        bad.append(error.at(start + i + j))
                        continue
                    if target is None:
                        without += 1
                        continue
                    parsed = predictor.rows.parse(row, media, start + i + j)
                    if parsed.error is not None:
                        bad.append(parsed.error)
                        continue
                    targets.append(target)
                    good.append(parsed)
                if good:
                    present.append(predictor.rows.present([p.values for p in good]))
                    for subset, got in _outputs(predictor, good, wanted, batch_size).items():
                        outputs[subset].append(got)
            advance(len(cells))
    if not targets:
        reason = str(bad[0]) if bad else f"no row has a {', '.join(task.columns)}"
        raise FuselineError("empty_table", f"nothing to evaluate: {reason}", "evaluation needs rows with a target")
    joined = {s: {k: np.concatenate([p[k] for p in got]) for k in got[0]} for s, got in outputs.items()}
    truth, stacked = np.concatenate(present), np.stack(targets)
    full = task.score(stacked, joined[tuple(names)], bootstrap=bootstrap)
    table = degradation(task, names, truth, stacked, joined, bootstrap=min(200, bootstrap)) if subsets_too else []
    return {
        "task": task.name,
        "metric": task.metric,
        "parts": {"test": finite(full.to_dict())},
        "degradation": finite(table),
        "left_out": {"bad": [error.to_dict() for error in bad[:10]], "bad_rows": len(bad), "no_target": without},
    }


def _outputs(
    predictor: Predictor, parsed: Sequence[Parsed], wanted: Sequence[tuple[str, ...]], batch_size: int
) -> dict[tuple[str, ...], dict[str, np.ndarray]]:
    """The graph's outputs of readable rows, in their order, with each of the subsets present and no other input."""
    batches = by_length(predictor.rows.modalities, parsed, batch_size)
    parts: dict[tuple[str, ...], list[dict[str, np.ndarray]]] = {subset: [] for subset in wanted}
    for batch in batches:
        arrays = predictor.rows.arrays([parsed[i].values for i in batch])
        for subset, done in parts.items():
            allowed = np.array([n in subset for n in predictor.names])
            done.append(predictor.run_arrays({**arrays, "present": arrays["present"] & allowed}))
    back = np.argsort([i for batch in batches for i in batch])
    return {s: {k: np.concatenate([p[k] for p in done])[back] for k in done[0]} for s, done in parts.items()}
