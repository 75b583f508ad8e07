"""`fuseline init`: look at a table, say what each column is, write a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

NAME = "init"


def command(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet, JSONL or Arrow file")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="the column to predict; several: a task each")
    ] = None,
    left: Annotated[
        list[str] | None, typer.Option(help="instead of a target: a column that is to find those of --right")
    ] = None,
    right: Annotated[list[str] | None, typer.Option(help="a column that is to find those of --left")] = None,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="of a table whose rows are moments: steps of the target to forecast")
    ] = None,
    history: Annotated[int | None, typer.Option(min=1, help="steps that a forecast looks back on")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the recipe; default: TABLE.yaml beside you")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing recipe")] = False,
) -> None:
    """Look at a table and write a commented recipe.

    Prints what each column was taken for and why. Nothing is trained. Read the recipe, change what is wrong, then
    `fuseline train` it.
    """
    from fuseline import api

    path = out or Path(f"{table.stem}.yaml")
    wanted: dict[str, Any] = {"left": left or (), "right": right or (), "horizon": horizon, "history": history}
    text, inferred = api.init(table, target, **wanted)
    if path.resolve().parent != table.resolve().parent:  # the recipe's paths are relative to the recipe
        text, inferred = api.init(table.resolve(), target, **wanted)
    elif table.name != str(table):
        text = text.replace(str(table), table.name, 1)
    api.write_recipe(text, path, force=force)
    console = Console()
    grid = Grid("column", "taken for", "absent", "why", title=escape(f"{table.name}: {inferred.rows} rows"))
    for column in inferred.columns:
        grid.add_row(escape(column.name), column.kind, f"{column.absent:.0%}", escape(column.reason))
    console.print(grid)
    console.print(f"\nrecipe: {path}\nnext:   fuseline train {path}", markup=False)
