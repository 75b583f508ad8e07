"""`fuseline explain`: why a package answered as it did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fuseline.errors import FuselineError

NAME = "explain"
MOST_ROWS = 1_000_000
"""of one span: a slip of the finger must not fill the memory"""


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    table: Annotated[Path, typer.Argument(help="the rows: CSV, TSV, Parquet, JSONL or Arrow")],
    rows: Annotated[
        str | None, typer.Option(help="numbers with commas and spans, from 0: 0,5,10-19; or all; default: the first 20")
    ] = None,
    inside: Annotated[
        bool, typer.Option("--inside", help="also words, patches, moments, cells, steps: each hidden in turn")
    ] = False,
    input: Annotated[
        list[str] | None, typer.Option("--input", help="with --inside: look into this input alone (several: repeat)")
    ] = None,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="inside by integrated gradients instead; needs torch and float weights")
    ] = False,
    of: Annotated[
        str | None, typer.Option("--of", help="class or target that is explained; default: the answered class")
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--change", help="what if: COLUMN=VALUE, e.g. age=70; nothing after =: absent")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="an index of `fuseline index`, e.g. of the training rows: name the nearest")
    ] = None,
    nearest: Annotated[int, typer.Option(min=1, help="rows of the index that are named")] = 3,
    html: Annotated[Path | None, typer.Option(help="write a page with heat-maps, self-contained")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON, as docs/explanations.md says")] = False,
    grid: Annotated[int, typer.Option(min=1, max=64, help="patches along each side of a picture")] = 8,
    most_parts: Annotated[int, typer.Option(min=1, help="parts of a text, sound or series at most")] = 64,
    most_outputs: Annotated[int, typer.Option(min=1, help="answers that one row may take")] = 4096,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Say why: what each input added to an answer, and with --inside each word, patch, moment, cell or step.

    Shapley values over the inputs that a row has, exact up to 10 of them: the model is asked with every subset, the
    others absent, as it was trained to live with. Costs 2^M answers a row of M inputs, and one a part. Needs no torch,
    but for --gradients. Ends with status 1 if a row could not be explained.
    """
    from fuseline import api
    from fuseline.cli.show_explain import show_explanations

    if gradients and not inside:
        raise FuselineError("bad_usage", "--gradients is a way of --inside", "add --inside")
    if input and not inside:
        raise FuselineError("bad_usage", "--input says where --inside looks", "add --inside")
    found = api.explain(
        model,
        table,
        rows=_rows(rows),
        inside=input or inside,
        method="gradients" if gradients else "occlusion",
        of=of,
        changes=_changes(change or []),
        index=index,
        nearest=nearest,
        html=html,
        grid=grid,
        most_parts=most_parts,
        most_outputs=most_outputs,
        quiet=quiet or json,
    )
    if json:
        print(found.model_dump_json(indent=1))
    else:
        show_explanations(found)
        if html is not None:
            Console().print(f"page: {html}", markup=False, soft_wrap=True)
    if found.summary.errors:
        raise typer.Exit(1)


def _rows(text: str | None) -> Any:
    if text is None or text == "all":
        return text
    out: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        try:
            span = range(int(low), int(high) + 1) if dash else [int(low)]
        except ValueError:
            raise FuselineError("bad_usage", f"--rows {text!r} cannot be read", "0,5,10-19 or all") from None
        if not 0 < len(span) <= MOST_ROWS:
            said = "is empty" if not span else f"names more than {MOST_ROWS:,} rows"
            raise FuselineError("bad_usage", f"the span {part.strip()!r} of --rows {said}", "0,5,10-19 or all")
        out += span
    return out


def _changes(texts: list[str]) -> dict[str, str | None]:
    out: dict[str, str | None] = {}
    for text in texts:
        column, sign, value = text.partition("=")
        if not sign or not column:
            raise FuselineError("bad_usage", f"--change {text!r} is no COLUMN=VALUE", "--change age=70")
        out[column] = value or None
    return out
