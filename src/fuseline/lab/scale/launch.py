"""Starts a team on this machine, by torchrun, or on a cluster, by Ray Train. Both start it again where one of its
processes dies; training then goes on from the last checkpoint, and ends with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from fuseline.errors import FuselineError, unknown_kind
from fuseline.lab.scale.worker import FAILED, Order
from fuseline.lab.training.team import STRATEGIES
from fuseline.recipe import Recipe, dump_recipe
from fuseline.runtime.backend import cpu_quota

Engine = Literal["local", "ray"]
ENGINES: Final = get_args(Engine)
RESTARTS: Final = 3
"""times that a team is started again"""
ORDER, RECIPE = "order.json", "team-recipe.yaml"


def train_together(
    recipe: Recipe,
    table: Path,
    folder: Path,
    *,
    workers: int,
    engine: str = "local",
    strategy: str = "ddp",
    quiet: bool = False,
) -> None:
    """Train one run by several processes, until its report is written.

    Args:
        recipe: `training.batch_size` is of all processes together.
        table: a file that all machines see under the same path, as they see `folder`.
        folder: the run's; one that was begun by a team is gone on with.
        workers: processes, of one GPU each where there are GPUs.
        engine: local (this machine) or ray (a cluster that `ray.init` finds, or this machine).
        strategy: ddp (each process has the whole model) or fsdp (its weights are split over them).
        quiet: say nothing.

    Raises:
        FuselineError: what stopped the training, ``bad_team`` for wrong numbers, ``team_lost`` where a process died
            more often than the team is started again, ``missing_extra`` without Ray.
    """
    if engine not in ENGINES:
        raise unknown_kind("engine", engine, ENGINES)
    if strategy not in STRATEGIES:
        raise unknown_kind("strategy", strategy, STRATEGIES)
    if workers < 1:
        raise FuselineError("bad_team", f"{workers} workers", "1 or more")
    (folder / FAILED).unlink(missing_ok=True)
    (folder / RECIPE).write_text(dump_recipe(recipe), encoding="utf-8")
    order = Order(str((folder / RECIPE).resolve()), str(table.resolve()), str(folder.resolve()), quiet, strategy)
    order.write(folder / ORDER)
    if engine == "ray":
        from fuseline.lab.scale.ray import train_on_ray

        train_on_ray(order, workers)
    else:
        _torchrun(folder / ORDER, workers)
    if (folder / FAILED).exists():
        raise FuselineError.from_dict(json.loads((folder / FAILED).read_text(encoding="utf-8")))


def _torchrun(order: Path, workers: int) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(workers), "--max-restarts", str(RESTARTS), "--monitor-interval", "1"),
        *("-m", "fuseline.lab.scale.worker", str(order)),
    ]
    process = subprocess.Popen(command, env=environment(workers, os.environ))
    try:
        code = process.wait()
    except KeyboardInterrupt:  # it had the signal, too, and ends its processes
        process.wait()
        raise
    if code:
        raise lost(f"torchrun ended with status {code}")


def environment(workers: int, given: Mapping[str, str]) -> dict[str, str]:
    """Each process gets its part of the processors: torch would take all of them for every one."""
    threads = str(max(1, cpu_quota() // workers))
    return {"OMP_NUM_THREADS": threads, "TORCH_CPP_LOG_LEVEL": "ERROR", **given}


def lost(why: str) -> FuselineError:
    return FuselineError(
        "team_lost",
        f"a process of the team died {RESTARTS + 1} times: {why}",
        "what was checkpointed is kept: look above for its last words, then go on with --resume RUN --workers N",
    )
