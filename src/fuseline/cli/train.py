"""`fuseline train`: from a recipe (or a table and its target) to a run's folder."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli.options import CacheFolder
from fuseline.errors import FuselineError

NAME = "train"


class Engine(StrEnum):
    local = "local"
    ray = "ray"


class Strategy(StrEnum):
    ddp = "ddp"
    fsdp = "fsdp"


class OnError(StrEnum):
    stop = "stop"
    quarantine = "quarantine"


def command(
    source: Annotated[Path | None, typer.Argument(help="a recipe (.yaml), or a table together with --target")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="the column to predict")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the run's folder; default runs/NAME-TIME")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="go on with this interrupted run")] = None,
    on_error: Annotated[
        OnError | None, typer.Option("--on-error", help="broken cells: stop, or quarantine their rows and go on")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="processes that train together; the batch is shared among them")
    ] = 1,
    engine: Annotated[
        Engine, typer.Option("--engine", help="who starts them: local (torchrun, here) or ray (on a cluster)")
    ] = Engine.local,
    strategy: Annotated[
        Strategy,
        typer.Option("--strategy", help="of several processes: each has the model (ddp), or a part of it (fsdp)"),
    ] = Strategy.ddp,
    init: Annotated[
        Path | None, typer.Option("--init", help="begin from this folder of `fuseline pretrain`", show_default=False)
    ] = None,
    cache: CacheFolder = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Train, evaluate, package and report.

    Ctrl-C or a kill loses at most the current interval: `fuseline train --resume RUN` ends with the same weights as an
    uninterrupted run. The folder holds report.html, metrics.json, model.fuse and the recipe as it was used.

    With --workers several processes train together, and one that dies is started again. Over several machines:
    `torchrun ... -m fuseline train RECIPE --out RUN`, or --engine ray.
    """
    from fuseline import api
    from fuseline.cli.show import show_run

    if resume is not None:
        if source is not None or cache is not None or init is not None:
            message = "--resume goes on with a run as it was"
            raise FuselineError("bad_usage", message, "leave recipe, --cache and --init away")
        run = api.resume(resume, quiet=quiet, workers=workers, engine=engine.value, strategy=strategy.value)
    elif source is None:
        raise FuselineError("bad_usage", "what shall be trained?", "fuseline train RECIPE, or TABLE --target COLUMN")
    else:
        mode = None if on_error is None else on_error.value
        run = api.train(
            source,
            target=target,
            out=out,
            on_error=mode,
            cache_folder=cache,
            quiet=quiet,
            workers=workers,
            engine=engine.value,
            strategy=strategy.value,
            init=init,
        )
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun the first process has the run
        show_run(run)
