"""What runs a package's graph. This is the table of backends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from fuseline.errors import FuselineError, unknown_kind
from fuseline.package import Package
from fuseline.tasks.decoding import Steps

BACKENDS = ("onnxruntime", "openvino")
GRAPH = "graph.onnx"
IDS = "ids"
"""the input of a step's graph beside what is remembered"""
OUTPUT = "output."
"""how the graph's outputs are named: a bare `embedding` could be a node of its own in some encoder"""


class Backend(Protocol):
    """Arrays by graph input name in, arrays by output name out. Safe to call from several threads."""

    kind: str
    """its name in the table"""
    notes: tuple[str, ...]
    """what opening it had to say, e.g. that the processor lacks a number format"""

    @property
    def steps(self) -> Steps | None:
        """What makes one token more, for a package that answers step by step; else None."""
        ...

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays that the graph does not read are left aside."""
        ...


def cpu_quota() -> int:
    """Processors this process may use: the smaller of its affinity and its cgroup's quota, at least 1."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:  # cgroup v2
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, int(quota) / int(period))
    except (OSError, ValueError):
        try:  # cgroup v1
            root = Path("/sys/fs/cgroup/cpu")
            quota_us = int((root / "cpu.cfs_quota_us").read_text(encoding="ascii"))
            if quota_us > 0:
                count = min(count, quota_us / int((root / "cpu.cfs_period_us").read_text(encoding="ascii")))
        except (OSError, ValueError):
            pass
    return max(1, int(count))


def choose(kind: str | None, package: Package) -> str:
    """The backend that was asked for, or the package's own. Raises FuselineError ``unknown_kind``, ``no_graph``."""
    if kind is None:
        return package.backend
    if kind not in BACKENDS:
        raise unknown_kind("runtime backend", kind, BACKENDS)
    if kind not in package.backends:
        raise FuselineError(
            "no_graph",
            f"{package.name} holds no graph for {kind}",
            f"it runs with {' or '.join(package.backends)}; `fuseline export` writes other graphs",
        )
    return kind


def open_backend(kind: str | None, package: Package, threads: int | None = None, lanes: int = 1) -> Backend:
    """Make a package's graph ready to run.

    Args:
        kind: a backend's name; None: the one that the package was measured with.
        package: verified.
        threads: that work on one batch; None: all that the process may use.
        lanes: batches that run at the same time.

    Raises:
        FuselineError: ``unknown_kind``, ``no_graph``, ``missing_extra``, ``bad_package``.
    """
    threads = threads or cpu_quota()
    match kind := choose(kind, package):
        case "onnxruntime":
            from fuseline.runtime.onnxruntime import OnnxRuntime

            return OnnxRuntime(package, threads)
        case "openvino":
            from fuseline.runtime.openvino import OpenVino

            return OpenVino(package, threads, lanes)
        case _:
            raise AssertionError(kind)
