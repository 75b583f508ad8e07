"""Where a package's time goes, and how far it is from what the machine can do."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.modalities.rows import Parsed
from fuseline.progress import Silent, Voice
from fuseline.runtime.backend import cpu_quota
from fuseline.runtime.bucket import by_length
from fuseline.runtime.nodes import FUSION, Arrays, Counted, NodeCost, count_nodes, part_of
from fuseline.runtime.peak import measure_peak
from fuseline.runtime.predictor import Predictor, load
from fuseline.runtime.samples import Samples, made_rows, rows_of

MOST_BATCHES = 8
"""of one size, spread over all lengths"""
SECONDS = 2.0
"""of measuring one size of batch; a slow one runs three times"""
MOST_ROUNDS = 30
TOP = 10
BETWEEN, UNNAMED = "between nodes", "unnamed nodes"


def profile_package(
    model: str | Path | Predictor,
    data: Any = None,
    *,
    rows: int = 64,
    batches: Sequence[int] = (1, 8),
    backend: str | None = None,
    threads: int | None = None,
    peak: bool = True,
    voice: Voice | None = None,
) -> dict[str, Any]:
    """Time of decoding, collating, each encoder, fusion and head, and answers, for each size of batch.

    The graph's time is measured as it runs in `predict`. The runtime's own profiler then tells how it is shared: its
    times are scaled by the same graph's time without it. What no node accounts for is `between nodes`.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        data: a table with rows of the model's; None: rows are made, and decoding is not measured.
        rows: that are read of the table.
        batches: rows of a batch.
        backend: None: the package's own.
        threads: that work on one batch; None: all that the process may use.
        peak: measure the machine's peak, too (seconds).
        voice: told what is being done.

    Returns:
        {"model", "version", "backend", "precision", "threads", "load_seconds", "source", "rows", "notes",
        "peak": {number format: GFLOP/s}, "batches": one a size}. Of a size: "rows", "seconds" of one batch in all,
        "stages": {decode, collate, graph, answers: seconds, or None}, "decode" and "collate": seconds by input,
        "graph", its "parts" (inputs, fusion.head, and what belongs to none), "ops". Of each of these and of a part's
        ten slowest "modules": "seconds", "share" of the whole, "gflop", "gflop_per_second", "peak_share" (how much of
        the time the measured peak would take; None where unknown), "unknown" (products whose size could not be told:
        then gflop and what follows from it are least values). JSON throughout.

    Raises:
        FuselineError: ``bad_usage``, and what :func:`fuseline.runtime.load` and :func:`rows_of` raise.
    """
    if rows < 1 or not batches or min(batches) < 1:
        raise FuselineError("bad_usage", "rows and batches are whole numbers from 1 on", "e.g. --batch 1,8")
    voice = voice or Silent()
    if isinstance(model, Predictor):
        backend = backend or model.backend_kind
    path = model.package.folder if isinstance(model, Predictor) else model
    threads = threads or cpu_quota()
    start = time.perf_counter()
    predictor = load(path, backend=backend, threads=threads)
    load_seconds = time.perf_counter() - start
    samples = rows_of(predictor, data, rows) if data is not None else made_rows(predictor, rows)
    voice.say(f"timing {len(samples.parsed)} rows")
    timed = [_timed(predictor, samples.parsed, size) for size in dict.fromkeys(batches)]
    voice.say("counting what each node costs")
    groups = [(t["arrays"], t["rounds"]) for t in timed]
    counted = count_nodes(predictor.backend_kind, predictor.package, threads, groups)
    peaks: dict[str, float] = {}
    if peak:
        voice.say("measuring the machine's peak")
        peaks = measure_peak(predictor.backend_kind, threads)
    notes = [*predictor.backend.notes, *samples.notes]
    if not all(c.named for c in counted):
        notes.append("this graph's nodes do not say which module they came from: export it again to see the parts")
    package = predictor.package
    return {
        "model": package.name,
        "version": package.version,
        "backend": predictor.backend_kind,
        "precision": "+".join(sorted(package.precisions(predictor.backend_kind))),
        "threads": threads,
        "load_seconds": load_seconds,
        "source": samples.source,
        "rows": len(samples.parsed),
        "notes": notes,
        "peak": peaks,
        "batches": [_size(predictor, samples, t, c, peaks) for t, c in zip(timed, counted, strict=True)],
    }


def _timed(predictor: Predictor, parsed: Sequence[Parsed], size: int) -> dict[str, Any]:
    """Seconds of the stages of a batch of `size` rows: for every batch the median of its rounds, and their mean."""
    if len(parsed) < size:
        parsed = [parsed[i % len(parsed)] for i in range(size)]
    batches = [b for b in by_length(predictor.rows.modalities, parsed, size) if len(b) == size]
    spread = np.unique(np.linspace(0, len(batches) - 1, min(len(batches), MOST_BATCHES)).astype(int))
    chosen = [[parsed[i] for i in batches[at]] for at in spread]
    arrays: list[Arrays] = [predictor.rows.arrays([p.values for p in batch]) for batch in chosen]
    start = time.perf_counter()
    for given in arrays:  # the first run of a shape is slower
        predictor.backend.run(given)
    rounds = int(min(MOST_ROUNDS, max(3, SECONDS / (time.perf_counter() - start))))
    taken: list[dict[str, list[float]]] = [defaultdict(list) for _ in chosen]
    for _ in range(rounds):
        for batch, seconds in zip(chosen, taken, strict=True):
            for name, value in _once(predictor, batch).items():
                seconds[name].append(value)
    keys = list(taken[0])
    means = {k: statistics.fmean(statistics.median(seconds[k]) for seconds in taken) for k in keys}
    return {"size": size, "arrays": arrays, "rounds": rounds, "seconds": means}


def _once(predictor: Predictor, batch: Sequence[Parsed]) -> dict[str, float]:
    """Seconds of `collate.INPUT`, `graph` and `answers`."""
    values = [p.values for p in batch]
    out: dict[str, float] = {}
    clock = time.perf_counter()
    arrays = {"present": predictor.rows.present(values)}
    for name in predictor.names:
        arrays |= predictor.rows.collate(name, [row[name] for row in values])
        clock, out[f"collate.{name}"] = (now := time.perf_counter()), now - clock
    outputs = predictor.run_arrays(arrays)  # of a text: with all its steps
    clock, out["graph"] = (now := time.perf_counter()), now - clock
    predictor.decode(batch, outputs)
    out["answers"] = time.perf_counter() - clock
    return out


def _size(
    predictor: Predictor, samples: Samples, timed: Mapping[str, Any], counted: Counted, peaks: Mapping[str, float]
) -> dict[str, Any]:
    seconds, size = timed["seconds"], timed["size"]
    collate = {name: seconds[f"collate.{name}"] for name in predictor.names}
    decode = None
    if samples.decode_seconds is not None:
        decode = {name: size * value for name, value in samples.decode_seconds.items()}
    stages = {
        "decode": None if decode is None else sum(decode.values()),
        "collate": sum(collate.values()),
        "graph": seconds["graph"],
        "answers": seconds["answers"],
    }
    total = sum(value or 0.0 for value in stages.values())
    scale = seconds["graph"] / counted.seconds
    costs = _Costs(total, scale, peaks)
    by_part = defaultdict(list)
    for node in counted.nodes:
        by_part[part_of(node.module, predictor.names) or UNNAMED].append(node)
    order = [*predictor.names, FUSION, UNNAMED] if counted.named else [UNNAMED]
    parts = []
    for name in order:
        if name != UNNAMED or by_part[name]:
            modules = costs.top(by_part[name], "module") if name != UNNAMED else []
            parts.append({"name": name, **costs.of(by_part[name]), "modules": modules})
    between = max(0.0, seconds["graph"] - sum(p["seconds"] for p in parts))
    parts.append({"name": BETWEEN, "seconds": between, "share": between / total, "modules": []})
    return {
        "rows": size,
        "seconds": total,
        "stages": stages,
        "decode": decode,
        "collate": collate,
        "graph": costs.of(counted.nodes, seconds["graph"]),
        "parts": parts,
        "ops": costs.top([n for n in counted.nodes if n.op], "op"),
    }


class _Costs:
    """Adds up nodes. `total`: seconds of a whole batch; `scale`: of a node's seconds to those without the profiler."""

    def __init__(self, total: float, scale: float, peaks: Mapping[str, float]) -> None:
        self.total, self.scale, self.peaks = total, scale, peaks

    def of(self, nodes: Iterable[NodeCost], seconds: float | None = None) -> dict[str, Any]:
        """`seconds`: that they took together, where it is known better than by their sum."""
        nodes = list(nodes)
        if seconds is None:
            seconds = self.scale * sum(n.seconds for n in nodes)
        flops = sum(n.flops or 0.0 for n in nodes)
        products = [n for n in nodes if n.flops]
        ideal = None
        if products and all(n.precision in self.peaks for n in products):
            ideal = sum((n.flops or 0.0) / self.peaks[n.precision] for n in products) / 1e9
        return {
            "seconds": seconds,
            "share": seconds / self.total,
            "nodes": len(nodes),
            "gflop": flops / 1e9,
            "gflop_per_second": flops / 1e9 / seconds if seconds else None,
            "peak_share": ideal / seconds if seconds and ideal is not None else None,
            "unknown": sum(n.flops is None for n in nodes),
        }

    def top(self, nodes: Iterable[NodeCost], key: str) -> list[dict[str, Any]]:
        grouped = defaultdict(list)
        for node in nodes:
            grouped[getattr(node, key)].append(node)
        found = [{"name": name, **self.of(same)} for name, same in grouped.items()]
        return sorted(found, key=lambda entry: -entry["seconds"])[:TOP]
