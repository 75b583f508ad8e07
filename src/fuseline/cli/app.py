"""The table of verbs, and what an error looks like."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from rich.console import Console

from fuseline.errors import FuselineError

app = typer.Typer(
    name="fuseline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""One model from a table of text, pictures, sounds, numbers and categories.

    Start: `fuseline demo`, or with a table of your own:

    1. `fuseline init table.csv --target diagnosis` looks at every column and writes a recipe
    2. `fuseline train recipe.yaml` trains, evaluates, packages and reports
    3. `fuseline predict runs/NAME/model.fuse new.csv -o answers.csv` answers, without torch
    4. `fuseline compress runs/NAME --max-latency 30ms --max-drop 0.5` finds a smaller and faster model
    5. `fuseline serve runs/NAME` answers over HTTP, with a page for people
    """,
)
errors = Console(stderr=True, highlight=False)


def _version(wanted: bool) -> None:
    if wanted:
        import fuseline

        print(fuseline.__version__)
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    del version


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Errors that a user can mend are told in words and end with status 2; Ctrl-C ends with 130."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except FuselineError as error:
            errors.print(f"[bold red]error[/] [dim]({error.code})[/]", end=" ")
            errors.print(str(error), markup=False, soft_wrap=True)
            if os.environ.get("FUSELINE_DEBUG"):
                raise
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            errors.print("stopped; what was finished is kept")
            raise typer.Exit(130) from None

    return run


def _register() -> None:
    from fuseline.cli import (
        batch,
        cache,
        compare,
        compress,
        demo,
        deploy,
        drift,
        ensemble,
        evaluate,
        explain,
        export,
        index,
        init,
        keys,
        monitor,
        predict,
        pretrain,
        profile,
        search,
        serve,
        suggest,
        train,
        tune,
    )

    verbs = (init, pretrain, train, evaluate, predict, explain, batch, index, search, suggest, compare, tune, compress)
    for module in (*verbs, profile, export, ensemble, demo, serve, keys, drift, deploy, cache):
        app.command(module.NAME, context_settings=getattr(module, "CONTEXT", None))(verb(module.command))
    app.add_typer(monitor.sub_app, name=monitor.NAME)


_register()


def main() -> None:
    """Entry point of the `fuseline` program."""
    sys.exit(app())
