"""Options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

CacheFolder = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="FOLDER|off",
        help="where frozen encoders' outputs are kept for later runs; default: the recipe's, $FUSELINE_CACHE, or "
        "the user's cache folder",
        show_default=False,
    ),
]
