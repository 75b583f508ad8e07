"""The server beside a bare onnxruntime loop, its overhead, its start, its memory, and three times overload.

    python benchmarks/serve_speed.py --package runs/x/model.fuse --table ../shared/data/chest-xray/table.csv

Throughput: the server at saturation, with the batch sizes that it chose, against a bare loop that runs batches of the
same sizes on arrays in memory, interleaved. Overhead: one caller, one row, against the predictor in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import tell
from load import Connection, Got, Server, post, quantile, server
from serve_storm import known_rows

import fuseline
from fuseline.modalities.rows import lengths_of
from fuseline.serve.batching import Item, choose
from fuseline.serve.scorer import NO_FILES


async def saturate(running: Server, requests: list[bytes], seconds: float, callers: int) -> list[Got]:
    """Closed loop: each caller asks again as soon as it has its answer."""
    until = time.perf_counter() + seconds
    out: list[Got] = []

    async def caller(i: int) -> None:
        connection = Connection(running.host, running.port)
        while time.perf_counter() < until:
            out.append(await connection.ask(requests[i % len(requests)]))
            i += callers
        connection.close()

    await asyncio.gather(*(caller(i) for i in range(callers)))
    return out


def wrk(running: Server, requests: list[bytes], seconds: float, callers: int) -> tuple[float, int]:
    """The same with wrk, which costs next to nothing: answered requests a second, and how many were not 200."""
    with tempfile.TemporaryDirectory() as work:
        bodies = []
        for i, request in enumerate(requests):
            path = Path(work) / f"{i}.json"
            path.write_bytes(request.partition(b"\r\n\r\n")[2])
            bodies.append(str(path))
        script = Path(work) / "post.lua"
        script.write_text(LUA.replace("PATHS", ", ".join(f'"{b}"' for b in bodies)))
        url = f"http://{running.host}:{running.port}/v1/models/speed/predict"
        words = ["wrk", "-t1", f"-c{callers}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script), url]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return rate, int(bad[1]) if bad else 0


LUA = """
local paths, bodies, i = { PATHS }, {}, 0
for k, path in ipairs(paths) do local f = io.open(path, "rb"); bodies[k] = f:read("*a"); f:close() end
request = function()
  i = i % #bodies + 1
  return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, bodies[i])
