"""Generated requests against a running server: no answer of 5xx, no traceback, and it still answers rightly afterwards.

    python benchmarks/serve_fuzz.py --package demo/run/model.fuse --requests 100000

Half of them follow the OpenAPI document (schemathesis makes cases that fit it and cases that do not), half are binary
requests of the Open Inference Protocol: random tensors, and valid ones with bytes changed, cut or moved.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import struct
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from common import tell
from load import Connection, post, server


def valid_infer(info: dict[str, Any], rng: random.Random) -> tuple[bytes, int]:
    """A binary infer request over random columns: its body and the length of its JSON."""
    rows = rng.randint(1, 4)
    inputs, blobs = [], []
    for tensor in rng.sample(info["inputs"], rng.randint(1, len(info["inputs"]))):
        kind = tensor["datatype"]
        if kind == "BYTES":
            cells = [rng.randbytes(rng.randint(0, 40)) for _ in range(rows)]
            blob = b"".join(struct.pack("<I", len(c)) + c for c in cells)
        elif kind == "BOOL":
            blob = bytes(rng.randint(0, 1) for _ in range(rows))
        else:
            blob = rng.randbytes(4 * rows) if kind in ("FP32", "INT32") else rng.randbytes(8 * rows)
        inputs.append(
            {"name": tensor["name"], "datatype": kind, "shape": [rows], "parameters": {"binary_data_size": len(blob)}}
        )
        blobs.append(blob)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": rng.random() < 0.5}}).encode()
    return head + b"".join(blobs), len(head)


def mutated(body: bytes, length: int, rng: random.Random) -> tuple[bytes, int]:
    data = bytearray(body)
    for _ in range(rng.randint(1, 8)):
        match rng.randint(0, 4):
            case 0 if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            case 1 if data:
                del data[rng.randrange(len(data)) :]
            case 2:
                data[rng.randrange(len(data) + 1) : 0] = rng.randbytes(rng.randint(1, 9))
            case 3:
                length = rng.choice([0, -1, length + rng.randint(-9, 9), 2**63, len(data), len(data) + 1])
            case _:
                data += rng.randbytes(rng.randint(1, 50))
    return bytes(data), length


async def binary(port: int, name: str, total: int, seed: int) -> Counter[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{name}") as reply:
        info = json.load(reply)
    counts: Counter[str] = Counter()
    left = iter(range(total))

    async def caller(number: int) -> None:
        rng, connection = random.Random(seed + number), Connection("127.0.0.1", port)
        for i in left:
            body, length = valid_infer(info, rng)
            if rng.random() < 0.8:
                body, length = mutated(body, length, rng)
            headers = {"Inference-Header-Content-Length": str(length)} if rng.random() < 0.95 else {}
            got = await asyncio.wait_for(connection.ask(post(f"/v2/models/{name}/infer", body, headers=headers)), 60)
            counts[f"binary {got.status}"] += 1
            if got.status != 200 and set(got.json()) != {"error"}:
                counts["binary: another form of error"] += 1
            counts["tracebacks"] += b"Traceback" in got.body
            if i % 10_000 == 0:
                print(f"binary {i}", file=sys.stderr, flush=True)
        connection.close()

    await asyncio.gather(*(caller(i) for i in range(8)))
    return counts


def by_document(port: int, total: int, seed: int) -> Counter[str]:
    """Cases that schemathesis makes from the document, sent by its own client."""
    import hypothesis
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    counts: Counter[str] = Counter()
    operations = [r.ok() for r in schema.get_all_operations()]
    share = total // len(operations)
    from schemathesis.generation import GenerationMode

    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.seed(seed)
            @settings(
                max_examples=max(10, share // 2),
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                got = case.call(timeout=60)
                counts[f"document {got.status_code}"] += 1
                counts["tracebacks"] += b"Traceback" in got.content

            try:
                send()
            except hypothesis.errors.Unsatisfiable:
                counts["operations without such cases"] += 1
        print(
            operation.label, sum(v for k, v in counts.items() if k.startswith("document")), file=sys.stderr, flush=True
        )
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--only", choices=("document", "binary"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    args = parser.parse_args()
    start = time.monotonic()
    counts: Counter[str] = Counter()
    with server(f"fuzz={args.package}", "--objective-ms", "60000") as running:
        if args.only in (None, "binary"):
            counts += asyncio.run(binary(running.port, "fuzz", args.requests // 2, args.seed))
        if args.only in (None, "document"):
            counts += by_document(running.port, args.requests // 2, args.seed)
        probe = Connection("127.0.0.1", running.port)
        after = asyncio.run(probe.ask(post("/v1/models/fuzz/predict", {"rows": [{}]})))
        counts[f"after it all {after.status}"] += 1
    counts["seconds"] = round(time.monotonic() - start)
    tell("generated requests", [{"what": k, "count": v} for k, v in sorted(counts.items())], args.out)
    wrong = sum(v for k, v in counts.items() if " 5" in k or k.startswith(("tracebacks", "binary:")))
    sys.exit(1 if wrong or counts["after it all 200"] != 1 else 0)


if __name__ == "__main__":
    main()
