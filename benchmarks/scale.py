"""What a request costs, measured on a package, and what 10, 10 thousand and 10 million a second would take from that.

Fills the tables of docs/scale.md between their markers: `python benchmarks/scale.py PACKAGE --write docs/scale.md`.
Costs are *processor* seconds (user and system, from the kernel's own accounts), so that a busy machine changes them
little; rows are the dearest that the package can be sent (deploy/heaviest.py).
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import fuseline
from fuseline.deploy.heaviest import heaviest_row
from fuseline.modalities import MediaRoot

BATCHES = (1, 8, 32)
RATES = (10, 10_000, 10_000_000)
LOAD = 0.7
"""share of its processors that a pod is meant to be busy: the autoscaler's CPU target"""
POD_CORES = 2


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_of(pid: int) -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def best(work: Any, tries: int = 3) -> float:
    """Processor seconds of the cheapest of a few tries."""
    work()
    seconds = []
    for _ in range(tries):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def graph_costs(package: Path) -> dict[str, Any]:
    predictor = fuseline.load(package, threads=1)
    row = heaviest_row(predictor.rows)
    parsed = predictor.rows.parse(row, MediaRoot()).values
    out: dict[str, Any] = {"decode_ms": best(lambda: predictor.rows.parse(row, MediaRoot())) * 1e3, "graph_ms": {}}
    for batch in BATCHES:
        out["graph_ms"][str(batch)] = best(lambda b=batch: predictor.run([parsed] * b)) * 1e3 / batch
    out["without_ms"] = {
        name: best(lambda n=name: predictor.run([{**parsed, n: None}] * 8)) * 1e3 / 8
        for name, value in parsed.items()
        if value is not None
    }
    out["absent"] = sorted(n for n, v in parsed.items() if v is None)
    media = sum(len(v) for v in row.values() if isinstance(v, bytes))
    out["media_bytes"] = media
    out["package_bytes"] = predictor.package.bytes
    return out


def request_body(package: Path) -> bytes:
    row = heaviest_row(fuseline.load(package, threads=1).rows)
    cells = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in row.items()}
    return json.dumps({"rows": [cells]}).encode()


def server_costs(package: Path, requests: int) -> dict[str, Any]:
    """Processor time of the front process and of the worker for one request, and their memory. One caller at a time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fuseline", "serve", f"m={package}", "--port", str(port), "--threads", "1"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        body, costs = request_body(package), {}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(600):
            try:
                connection.request("GET", "/readyz")
                if connection.getresponse().read() == b"ok\n":
                    break
            except OSError:
                connection.close()
            time.sleep(0.1)
        else:
            raise SystemExit("the server did not become ready")
        [worker] = map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())
        headers = {"content-type": "application/json"}
        for number in range(requests + 5):
            if number == 5:
                before = cpu_of(server.pid), cpu_of(worker)
            connection.request("POST", "/v1/models/m/predict", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
        costs["front_ms"] = (cpu_of(server.pid) - before[0]) * 1e3 / requests
        costs["worker_ms"] = (cpu_of(worker) - before[1]) * 1e3 / requests
        costs["front_mib"], costs["worker_mib"] = rss_of(server.pid), rss_of(worker)
        costs["request_bytes"], costs["reply_bytes"] = len(body), len(text)
        return costs
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def needs(costs: dict[str, Any], rate: int) -> dict[str, Any]:
    """What `rate` requests a second of one row each take, if a pod's batches are full."""
    row = costs["decode_ms"] + costs["graph_ms"]["32"]
    request = costs["front_ms"] + row
    pod = min(POD_CORES * LOAD * 1e3 / request, LOAD * 1e3 / costs["front_ms"])
    pods = max(2, math.ceil(rate / pod))
    return {
        "rate": rate,
        "cores": math.ceil(rate * request / 1e3 / LOAD),
        "pods": pods,
        "memory_gib": pods * (costs["front_mib"] + costs["worker_mib"]) / 1024,
        "gbit": rate * costs["request_bytes"] * 8 / 1e9,
        "per_pod": pod,
    }


def tables(costs: dict[str, Any], name: str) -> str:
    g, w = costs["graph_ms"], costs["without_ms"]
    lines = ["| measured for one row, one thread | processor time |", "|---|---|"]
    lines += [f"| decode the media and the text | {costs['decode_ms']:.1f} ms |"]
    lines += [f"| the graph, batch of {b} | {g[b]:.1f} ms |" for b in g]
    lines += [f"| the graph, batch of 8, `{n}` absent | {v:.1f} ms |" for n, v in w.items()]
    lines += [f"| a request in the front process (HTTP, JSON, base64) | {costs['front_ms']:.1f} ms |"]
    lines += [f"| a request in the worker, alone in its batch | {costs['worker_ms']:.1f} ms |", ""]
    lines += ["| measured size | |", "|---|---|", f"| package | {costs['package_bytes'] / 2**20:.0f} MiB |"]
    lines += [f"| memory at its highest: front, worker | {costs['front_mib']:.0f}, {costs['worker_mib']:.0f} MiB |"]
    lines += [f"| request as JSON, reply | {costs['request_bytes']:,}, {costs['reply_bytes']:,} bytes |"]
    lines += [f"| media alone, as the binary protocol sends them | {costs['media_bytes']:,} bytes |", ""]
    lines += ["| requests/s | processors | pods of 2 | memory | into the cluster |", "|---|---|---|---|---|"]
    for n in (needs(costs, rate) for rate in RATES):
        lines.append(
            f"| {n['rate']:,} | {n['cores']:,} | {n['pods']:,} | {n['memory_gib']:,.1f} GiB | {n['gbit']:,.2f} Gbit/s |"
        )
    row = costs["decode_ms"] + g["32"]
    whole = costs["front_ms"] + row
    lines += ["", "| what changes it | by how much, here |", "|---|---|"]
    lines += [f"| batches of 32, not of 1 | the graph's {g['1']:.1f} ms a row become {g['32']:.1f} ms |"]
    for n, v in w.items():
        lines += [f"| rows without `{n}` | the graph's {g['8']:.1f} ms a row become {v:.1f} ms |"]
    lines += [
        f"| media as bytes, not base64 in JSON | {costs['media_bytes'] / costs['request_bytes']:.0%} of the bytes |"
    ]
    lines += [
        f"| the front process is full (it is one) | at {1e3 / costs['front_ms']:.0f} requests/s, "
        f"with {whole / costs['front_ms']:.1f} processors at work in the pod |"
    ]
    said = (
        f"`{name}`: {costs['machine']}; fuseline {fuseline.__version__}, onnxruntime {costs['onnxruntime']}. "
        f"A pod answers {needs(costs, 10)['per_pod']:.1f} requests/s at {LOAD:.0%} of its processors."
    )
    return said + "\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--name", default="model")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--machine", default=f"{os.cpu_count()} processors")
    parser.add_argument("--write", type=Path, help="fill the tables between the markers of this file")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import onnxruntime

    costs = graph_costs(args.package) | server_costs(args.package, args.requests)
    costs |= {"machine": args.machine, "onnxruntime": onnxruntime.__version__, "load": os.getloadavg()[0]}
    if args.out:
        args.out.write_text(json.dumps(costs, indent=1) + "\n")
    text = tables(costs, args.name)
    print(text)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        filled, count = re.subn(
            r"(<!-- scale: begin -->\n).*?(<!-- scale: end -->)", lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.S
        )
        assert count == 1, f"{args.write} has no markers"
        args.write.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
