"""The constants of docs/team.md: what a step, a row's scan, a validated row, a checkpoint and an all-reduce cost here.

`chest-xray`, all trained from scratch (small encoders of pictures, notes and numbers). Processor time, which a busy
machine changes less than the clock; the all-reduce between two processes on the clock, too, for it waits.

    OMP_NUM_THREADS=1 python benchmarks/team_costs.py
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

BATCH, STEPS, MIB = 32, 6, 16


def cost(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def constants(folder: Path) -> dict[str, Any]:
    # Here, since the two processes of the all-reduce import this file and need none of it.
    from chest_xray import VITALS
    from common import DATA, LEAN

    from fuseline.data.windows import open_table
    from fuseline.lab.build import build_model
    from fuseline.lab.training import loop
    from fuseline.lab.training.cache import Cache
    from fuseline.lab.training.checkpoint import SafeCheckpointIO
    from fuseline.lab.training.prepare import prepare
    from fuseline.progress import Silent
    from fuseline.recipe import parse_recipe

    recipe = {
        "table": {"path": str(DATA / "chest-xray" / "table.csv")},
        "inputs": {
            "image": {"modality": "image", "encoder": {"kind": "small"}},
            "notes": {"modality": "text", "encoder": {"kind": "small"}},
            "vitals": {"modality": "tabular", "columns": VITALS, "encoder": {"kind": "small"}},
        },
        "task": {"kind": "classification", "target": "covid", "positive": "yes"},
        "split": {"kind": "group", "group": "patient", "val": 0.2, "test": 0.2},
        "training": {"batch_size": BATCH, "precision": "float32", "loggers": []},
        "evaluation": LEAN,
    }
    spec, found = parse_recipe(recipe), {}
    table = open_table(spec.table.path, spec.table)

    def scan() -> None:
        found["prepared"] = prepare(spec, table, folder=folder, voice=Silent(), cache=Cache(512))

    scanned = cost(scan)
    prepared = found["prepared"]
    model = build_model(spec, prepared.plans, prepared.parser.modalities, prepared.task)
    loop.begin(prepared, model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = prepared.reader.batch(prepared.rows("train")[:BATCH])
    assert batch.targets is not None

    def step() -> None:
        optimizer.zero_grad()
        model.head.loss(model(batch.arrays, batch.present_BM), batch.targets).backward()
        optimizer.step()

    @torch.no_grad()
    def validate() -> None:
        model.head.validation(model(batch.arrays, batch.present_BM), batch.targets)

    step()
    steps = statistics.median(cost(step) for _ in range(STEPS))
    model.eval()
    validated = statistics.median(cost(validate) for _ in range(STEPS))
    state = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    written = cost(lambda: SafeCheckpointIO().save_checkpoint(state, folder / "last"))
    size = sum(f.stat().st_size for f in (folder / "last").iterdir())
    return {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "step_s": round(steps, 4),
        "step_row_s": round(steps / BATCH, 5),
        "scan_row_s": round(scanned / table.n_rows, 5),
        "validated_row_s": round(validated / BATCH, 5),
        "checkpoint_mib": round(size / 2**20, 2),
        "checkpoint_s": round(written, 4),
    }


def reduce(rank: int, port: int, file: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    tensor = torch.ones(MIB * 2**18)
    dist.all_reduce(tensor)
    clock, busy = [], []
    for _ in range(STEPS):
        start, spent = time.perf_counter(), time.process_time()
        dist.all_reduce(tensor)
        clock.append(time.perf_counter() - start)
        busy.append(time.process_time() - spent)
    if rank == 0:
        told = {"all_reduce_mib": MIB, "clock_s": float(np.min(clock)), "processor_s": float(np.median(busy))}
        Path(file).write_text(json.dumps({k: round(v, 4) for k, v in told.items()}), encoding="utf-8")
    dist.destroy_process_group()


def reduced(file: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(reduce, (port, str(file)), nprocs=2)
    return file.read_text(encoding="utf-8")


def main() -> None:
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(constants(Path(name))), flush=True)
        print(reduced(Path(name) / "told.json"))


if __name__ == "__main__":
    main()
