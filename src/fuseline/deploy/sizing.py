"""Numbers of the manifests, each worked out from what was measured and from the server's settings, with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from fuseline.deploy.measure import Measured

PRE_STOP = 5
"""seconds between "this pod ends" and SIGTERM: endpoints, kube-proxy and load balancers must hear of it first"""
STOP = 5
"""seconds for workers and sockets to close after the drain"""
SLOWER = 10
"""a node at its worst against this machine: cold image and page cache, throttled CPU, neighbours starting too"""
HEADROOM = 1.25
MEMORY_STEP = 128
BODIES = 4
"""requests whose bodies are in memory at once, at the largest size allowed"""
MIB = 2**20


class Server(Protocol):
    """The settings of `fuseline serve` that these numbers rest on (`serve.Settings` fits)."""

    @property
    def workers(self) -> int: ...
    @property
    def max_batch_rows(self) -> int: ...
    @property
    def queue_rows(self) -> int: ...
    @property
    def objective_ms(self) -> float: ...
    @property
    def deadline_ms(self) -> float: ...
    @property
    def drain_seconds(self) -> float: ...
    @property
    def max_body_mb(self) -> float: ...


@dataclass(frozen=True)
class Sizing:
    memory_mib: int
    startup_failures: int
    """one-second tries of the startup probe"""
    grace_seconds: int
    waiting_target: int
    """rows waiting in a pod at which another pod is wanted"""
    tmp_mib: int
    why: dict[str, str]
    """field -> how it came about; goes into the manifests' comments"""

    def share(self, queue_rows: int) -> float:
        """`waiting_target` as a share of the queue's limit."""
        return self.waiting_target / queue_rows


def size(measured: Measured, server: Server) -> Sizing:
    memory, memory_why = _memory(measured, server)
    startup = max(30, math.ceil(measured.load_seconds * SLOWER))
    drain = math.ceil(server.drain_seconds)
    rate = measured.rows_per_second * server.workers
    # Little's law: rows in the system = rows a second x seconds each spends there. Half the objective leaves the other
    # half for the time that a new pod takes to come up.
    target = min(server.queue_rows // 2, max(1, int(rate * server.objective_ms / 2000)))
    tmp = max(64, math.ceil(server.max_body_mb * BODIES * 2))
    return Sizing(
        memory,
        startup,
        PRE_STOP + drain + STOP,
        target,
        tmp,
        {
            "memory_mib": memory_why,
            "startup_failures": f"{measured.load_seconds:.1f} s to the first answer where this was written, "
            f"x {SLOWER} for a cold and busy node, at least 30 s",
            "grace_seconds": f"{PRE_STOP} s before SIGTERM + {drain} s drain + {STOP} s to stop the workers",
            "waiting_target": f"{rate:.1f} rows/s at the largest inputs ({measured.batch_rows} rows in "
            f"{measured.batch_seconds:.2f} s on {measured.cores:g} threads, x {server.workers} workers) x half of the "
            f"objective of {server.objective_ms:g} ms, and at most half of the queue of {server.queue_rows} rows",
            "tmp_mib": f"bodies that spool to disk: {BODIES} x {server.max_body_mb:g} MB, twice",
        },
    )


def _memory(measured: Measured, server: Server) -> tuple[int, str]:
    """Front process and workers each hold the libraries; a worker holds every package twice while one is swapped."""
    base, loaded = measured.base_bytes / MIB, measured.loaded_bytes / MIB
    peak, bodies = measured.peak_bytes / MIB, BODIES * server.max_body_mb
    need = (base + bodies) + server.workers * (base + 2 * loaded + peak)
    total = math.ceil(need * HEADROOM / MEMORY_STEP) * MEMORY_STEP
    why = (
        f"front {base:.0f} + bodies {bodies:.0f} + {server.workers} workers x (libraries {base:.0f} + packages 2 x "
        f"{loaded:.0f}, old and new during a swap, + a batch of {measured.batch_rows} of the largest rows {peak:.0f}) "
        f"= {need:.0f} MiB, measured where this was written; x {HEADROOM} and up to the next {MEMORY_STEP} MiB"
    )
    return total, why
