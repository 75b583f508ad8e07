"""Opens a written graph with the runtime that will serve it, and compares it with the float one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.lab.compress.onnx_run import Arrays, few_rows
from fuseline.package import Package
from fuseline.runtime.backend import open_backend

FILES = ("graph.onnx", "weights.safetensors", "weights.bin", "openvino.xml", "openvino.bin")
ROWS = 32
"""rows compared, at most"""


def as_package(folder: Path, runtime: Mapping[str, Any]) -> Package:
    """What a backend needs to open a folder that holds a graph and nothing else."""
    members = {}
    for path in (folder / name for name in FILES if (folder / name).exists()):
        data = path.read_bytes()
        members[path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return Package(folder, {"name": folder.name, "members": members}, None, {}, {}, dict(runtime))  # type: ignore[arg-type]


def outputs_of(folder: Path, runtime: Mapping[str, Any], batches: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """Outputs of at most ROWS rows, by name."""
    # One thread: with more, a node waits for all of them, and other work on the machine may hold one of them up.
    backend = open_backend(str(runtime["backend"]), as_package(folder, runtime), threads=1)
    parts: list[dict[str, np.ndarray]] = []
    rows = 0
    for few in few_rows(batches):
        parts.append(backend.run(few))
        rows += len(few["present"])
        if rows >= ROWS:
            break
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def broken(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> str | None:
    """Why the outputs cannot be used, or None: a value that is not finite, or the same answer whatever the row."""
    for name, values in after.items():
        if not np.isfinite(values).all():
            return f"output {name} is not finite"
        alive = len(values) > 1 and float(np.ptp(before[name], axis=0).max(initial=0.0)) > 1e-6
        if alive and float(np.ptp(values, axis=0).max(initial=0.0)) == 0.0:
            return f"output {name} is the same for every row"
    return None


def change(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean |difference| of each output, in units of its own spread over the rows (standard deviation)."""
    found = {}
    for name, values in after.items():
        spread = max(float(before[name].std(axis=0).mean()), 1e-12)
        found[name] = float(np.abs(values - before[name]).mean()) / spread
    return found
