"""`fuseline cache`: what is kept of frozen encoders' outputs, and clearing it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

NAME = "cache"


def command(
    folder: Annotated[
        Path | None,
        typer.Argument(help="default: $FUSELINE_CACHE, else the user's cache folder", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="remove all of it; the next runs compute it again")] = False,
) -> None:
    """Show which frozen encoders' outputs are kept on disk, how large they are, and when they were last used.

    Trainings keep them so that no cell goes through the same frozen encoder twice. See training.cache_folder and
    training.cache_disk_mb of a recipe.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    from fuseline import api

    console = Console(highlight=False)
    kept = api.kept_outputs(folder, clear=clear)
    if kept.folder is None:
        console.print("off: $FUSELINE_CACHE says so", markup=False)
        return
    if clear:
        console.print(f"{kept.folder}: {kept.bytes / 2**20:.1f} MB removed", markup=False, soft_wrap=True)
        return
    if kept.entries:
        grid = Grid("encoder", "input", "MB", "last used")
        for entry in kept.entries:
            when = f"{datetime.datetime.fromtimestamp(entry['used']):%Y-%m-%d %H:%M}"
            grid.add_row(
                *(escape(entry.get(k, "?")) for k in ("encoder", "input")), f"{entry['bytes'] / 2**20:.1f}", when
            )
        console.print(grid)
    console.print(f"{kept.folder}: {kept.bytes / 2**20:.1f} MB", markup=False, soft_wrap=True)
