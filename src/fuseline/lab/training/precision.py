"""Whether reduced precision gains on this machine: measured once a machine and model, then remembered.

Remembered, because a choice by stop-watch could fall the other way on the next start, and the same command must give
the same numbers twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from fuseline.lab.model import FusionModel
from fuseline.lab.training.reader import Batch

GAIN = 1.3
SHORT_STEP = 0.02


def memory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "fuseline" / "precision.json"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def choose(model: FusionModel, batch: Batch) -> tuple[str, str]:
    """("float32" | "bfloat16" | "float16", what to say about it)."""
    if torch.cuda.is_available():
        kind = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        return kind, f"precision: {kind} on the GPU"
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if not (capable() or amx()):
        return "float32", "precision: float32 (this processor has no bfloat16 arithmetic)"
    shapes = [(k, tuple(p.shape), p.requires_grad) for k, p in model.named_parameters()]
    shapes += [(k, tuple(v.shape[1:2]), True) for k, v in batch.arrays.items()]
    key = hashlib.sha256(repr((shapes, _cpu_name(), torch.__version__, torch.get_num_threads())).encode()).hexdigest()
    path = memory()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(known, dict)
    except (OSError, ValueError, AssertionError):
        known = {}
    if key in known:
        kind, ratio = known[key]
        return kind, f"precision: {kind} (bfloat16 was measured {ratio:.2f}x as fast on this machine)"
    times: dict[bool, list[float]] = {False: [], True: []}
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    for i in range(4):
        for reduced in (False, True):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
                outputs = model(batch.arrays, batch.present_BM)
                assert batch.targets is not None
                loss = model.head.loss(outputs, batch.targets)
            torch.autograd.backward(loss)
            if i:
                times[reduced].append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    model.load_state_dict(state)
    plain, reduced_time = statistics.median(times[False]), statistics.median(times[True])
    ratio = plain / reduced_time
    kind = "bfloat16" if ratio >= GAIN and plain >= SHORT_STEP else "float32"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({**known, key: [kind, ratio]}), encoding="utf-8")
        os.replace(new, path)
    except OSError:  # a choice that cannot be remembered could differ next time
        return "float32", "precision: float32 (no place to remember a measured choice)"
    return kind, f"precision: {kind} (bfloat16 measured {ratio:.2f}x as fast as float32)"
