"""Many callers at once, some hostile, some leaving: nobody pays for another, and no answer goes astray.

    python benchmarks/serve_storm.py --package demo/run/model.fuse --table demo/table.csv --requests 100000

A tenth of the requests is poisoned (unreadable media, broken JSON, absurd numbers), a tenth hangs up while waiting, the
rest carries rows whose answer is known, of every length and with every subset of inputs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import csv
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import tell
from load import Connection, Got, post, quantile, server

import fuseline

ATOL = 1e-4


def known_rows(package: Path, table: Path, count: int, seed: int) -> list[tuple[dict[str, Any], Any]]:
    """Rows as JSON beside the predictor's own answer; cells are left out at random."""
    predictor = fuseline.load(package)
    media = {
        c
        for n, s in predictor.package.recipe.inputs.items()
        for c in predictor.package.recipe.columns_of(n)
        if s.modality in ("image", "audio")
    }
    rng = random.Random(seed)
    with table.open(encoding="utf-8", newline="") as file:
        cells = [{k: v for k, v in row.items() if v and k in predictor.rows.columns} for row in csv.DictReader(file)]
    rows = []
    for i in range(count):
        row = {k: v for k, v in cells[i % len(cells)].items() if rng.random() < 0.8}
        for column in media & set(row):
            row[column] = base64.b64encode((table.parent / row[column]).read_bytes()).decode()
        rows.append(row)
    return list(zip(rows, predictor.predict(rows), strict=True))


def poisons(path: str, row: dict[str, Any]) -> list[bytes]:
    any_media = next((k for k, v in row.items() if isinstance(v, str) and len(v) > 500), "picture")
    return [
        post(path, {"rows": [{any_media: base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 64).decode()}]}),
        post(path, {"rows": [{any_media: "x" * 1000}]}),
        post(path, b'{"rows": [{"a": NaN}]}'),
        post(path, b"\xff\xfe\x00"),
        post(path, {"rows": ["row", 3]}),
        post(path, {"rows": []}),
        post(path, b"[" * 5000),
    ]


async def storm(
    port: int, name: str, known: list[tuple[dict[str, Any], Any]], total: int, callers: int
) -> Counter[str]:
    path = f"/v1/models/{name}/predict"
    good = [post(path, {"rows": [row]}) for row, _ in known]
    bad = poisons(path, known[0][0])
    counts: Counter[str] = Counter()
    left = iter(range(total))
    times: list[float] = []
    started = time.monotonic()

    def check(got: Got, place: int) -> str:
        if got.status != 200:
            return f"innocent failure {got.status}"
        answer, want = got.json()["answers"][0], known[place][1]
        same = answer["value"] == want.value and all(
            abs(p - want.probabilities[k]) <= ATOL for k, p in answer["probabilities"].items()
        )
        return "answered" if same else "mixed up"

    async def caller(seed: int) -> None:
        rng, connection = random.Random(seed), Connection("127.0.0.1", port)
        for number in left:
            if number % 10_000 == 0:
                print(f"{number} of {total}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            chance = rng.random()
            try:
                if chance < 0.1:
                    got = await asyncio.wait_for(connection.ask(rng.choice(bad)), 60)
                    counts["poison refused" if 400 <= got.status < 500 else f"poison got {got.status}"] += 1
                elif chance < 0.2:
                    leaving = Connection("127.0.0.1", port)
                    task = asyncio.ensure_future(leaving.ask(rng.choice(good)))
                    await asyncio.sleep(rng.random() * 0.02)
                    task.cancel()
                    leaving.close()
                    counts["cancelled"] += 1
                else:
                    place = rng.randrange(len(good))
                    got = await asyncio.wait_for(connection.ask(good[place]), 60)
                    times.append(got.seconds)
                    counts[check(got, place)] += 1
            except TimeoutError:
                counts["hang"] += 1
                connection.close()
        connection.close()

    await asyncio.gather(*(caller(i) for i in range(callers)))
    counts["seconds"] = round(time.monotonic() - started)
    counts["p50 ms"], counts["p99 ms"] = round(quantile(times, 0.5) * 1e3), round(quantile(times, 0.99) * 1e3)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--out")
    args = parser.parse_args()
    known = known_rows(args.package, args.table, 200, 0)
    with server(f"storm={args.package}", "--objective-ms", "60000") as running:
        counts = asyncio.run(storm(running.port, "storm", known, args.requests, args.callers))
    tell("storm", [{"what": k, "count": v} for k, v in sorted(counts.items())], args.out)
    wrong = sum(v for k, v in counts.items() if k.startswith(("innocent", "mixed", "hang", "poison got")))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