end
"""


async def flood(running: Server, requests: list[bytes], seconds: float, rate: float) -> list[Got]:
    """Open loop: requests leave at `rate` a second, whatever becomes of those before."""
    out: list[Got] = []
    idle: list[Connection] = []

    async def one(request: bytes) -> None:
        connection = idle.pop() if idle else Connection(running.host, running.port)
        out.append(await connection.ask(request))
        idle.append(connection)

    tasks, start, sent = [], time.perf_counter(), 0
    while (now := time.perf_counter() - start) < seconds:
        while sent < now * rate:
            tasks.append(asyncio.create_task(one(requests[sent % len(requests)])))
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return out


def bare_loop(predictor: Any, parsed: list[Any], size: int, callers: int, seconds: float) -> float:
    """Rows a second of a plain onnxruntime loop over batches that the server's own rule chooses among `callers` waiting
    rows: arrays in memory, nothing decoded, nothing sent."""
    session, inputs = predictor.backend.session, predictor.backend.inputs
    lengths = [lengths_of(predictor.rows.modalities, p.values) for p in parsed]
    items = [Item(p, x, 0.0, 0.0, None) for p, x in zip(parsed, lengths, strict=True)]  # type: ignore[arg-type]
    waiting, coming, batches = [], 0, []
    while len(batches) < 40:
        while len(waiting) < callers:
            waiting.append(replace(items[coming % len(items)]))
            coming += 1
        batch = choose(waiting, size, 1e9)
        waiting = [w for w in waiting if not any(w is b for b in batch)]
        arrays = predictor.rows.arrays([b.parsed.values for b in batch])
        batches.append({k: v for k, v in arrays.items() if k in inputs})
    start, rows, i = time.perf_counter(), 0, 0
    while time.perf_counter() - start < seconds or i % len(batches):
        arrays = batches[i % len(batches)]
        session.run(None, arrays)
        rows += len(arrays["present"])
        i += 1
    return rows / (time.perf_counter() - start)


def batch_size(running: Server) -> int:
    """The mean size of the batches so far, by the service's own counts."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/v2/models/speed/stats") as reply:
        stats = json.load(reply)["model_stats"][0]
    return max(1, round(stats["inference_count"] / max(1, stats["execution_count"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--objective-ms", type=float, default=1000.0)
    parser.add_argument("--threads", default="", help="of the server's batches; default: its own choice")
    parser.add_argument("--minutes", type=float, default=0.0, help="of random shapes, for the slope of the memory")
    parser.add_argument("--out")
    args = parser.parse_args()
    known = known_rows(args.package, args.table, 64, 1)
    requests = [post("/v1/models/speed/predict", {"rows": [row]}) for row, _ in known]
    predictor = fuseline.load(args.package)
    rows: list[dict[str, Any]] = []

    def say(what: str, figure: str) -> None:
        rows.append({"what": what, "figure": figure})
        print(what, figure, file=sys.stderr, flush=True)

    starts = []
    for _ in range(args.rounds):
        with server(f"speed={args.package}", *extra(args)) as running:
            starts.append(running.started)
            idle_rss = running.rss()
    say("cold start to ready, median (longest)", f"{statistics.median(starts):.2f} s ({max(starts):.2f} s)")
    say("memory when ready", f"{idle_rss:.0f} MB")
    overhead(args, predictor, known, requests, say)
    throughput(args, predictor, known, requests, say)
    overload(args, requests, say)
    if args.minutes:
        slope(args, requests, say)
    tell("serving", rows, args.out)


def extra(args: Any) -> list[str]:
    return ["--threads", args.threads] if args.threads else []


def overhead(args: Any, predictor: Any, known: Any, requests: list[bytes], say: Any) -> None:
    async def alone(running: Server, place: int) -> float:
        connection = Connection(running.host, running.port)
        await connection.ask(requests[place])
        got = [await connection.ask(requests[place]) for _ in range(20)]
        connection.close()
        return statistics.median(g.seconds for g in got)

    ours, bare = [], []
    with server(f"speed={args.package}", *extra(args)) as running:
        for place in range(6):
            row = known[place][0]
            predictor.predict([row])
            times = []
            for _ in range(20):
                start = time.perf_counter()
                predictor.predict([row])
                times.append(time.perf_counter() - start)
            bare.append(statistics.median(times))
            ours.append(asyncio.run(alone(running, place)))
        gaps = [(a - b) * 1e3 for a, b in zip(ours, bare, strict=True)]
        say("one row through the server, median", f"{statistics.median(ours) * 1e3:.1f} ms")
        say("the predictor alone, median", f"{statistics.median(bare) * 1e3:.1f} ms")
        say("overhead of the service, median (largest)", f"{statistics.median(gaps):.2f} ms ({max(gaps):.2f} ms)")
        say("memory after single rows", f"{running.rss():.0f} MB")


def throughput(args: Any, predictor: Any, known: Any, requests: list[bytes], say: Any) -> None:
    parsed = [predictor.parse(row, NO_FILES, 0) for row, _ in known]
    ratios, served, bare = [], [], []
    with server(f"speed={args.package}", *extra(args), "--objective-ms", "60000") as running:
        wrk(running, requests, 4, args.callers)
        for _ in range(args.rounds):
            rate, refused = wrk(running, requests, args.seconds, args.callers)
            assert not refused, refused
            served.append(rate)
            size = batch_size(running)
            bare.append(bare_loop(predictor, parsed, size, args.callers, args.seconds))
            ratios.append(served[-1] / bare[-1])
        say("mean batch at saturation", f"{size} rows")
        say("server at saturation", f"{statistics.median(served):.1f} rows/s")
        say("bare onnxruntime loop, same batch", f"{statistics.median(bare):.1f} rows/s")
        say("ratio, median of rounds", f"{statistics.median(ratios):.3f}")
        say("memory at saturation", f"{running.rss():.0f} MB")


def overload(args: Any, requests: list[bytes], say: Any) -> None:
    with server(f"speed={args.package}", *extra(args), "--objective-ms", str(args.objective_ms)) as running:
        asyncio.run(saturate(running, requests, 3, args.callers))
        got = asyncio.run(saturate(running, requests, args.seconds, args.callers))
        capacity = sum(g.status == 200 for g in got) / args.seconds
        flooded = asyncio.run(flood(running, requests, args.seconds, 3 * capacity))
        accepted = [g.seconds for g in flooded if g.status == 200]
        refused = [g.seconds for g in flooded if g.status == 429]
        other = len(flooded) - len(accepted) - len(refused)
        say("capacity", f"{capacity:.1f} requests/s")
        say("goodput at three times that", f"{len(accepted) / args.seconds / capacity:.3f} of capacity")
        say("accepted, p99", f"{quantile(accepted, 0.99) * 1e3:.0f} ms (objective {args.objective_ms:.0f} ms)")
        say(
            "refused with 429, p50, p99",
            f"{quantile(refused, 0.5) * 1e3:.1f} ms, {quantile(refused, 0.99) * 1e3:.1f} ms",
        )
        say("neither answered nor refused", str(other))


def slope(args: Any, requests: list[bytes], say: Any) -> None:
    with server(f"speed={args.package}", *extra(args)) as running:
        points = []
        start = time.perf_counter()
        while (now := time.perf_counter() - start) < args.minutes * 60:
            asyncio.run(saturate(running, requests, 10, 8))
            points.append((now / 60, running.rss()))
        later = np.array(points[len(points) // 4 :])
        fit = np.polyfit(later[:, 0], later[:, 1], 1)
        say(f"memory over {args.minutes:.0f} minutes of random shapes", f"{points[0][1]:.0f} to {points[-1][1]:.0f} MB")
        say("slope after the first quarter", f"{fit[0]:+.2f} MB a minute")


if __name__ == "__main__":
    main()
