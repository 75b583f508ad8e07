"""`fuseline compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "compare"


def command(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="also write an HTML page")] = None,
) -> None:
    """Put runs side by side: metrics with intervals, time, size, and where their recipes differ."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column
    from rich.table import Table as Grid

    from fuseline import api
    from fuseline.lab.report.compare import comparison_rows

    comparison = api.compare(runs, out=out)
    header, rows = comparison_rows(comparison)
    console = Console()
    # A column a run: metrics and settings are many, runs are few.
    grid = Grid(Column(overflow="fold"), *(Column(escape(row[0]), overflow="fold") for row in rows))
    for title, *cells in list(zip(header, *rows, strict=True))[1:]:
        grid.add_row(escape(title), *(escape(cell) for cell in cells))
    console.print(grid)
    for caution in comparison.cautions:
        console.print(caution, markup=False)
    if out is not None:
        console.print(f"page: {out}", markup=False, soft_wrap=True)
