"""Drains and hot swaps under load, and a worker that is killed: what is lost?

    python benchmarks/serve_life.py --package a/model.fuse --other b/model.fuse --times 100

Swaps: one server, its package replaced in place again and again. Drains: two servers behind callers that go to the
other one where a connection is refused, as a load balancer does; each gets SIGTERM in turn and is started again. A
request is lost where it reached a server and got no answer, or an answer that is no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import tell
from load import Connection, free_port, post, quantile, server

import fuseline

PATH = "/v1/models/life/predict"


def row_for(package: Path) -> dict[str, Any]:
    """A row that every package of the benchmarks can read: numbers and texts only."""
    recipe = fuseline.load(package).package.recipe
    row: dict[str, Any] = {}
    for name, spec in recipe.inputs.items():
        if spec.columns:
            row |= {c: 1 for c, kind in spec.columns.items() if kind in ("number", "category")}
        elif spec.modality == "text":
            row[recipe.columns_of(name)[0]] = "a few words"
    return row


async def swaps(port: int, folder: Path, packages: list[Path], times: int, request: bytes) -> Counter[str]:
    counts: Counter[str] = Counter()
    versions = [json.loads((p / "manifest.json").read_text())["version"] for p in packages]
    done = False

    async def caller() -> None:
        connection = Connection("127.0.0.1", port)
        while not done:
            got = await connection.ask(request)
            counts["answered" if got.status == 200 else f"lost ({got.status})"] += 1
            if got.status == 200:
                counts[f"by version {versions.index(got.json()['version'])}"] += 1

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    watch = Connection("127.0.0.1", port)
    asking = b"GET /v1/models/life HTTP/1.1\r\nHost: here\r\n\r\n"
    for i in range(times):
        source = packages[(i + 1) % 2]
        new = folder.with_name("new")
        shutil.copytree(source, new)
        old = folder.with_name("old")
        os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old)
        start = time.monotonic()
        while (await watch.ask(asking)).json()["version"] != versions[(i + 1) % 2]:
            await asyncio.sleep(0.02)
            if time.monotonic() - start > 60:
                raise RuntimeError("the swap did not come")
        counts["swaps"] += 1
        if i % 10 == 9:
            print(f"{i + 1} swaps, {counts['answered']} answered", file=sys.stderr, flush=True)
    done = True
    await asyncio.gather(*callers)
    return counts


async def drains(package: Path, times: int, request: bytes) -> Counter[str]:
    counts: Counter[str] = Counter()
    ports = [free_port(), free_port()]
    stacks = [ExitStack(), ExitStack()]
    words = (f"life={package}", "--watch-seconds", "0")
    loop = asyncio.get_running_loop()

    def start(slot: int) -> Any:
        stacks[slot] = ExitStack()
        return stacks[slot].enter_context(server(*words, port=ports[slot]))

    running = [await loop.run_in_executor(None, start, slot) for slot in (0, 1)]
    done = False

    async def caller(first: int) -> None:
        connections = [Connection("127.0.0.1", p) for p in ports]
        slot = first
        while not done:
            got = await connections[slot].ask(request)
            if got.refused:
                slot = 1 - slot
                counts["went to the other"] += 1
                await asyncio.sleep(0.005)
                continue
            counts["answered" if got.status == 200 else f"lost ({got.status})"] += 1
            if got.closing:
                slot = 1 - slot

    callers = [asyncio.create_task(caller(i % 2)) for i in range(8)]
    for i in range(times):
        slot = i % 2
        running[slot].process.send_signal(signal.SIGTERM)
        code = await loop.run_in_executor(None, running[slot].process.wait)
        counts["drains"] += 1
        counts[f"exit code {code}"] += 1
        await loop.run_in_executor(None, stacks[slot].close)
        running[slot] = await loop.run_in_executor(None, start, slot)
        if i % 10 == 9:
            print(f"{i + 1} drains, {counts['answered']} answered", file=sys.stderr, flush=True)
    done = True
    await asyncio.gather(*callers)
    for stack in stacks:
        await loop.run_in_executor(None, stack.close)
    return counts


async def kills(running: Any, times: int, request: bytes) -> Counter[str]:
    """kill -9 of the worker under load: how long until answers come again, and what the others got."""
    counts: Counter[str] = Counter()
    back: list[float] = []
    done = False

    async def caller() -> None:
        connection = Connection("127.0.0.1", running.port)
        while not done:
            got = await connection.ask(request)
            counts[f"status {got.status}"] += 1
            if got.status != 200:
                await asyncio.sleep(0.02)

    callers = [asyncio.create_task(caller()) for _ in range(4)]
    probe = Connection("127.0.0.1", running.port)
    for _ in range(times):
        await asyncio.sleep(6)  # longer than a short life
        os.kill(running.pids()[1], signal.SIGKILL)
        start = time.monotonic()
        while (await probe.ask(request)).status == 200:
            await asyncio.sleep(0.001)
        while (await probe.ask(request)).status != 200:
            await asyncio.sleep(0.01)
        back.append(time.monotonic() - start)
    done = True
    await asyncio.gather(*callers)
    counts["back after ms, median"] = round(quantile(back, 0.5) * 1e3)
    counts["back after ms, longest"] = round(max(back) * 1e3)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--only", choices=("swaps", "drains", "kills"))
    parser.add_argument("--out")
    args = parser.parse_args()
    request = post(PATH, {"rows": [row_for(args.package)]})
    rows: list[dict[str, Any]] = []

    def add(what: str, counts: Counter[str]) -> None:
        rows.extend({"what": what, "of": k, "count": v} for k, v in sorted(counts.items()))
        print(what, dict(counts), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "life.fuse"
        shutil.copytree(args.package, folder)
        if args.only in (None, "swaps"):
            with server(f"life={folder}", "--watch-seconds", "0.1") as running:
                add(
                    "hot swaps",
                    asyncio.run(swaps(running.port, folder, [args.package, args.other], args.times, request)),
                )
        if args.only in (None, "drains"):
            add("drains", asyncio.run(drains(args.package, args.times, request)))
        if args.only in (None, "kills"):
            with server(f"life={args.package}", "--watch-seconds", "0") as running:
                add("kill -9 of the worker", asyncio.run(kills(running, args.kills, request)))
    tell("drains, swaps and kills under load", rows, args.out)
    sys.exit(1 if any("lost" in str(r["of"]) for r in rows) else 0)


if __name__ == "__main__":
    main()
