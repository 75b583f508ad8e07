"""`fuseline pretrain`: encoders and fusion from rows without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli.options import CacheFolder
from fuseline.cli.train import OnError

NAME = "pretrain"


def command(
    recipe: Annotated[Path | None, typer.Argument(help="the later training's recipe", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option("--data", help="a table, instead of the recipe's")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the folder; default runs/NAME-TIME")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's pretrain.epochs")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="go on with this interrupted pretraining")] = None,
    on_error: Annotated[
        OnError | None, typer.Option("--on-error", help="broken cells: stop, or quarantine their rows and go on")
    ] = None,
    cache: CacheFolder = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Learn from rows without labels, for a training that has few of them.

    `fuseline pretrain visits.yaml --data all-visits.parquet -o pretrained`, then
    `fuseline train visits.yaml --init pretrained`

    Trains the recipe's encoders (those that are not frozen) and its fusion to tell which inputs belong to one row, and
    to say hidden parts of each input from the rest. The target column need not be there; where it is, rows that the
    recipe would test on are not read. What is learned and how long stands in the recipe's `pretrain`.
    """
    from rich.console import Console
    from rich.table import Table as Grid

    from fuseline import api

    found = api.pretrain(
        recipe,
        table=data,
        out=out,
        epochs=epochs,
        on_error=None if on_error is None else on_error.value,
        resume=resume,
        quiet=quiet,
        cache_folder=cache,
    )
    learned, console = found.learned, Console(highlight=False)
    if learned["held_out"]:
        grid = Grid("held out", "first", "kept", "by lot", title="pretraining")
        for name, value in learned["held_out"].items():
            figures = (learned["held_out_first"].get(name), value, learned.get("chance", {}).get(name))
            grid.add_row(name, *("" if v is None else f"{v:.3f}" for v in figures))
        console.print(grid)
    console.print(f"weights: {found.folder}\ncurve:   {found.curve}", markup=False)
    console.print(f"next:    fuseline train RECIPE --init {found.folder}", markup=False)
