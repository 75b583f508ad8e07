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
    from rich.table import Table as Grid

    from fuseline import api
    from fuseline.lab.report.compare import comparison_rows

    comparison = api.compare(runs, out=out)
    header, rows = comparison_rows(comparison)
    grid = Grid(*header)
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    Console().print(grid)
