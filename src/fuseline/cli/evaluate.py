"""`fuseline evaluate`: metrics of a package on a labelled table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "evaluate"


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    table: Annotated[
        Path | None,
        typer.Argument(help="a table with the target column; with --robustness, default: the run's held-out rows"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="also write the metrics as JSON")] = None,
    absent: Annotated[
        list[str] | None, typer.Option("--absent", help="treat this input as absent in every row")
    ] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="resamples of the 95 % intervals")] = 1000,
    subsets: Annotated[bool, typer.Option(help="also measure every subset of inputs")] = True,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="instead: under noise, absence and attack, input by input; needs torch")
    ] = False,
    rows: Annotated[int, typer.Option("--rows", min=1, help="rows of --robustness at most")] = 400,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Measure a package on rows with known targets. Needs no torch.

    Prints the metrics with 95 % intervals, and the same for every subset of inputs present. With `--robustness`: clean,
    with each input noisy, absent in a share of the rows, and attacked; in the run's report, too.
    """
    from fuseline import api
    from fuseline.cli.show import show_metrics, show_robustness
    from fuseline.errors import FuselineError
    from fuseline.package.files import write_json

    if robustness:
        if absent:
            raise FuselineError("bad_usage", "--absent does not go with --robustness", "it measures absence itself")
        found = api.robustness(model, table, bootstrap=bootstrap, rows=rows, quiet=quiet)
        if out is not None:
            write_json(out, found)
        show_robustness(found)
        return
    if table is None:
        raise FuselineError("bad_usage", "name a table with the target column", "fuseline evaluate MODEL TABLE")
    metrics = api.evaluate(model, table, absent=absent or (), bootstrap=bootstrap, subsets=subsets, quiet=quiet)
    if out is not None:
        write_json(out, metrics)
    show_metrics(metrics)
