"""`fuseline compress`: a smaller and faster model that keeps to a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "compress"
NOT_MET = 4
"""exit status where the budget was not met"""


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse with float weights, or a run's folder")],
    data: Annotated[
        Path | None, typer.Option("--data", help="the table it was trained on; default: the one that the run names")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(help="for one decoded row on this machine, e.g. 30ms", show_default=False)
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="of the package, e.g. 50MB", show_default=False)] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="points of the metric that may be lost, e.g. 0.5", show_default=False)
    ] = None,
    metric: Annotated[str, typer.Option(help="auto: the task's own (auroc, macro_f1, mae ...)")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="folder of the search; give it again to go on", show_default=False),
    ] = None,
    teacher: Annotated[
        list[Path] | None, typer.Option("--teacher", help="another package that teaches too (an ensemble)")
    ] = None,
    student: Annotated[
        list[Path] | None, typer.Option("--student", help="a recipe of another model, tried as a student")
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="of healing after a cut")] = 10,
    max_trials: Annotated[int, typer.Option("--trials", min=1, help="candidates measured at most")] = 24,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="begin no candidate after that time", show_default=False)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="of the measured packages; default: all of this process", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="of everything")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Find the smallest and fastest model that keeps to a budget, and prove it.

    `fuseline compress runs/clinic --max-latency 30ms --max-drop 0.5`

    Smaller numbers are tried first (int8, bfloat16; ONNX Runtime and OpenVINO), then cuts of layers, heads, widths,
    channels and unused words, each healed by a short distillation from the whole model. Every candidate is measured as
    the package that would be served: its latency interleaved with the whole model's, its answers on validation rows,
    for every subset of inputs. The chosen one is proven on test rows: `OUT/model.fuse`, `OUT/compress.html`.

    Interrupted, the same command with `--out` goes on and comes to the same choice. Ends with status 4 where the budget
    cannot be met: the closest found is there all the same, and what stood in its way is said.
    """
    from rich.console import Console

    from fuseline import api
    from fuseline.cli.show_compress import show_compress

    found = api.compress(
        model,
        data,
        max_latency=max_latency,
        max_size=max_size,
        max_drop=max_drop,
        metric=metric,
        out=out,
        teachers=teacher or (),
        students=[str(path) for path in student or ()],
        epochs=epochs,
        max_trials=max_trials,
        max_seconds=None if minutes is None else 60 * minutes,
        threads=threads,
        seed=seed,
        quiet=quiet,
    )
    show_compress(found, Console(highlight=False))
    if not found.met:
        raise typer.Exit(NOT_MET)
