"""`fuseline ensemble`: one package of a cross-validation's folds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "ensemble"


def command(
    run: Annotated[Path, typer.Argument(help="the folder of a cross-validation: a training with split.folds")],
    table: Annotated[Path | None, typer.Option("--table", help="the table, where it has moved since")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Make one package, RUN/model.fuse, of the models of all folds: it answers by their mean.

    Its metrics are out of fold: each row is answered by the one model that was not trained on it. A training does this
    by itself with `evaluation: {ensemble: true}`.
    """
    from fuseline import api
    from fuseline.cli.show import show_run

    show_run(api.ensemble(run, table=table, quiet=quiet))
