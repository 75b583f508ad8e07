"""How long an index takes to write, open and ask, and what the graph misses. The vectors are made: clusters with noise.

python benchmarks/index_speed.py --rows 100000
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import tell

from fuseline.vectors.folder import Writer, read_index, unit

CHUNK, QUERIES, K = 1000, 200, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--out")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, args.dim))

    def made(count: int) -> np.ndarray:
        return unit(centres[rng.integers(0, len(centres), count)] + 0.7 * rng.normal(size=(count, args.dim)))

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        writer = Writer(Path(folder) / "index", args.dim)
        for first in range(0, args.rows, CHUNK):
            places = range(first, min(first + CHUNK, args.rows))
            writer.add(made(len(places)), [{"row": i, "id": None, "cells": {}} for i in places])
        index = writer.seal({"package": {"name": "made", "version": "0"}, "side": "right"})
        written = time.perf_counter() - start
        size = sum(f.stat().st_size for f in index.folder.iterdir())
        start = time.perf_counter()
        index = read_index(index.folder)
        opened = time.perf_counter() - start
        queries = made(QUERIES)
        index.nearest(queries[:1], K)
        took: dict[bool, list[float]] = {True: [], False: []}
        shared = []
        for query in queries:
            found = {}
            for exact, times in took.items():
                start = time.perf_counter()
                found[exact] = set(index.nearest(query[None], K, exact=exact)[0][0].tolist())
                times.append(1e3 * (time.perf_counter() - start))
            shared.append(len(found[True] & found[False]) / K)
    row = {
        "rows": args.rows,
        "numbers": args.dim,
        "written, s": round(written, 1),
        "MB": round(size / 1e6, 1),
        "opened and verified, s": round(opened, 2),
        "exact, ms": round(statistics.median(took[True]), 2),
        "graph, ms": round(statistics.median(took[False]), 3),
        f"of the exact {K}, the graph finds": round(statistics.mean(shared), 3),
    }
    tell("an index of made vectors", [row], args.out)


if __name__ == "__main__":
    main()
