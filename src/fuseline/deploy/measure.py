"""What the packages need of a machine, measured and not guessed.

In a process of its own, so that its memory is the memory of a server's worker: the serving libraries imported, every
package loaded, then one full batch of the dearest rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from fuseline.errors import FuselineError

LONGEST_SECONDS = 600.0
TRIES = 3
ENOUGH_SECONDS = 10.0
"""no further try after so long: the best of a few, since a neighbour's load only ever adds"""


@dataclass(frozen=True)
class Measured:
    """Seconds and bytes, on `cores` processors of the machine that ran it."""

    base_bytes: int
    """Python and the serving libraries, before any package"""
    loaded_bytes: int
    """added by loading every package"""
    peak_bytes: int
    """added on top by one full batch of the dearest rows, of the package that took most"""
    load_seconds: float
    """imports, hashing, loading, and the first row answered"""
    batch_seconds: float
    """one full batch through the graph, of the slowest package"""
    batch_rows: int
    cores: float
    busy: float = 0.0
    """processes that wanted a processor, for each that there is, when the measuring began; above 1 it is too slow"""

    @property
    def rows_per_second(self) -> float:
        """Of the slowest package at its largest inputs: what one worker can promise."""
        return self.batch_rows / self.batch_seconds


def measure(packages: Sequence[Path], batch_rows: int, threads: int | None = None) -> Measured:
    """Measure in a child process. Raises FuselineError ``bad_package`` with the child's own words where it fails."""
    program = "from fuseline.deploy.measure import main; main()"
    command = [sys.executable, "-c", program, "--rows", str(batch_rows)]
    command += ["--threads", str(threads)] if threads else []
    try:
        done = subprocess.run(
            [*command, "--", *map(str, packages)], capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise FuselineError(
            "bad_package", f"a batch of {batch_rows} rows took over {LONGEST_SECONDS:g} s", "set --batch lower"
        ) from None
    if done.returncode:
        last = (done.stderr.strip() or f"killed by signal {-done.returncode}").splitlines()[-1]
        raise FuselineError(
            "bad_package", f"the packages could not be measured: {last}", "does `fuseline predict` run?"
        )
    return Measured(**json.loads(done.stdout))


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _highest() -> int:
    """Not getrusage's maximum: that one remembers the process that started this one."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def _run(packages: Sequence[Path], batch_rows: int, threads: int | None) -> Measured:
    start, busy = time.perf_counter(), os.getloadavg()[0] / (os.cpu_count() or 1)
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401

    from fuseline.deploy.heaviest import heaviest_row
    from fuseline.modalities import MediaRoot
    from fuseline.runtime import load
    from fuseline.runtime.backend import cpu_quota

    base = _resident()
    predictors = [load(path, threads=threads) for path in packages]
    rows = [heaviest_row(p.rows) for p in predictors]
    for predictor, row in zip(predictors, rows, strict=True):
        if (error := predictor.predict([row])[0].error) is not None:
            raise error
    load_seconds, loaded = time.perf_counter() - start, _resident()
    slowest = 0.0
    for predictor, row in zip(predictors, rows, strict=True):
        parsed = [predictor.rows.parse(row, MediaRoot()).values] * batch_rows
        slowest = max(slowest, _best(partial(predictor.run, parsed)))
    peak = _highest()
    return Measured(
        base_bytes=base,
        loaded_bytes=max(0, loaded - base),
        peak_bytes=max(0, peak - loaded),
        load_seconds=load_seconds,
        batch_seconds=slowest,
        batch_rows=batch_rows,
        cores=threads or cpu_quota(),
        busy=busy,
    )


def _best(work: Callable[[], object]) -> float:
    seconds: list[float] = []
    while len(seconds) < TRIES and sum(seconds) < ENOUGH_SECONDS:
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    try:
        print(json.dumps(asdict(_run(args.packages, args.rows, args.threads))))
    except ModuleNotFoundError as error:
        sys.exit(f"serving needs {error.name}: pip install 'fuseline[serve]'")
    except FuselineError as error:
        sys.exit(error.message)
