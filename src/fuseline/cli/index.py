"""`fuseline index`: embed a table's rows, to be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

NAME = "index"


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    table: Annotated[Path, typer.Argument(help="the rows: CSV, TSV, Parquet, JSONL or Arrow")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the index's folder")],
    side: Annotated[
        str | None, typer.Option(help="of a retrieval model: right (default) or left; others have their embedding")
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="a column that names the rows")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="a column that a hit shows; default: those that are embedded")
    ] = None,
    absent: Annotated[
        list[str] | None, typer.Option("--absent", help="treat this input as absent in every row")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="rows run at once")] = 32,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Embed every row of a table, so that `fuseline search` finds the nearest ones. Needs no torch (extra: index).

    An index belongs to the very package that made it; another one's is refused. Ends with status 1 if a row could not
    be read; the others are indexed all the same.
    """
    from fuseline import api

    counts = api.index(
        model, table, out, side=side, id=id, keep=keep, absent=absent or (), batch_size=batch_size, quiet=quiet
    )
    text = f"{counts['indexed']} of {counts['rows']} rows indexed, {counts['lacking']} lack what is embedded, "
    Console().print(f"{text}{counts['errors']} with errors: {out}", markup=False)
    if counts["errors"]:
        raise typer.Exit(1)
