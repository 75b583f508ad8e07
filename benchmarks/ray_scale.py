"""`--engine ray`: replicas from 1 to 2 and back to 1 under load, and every answer compared with the predictor's own.

    python benchmarks/ray_scale.py --package runs/x/model.fuse --table table.csv

Three phases over kept connections, each caller asking again as soon as it has its answer: few callers; many, until the
second replica has answered for a while; few again, until the second replica is gone, and a while longer. A request
fails where its answer is not 200 or is not the row's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import tell
from load import Connection, Got, post, quantile
from serve_storm import known_rows

from fuseline.serve.ray import APP, Scale, on_ray
from fuseline.serve.settings import Settings
from fuseline.serve.specs import spec_of


def replicas() -> int:
    """How many replicas run now, as Ray says."""
    from ray import serve

    application = serve.status().applications[APP]
    return sum(d.replica_states.get("RUNNING", 0) for d in application.deployments.values())


class Load:
    """Callers that ask until they are told to stop; what each answer was, and when the replicas changed."""

    def __init__(self, port: int, known: list[Any], longest: float) -> None:
        self.port, self.longest = port, longest
        self.known = [(post("/v1/models/scale/predict", {"rows": [row]}), answer) for row, answer in known]
        self.rows: list[dict[str, Any]] = []
        self.start = time.monotonic()

    async def phase(self, name: str, callers: int, until: int, seconds: float) -> None:
        """Load from `callers` until `until` replicas have run for `seconds`."""
        got: list[tuple[Got, bool]] = []
        going, began = True, time.monotonic()

        async def caller(place: int) -> None:
            connection = Connection("127.0.0.1", self.port)
            while going:
                request, answer = self.known[place % len(self.known)]
                one = await connection.ask(request)
                got.append((one, one.status == 200 and same(one.json()["answers"][0], answer)))
                place += callers
            connection.close()

        tasks = [asyncio.create_task(caller(i)) for i in range(callers)]
        counts = [await asyncio.to_thread(replicas)]
        reached: float | None = None
        while reached is None or time.monotonic() - reached < seconds:
            await asyncio.sleep(0.5)
            now = await asyncio.to_thread(replicas)
            if now != counts[-1]:
                counts.append(now)
                print(f"{time.monotonic() - self.start:6.1f} s: {now} replicas", file=sys.stderr, flush=True)
            if now == until and reached is None:
                reached = time.monotonic()
            if reached is None and time.monotonic() - began > self.longest:
                break
        going = False
        await asyncio.gather(*tasks)
        times = [g.seconds for g, _ in got]
        self.rows.append(
            {
                "phase": name,
                "callers": callers,
                "replicas": " -> ".join(map(str, counts)),
                "reached after, s": "never" if reached is None else round(reached - began, 1),
                "requests": len(got),
                "failed": sum(not good for _, good in got),
                "requests/s": round(len(got) / (time.monotonic() - began), 1),
                "p50 ms": round(quantile(times, 0.5) * 1e3, 1),
                "p99 ms": round(quantile(times, 0.99) * 1e3, 1),
                "longest ms": round(max(times) * 1e3, 1),
            }
        )
        print(json.dumps(self.rows[-1]), file=sys.stderr, flush=True)
        for bad, _ in [pair for pair in got if not pair[1]][:3]:
            print("failed:", bad.status, bad.body[:300], file=sys.stderr)


def same(told: dict[str, Any], answer: Any) -> bool:
    """Value and probabilities, the latter up to what the size of the batch changes in the last bits."""
    expected = answer.to_dict()
    near = all(abs(told["probabilities"][k] - p) < 1e-4 for k, p in (expected.get("probabilities") or {}).items())
    return bool(near and told["value"] == expected["value"] and told["used"] == expected["used"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument(
        "--few", type=int, default=3, help="callers of the quiet phases: below the target of one replica"
    )
    parser.add_argument("--cpus", type=float, default=0.5, help="of a replica")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase, once it has its replicas")
    parser.add_argument("--longest", type=float, default=150.0, help="that a phase may wait for its replicas")
    parser.add_argument("--out")
    args = parser.parse_args()
    known = known_rows(args.package, args.table, 32, 1)
    settings = Settings(port=0, objective_ms=30_000)
    scale = Scale(max_replicas=2, target_ongoing=4, upscale_seconds=3, downscale_seconds=10, cpus=args.cpus)
    start = time.monotonic()
    with on_ray([spec_of(f"scale={args.package}")], settings, scale, address="local") as (_, port):
        print(f"ready after {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
        load = Load(port, known, args.longest)

        async def phases() -> None:
            await load.phase("quiet", args.few, 1, args.seconds)
            await load.phase("busy", args.callers, 2, args.seconds)
            await load.phase("quiet again", args.few, 1, args.seconds)

        asyncio.run(phases())
    tell("replicas under load", load.rows, args.out)
    if any(r["failed"] or r["reached after, s"] == "never" for r in load.rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
