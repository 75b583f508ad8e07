"""What runs a package's graph. This is the table of backends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from fuseline.errors import FuselineError, unknown_kind
from fuseline.package import Package, read_member

BACKENDS = ("onnxruntime",)
GRAPH, WEIGHTS = "graph.onnx", "weights.safetensors"
OUTPUT = "output."
"""how the graph's outputs are named: a bare `embedding` could be a node of its own in some encoder"""


class Backend(Protocol):
    """Arrays by graph input name in, arrays by output name out. Safe to call from several threads."""

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


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


class OnnxRuntime:
    """onnxruntime on the CPU. The arena is off: it keeps the largest shape ever seen, and lengths vary.

    The weights are handed over as the very bytes whose hash was checked. Given a path, onnxruntime maps the file
    instead, and a file that is overwritten later (a deployment that copies in place) would change the answers of a
    model that is already running, without a word.
    """

    def __init__(self, package: Package, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        weights = [read_member(package, WEIGHTS)] if WEIGHTS in package.manifest["members"] else []
        try:
            if weights:
                options.add_external_initializers_from_files_in_memory([WEIGHTS], weights, [len(weights[0])])
            graph = read_member(package, GRAPH)
            self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except FuselineError:
            raise
        except Exception as error:  # onnxruntime raises a dozen private types
            raise FuselineError(
                "bad_package", f"onnxruntime cannot load {GRAPH}: {error}", "upgrade onnxruntime, or export again"
            ) from None
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.inputs = {i.name for i in self.session.get_inputs()}

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feed = {k: v for k, v in arrays.items() if k in self.inputs}
        values = self.session.run(self.outputs, feed)
        return {n.removeprefix(OUTPUT): v for n, v in zip(self.outputs, values, strict=True)}


def open_backend(kind: str, package: Package, threads: int | None = None) -> Backend:
    match kind:
        case "onnxruntime":
            return OnnxRuntime(package, threads or cpu_quota())
        case _:
            raise unknown_kind("runtime backend", kind, BACKENDS)
