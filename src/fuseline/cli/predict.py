"""`fuseline predict`: answers for a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

NAME = "predict"


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    table: Annotated[Path, typer.Argument(help="the rows: CSV, TSV, Parquet, JSONL or Arrow")],
    out: Annotated[Path, typer.Option("--out", "-o", help="answers: .csv, .jsonl or .parquet")],
    absent: Annotated[
        list[str] | None, typer.Option("--absent", help="treat this input as absent in every row")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="rows run at once")] = 32,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Answer every row of a table. Needs no torch; streams, so the table may be larger than memory.

    A row that cannot be read gets its reason in the `error` column and leaves the others alone. Ends with status 1
    if any row had one. Each answer says which inputs it used. Where the model is not sure enough for its
    recipe's `evaluation.abstain`, `value` is empty, `abstained` true and the value is the `suggestion`.
    """
    from fuseline import api

    counts = api.predict(model, table, out, absent=absent or (), batch_size=batch_size, quiet=quiet)
    console = Console()
    unsure = f", {counts['abstained']} without an answer, not sure enough" if counts.get("abstained") else ""
    console.print(f"{counts['rows']} rows answered{unsure}, {counts['errors']} with errors: {out}", markup=False)
    if counts["errors"]:
        raise typer.Exit(1)
