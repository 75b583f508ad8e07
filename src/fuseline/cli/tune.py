"""`fuseline tune`: the recipe that does best, by trying."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli.options import CacheFolder

NAME = "tune"


class Engine(StrEnum):
    local = "local"
    ray = "ray"


def command(
    recipe: Annotated[Path | None, typer.Argument(help="a recipe; with --resume none", show_default=False)] = None,
    table: Annotated[Path | None, typer.Option("--table", help="instead of the recipe's own")] = None,
    trials: Annotated[int, typer.Option(min=1, help="in all, those that were given up included")] = 50,
    max_time: Annotated[
        str | None, typer.Option("--time", help="begin no trial after it, e.g. 30m or 1h", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes that try at the same time")] = 1,
    engine: Annotated[
        Engine, typer.Option("--engine", help="who starts them: local (here) or ray (on a cluster)")
    ] = Engine.local,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="the search's folder; default: tunes/TABLE-DATE")
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="go on with the search in this folder")] = None,
    cache: CacheFolder = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
    until: Annotated[float | None, typer.Option("--until", hidden=True)] = None,
) -> None:
    """Try recipes, and write the one that does best on validation rows.

    `fuseline tune visits.yaml --trials 50 --time 1h --workers 2`

    What may change stands in the recipe's `tune.space` (`training.learning_rate: {low: 1e-4, high: 1e-2, log: true}`,
    `fusion.kind: [attention, concat]`); without it: learning rate, weight decay, batch size, dropouts, width and kind
    of fusion. Trials that fall behind are given up early. Test rows are never looked at.

    With --engine ray trials are tasks on a Ray cluster; one whose worker dies goes on elsewhere from its checkpoint.

    Ends with `OUT/best.yaml`, to be trained with `fuseline train`, and `OUT/tune.html`: what was tried, and what
    mattered. Everything is in `OUT/study.db`: after Ctrl-C or a kill, `fuseline tune --resume OUT` goes on.
    """
    from fuseline import api

    if worker:
        assert resume is not None
        api.tuning.work(resume, trials=trials, until=until)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    found = api.tune(
        recipe,
        table=table,
        out=out,
        trials=trials,
        max_time=max_time,
        workers=workers,
        engine=engine.value,
        cache_folder=cache,
        resume=resume,
        quiet=quiet,
    )
    console, result = Console(highlight=False), found.result
    best = result["best"]
    title = escape(f"{result['metric']} {best['value']:.4g}, trial {best['trial']}")
    grid = Grid("key", "best", "importance", title=title)
    for path, value in best["changes"].items():
        share = result["importance"].get(path)
        grid.add_row(escape(path), escape(str(value)), "" if share is None else f"{share:.0%}")
    console.print(grid)
    states = ", ".join(f"{n} {state}" for state, n in result["counts"].items())
    console.print(f"trials: {states}\nrecipe: {found.recipe}\nreport: {found.report}", markup=False)
    console.print(f"next:   fuseline train {found.recipe}", markup=False)
