"""`fuseline batch`: answers for a large table, in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

NAME = "batch"


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    table: Annotated[Path, typer.Argument(help="the rows: CSV, TSV, Parquet, JSONL or Arrow")],
    out: Annotated[Path, typer.Argument(help="a folder for the answers: part-00000.parquet, ...")],
    engine: Annotated[str, typer.Option(help="local, or ray: Ray Data (extra: ray)")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="processes of the Ray engine; default: one a core")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="rows run at once")] = 32,
    shard_rows: Annotated[int, typer.Option("--shard-rows", min=1, help="rows of a part")] = 10_000,
    resume: Annotated[bool, typer.Option(help="go on behind the last whole part; else begin anew")] = True,
    absent: Annotated[
        list[str] | None, typer.Option("--absent", help="treat this input as absent in every row")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Answer every row of a large table, in parts. Needs no torch; a run that was killed goes on where it was.

    Each part is written whole. A row that cannot be read gets its reason in the `error` column and leaves the others
    alone. Ends with status 1 if any row had one.
    """
    from fuseline import api

    counts = api.batch(
        model,
        table,
        out,
        engine=engine,
        workers=workers,
        batch_size=batch_size,
        shard_rows=shard_rows,
        resume=resume,
        absent=absent or (),
        quiet=quiet,
    )
    console = Console()
    console.print(
        f"{counts['rows']} rows answered, {counts['errors']} with errors: {out}, {counts['parts']} parts",
        markup=False,
        soft_wrap=True,
    )
    if counts["errors"]:
        raise typer.Exit(1)
