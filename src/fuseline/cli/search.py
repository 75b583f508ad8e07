"""`fuseline search`: the rows of an index that are nearest to given cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from fuseline.errors import FuselineError

if TYPE_CHECKING:
    from fuseline.runtime import Predictor
    from fuseline.vectors import Matches

NAME = "search"
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
WIDEST = 80
"""characters of a shown cell"""


def command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="the package that made the index, or its run's folder")],
    index: Annotated[Path, typer.Argument(help="a folder that `fuseline index` wrote")],
    k: Annotated[int, typer.Option("-k", min=1, help="rows to find")] = 10,
    cell: Annotated[
        list[str] | None, typer.Option("--cell", help="COLUMN=CELL, for a column whose name is one of these options")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="compare with every vector; slower, misses nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Find the rows that are nearest to cells, given as --COLUMN CELL: `--description "a frog"`, `--image frog.png`.

    A cell of a picture, sound or other file is its path. Cells of the side that is not indexed find what belongs to
    them; cells of the indexed side find what is like them.
    """
    from fuseline import api
    from fuseline.runtime import load

    predictor = load(model)
    row = row_of(predictor, [*context.args, *(part for c in cell or () for part in _named(c))])
    [found] = api.search(predictor, index, [row], k=k, exact=exact)
    if found.error is not None:
        raise found.error
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        show(found)


def _named(text: str) -> tuple[str, str]:
    column, equals, cell = text.partition("=")
    if not equals:
        raise FuselineError("bad_usage", f"--cell {text!r} names no column", "--cell COLUMN=CELL")
    return f"--{column}", cell


def row_of(predictor: Predictor, arguments: Sequence[str]) -> dict[str, Any]:
    """`--COLUMN CELL` and `--COLUMN=CELL` as a row; files are read."""
    columns = {c: m for m in predictor.rows.modalities.values() for c in m.columns}
    row: dict[str, Any] = {}
    left = list(arguments)
    while left:
        name = left.pop(0)
        if not name.startswith("--"):
            raise FuselineError("bad_usage", f"{name!r} belongs to no option", "cells are given as --COLUMN CELL")
        column, equals, cell = name[2:].partition("=")
        if column not in columns:
            raise FuselineError(
                "unknown_column", f"the model has no column {column!r}", f"it has: {', '.join(columns)}"
            )
        if not equals and not left:
            raise FuselineError("bad_usage", f"--{column} has no cell", "give --COLUMN CELL")
        row[column] = _cell(cell if equals else left.pop(0), column, columns[column])
    return row


def _cell(text: str, column: str, modality: Any) -> Any:
    if not modality.file:
        return text
    try:
        return Path(text).read_bytes()
    except OSError as error:
        message = f"cannot read {text}: {error.strerror or error}"
        raise FuselineError("no_such_file", message, "the cell is a file's path", column=column) from None


def show(found: Matches) -> None:
    columns = list(dict.fromkeys(c for hit in found.hits for c in hit.cells))
    named = any(hit.id is not None for hit in found.hits)
    grid = Grid("", "score", "row", *(["id"] if named else []), *(escape(c) for c in columns))
    for place, hit in enumerate(found.hits, start=1):
        cells = [hit.id] if named else []
        cells += [hit.cells.get(c) for c in columns]
        shown = ["" if c is None else escape(str(c)[:WIDEST]) for c in cells]
        grid.add_row(str(place), f"{hit.score:.4f}", str(hit.row), *shown)
    Console().print(grid)
