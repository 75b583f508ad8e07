"""`fuseline suggest`: which rows to label next, and their labels taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fuseline.errors import FuselineError

NAME = "suggest"
SHOWN = 5


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    pool: Annotated[Path | None, typer.Argument(help="rows without labels: CSV, TSV, Parquet, JSONL or Arrow")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="how many rows")] = 50,
    by: Annotated[
        str, typer.Option(help="auto, uncertainty, diversity, badge or random (docs/active-learning.md)")
    ] = "auto",
    measure: Annotated[
        str, typer.Option(help="of uncertainty: entropy, margin, least_confidence or disagreement")
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="the rows to label, default suggested.csv; with --take the new table"),
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="of diversity: the training table, whose like is not chosen")
    ] = None,
    seed: Annotated[int, typer.Option(help="of chance in badge and random")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="rows run at once")] = 32,
    take: Annotated[
        Path | None, typer.Option(help="take labels back: the suggested rows with their targets filled in")
    ] = None,
    into: Annotated[Path | None, typer.Option(help="with --take: the training table (it is not changed)")] = None,
    rest: Annotated[
        Path | None, typer.Option(help="with --take and the pool: write the pool without the rows that were taken")
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="with --take: a column whose values may not be there twice")
    ] = None,
    allow_new_classes: Annotated[
        bool, typer.Option("--allow-new-classes", help="with --take: labels that the model does not know")
    ] = False,
    allow_copies: Annotated[
        bool, typer.Option("--allow-copies", help="with --take: rows like one of the training table")
    ] = False,
    copy_media: Annotated[
        bool, typer.Option("--copy-media", help="with --take: copy files that lie elsewhere beside the new table")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite what is written")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Choose the rows of a pool that are worth labelling first, and take their labels back. Needs no torch.

    `fuseline suggest MODEL pool.csv -n 50 -o to-label.csv`, fill in the target, then `fuseline suggest MODEL pool.csv
    --take to-label.csv --into train.csv --out train-2.csv --rest pool-2.csv`, and train on the new table.

    Ends with status 1 if a row of the pool cannot be read; the others are suggested all the same.
    """
    if take is not None:
        if into is None or out is None:
            raise FuselineError("bad_usage", "--take needs --into TABLE and --out NEW_TABLE", "see --help")
        _take(model, take, into, out, pool, rest, id, allow_new_classes, allow_copies, copy_media, force)
        return
    if pool is None:
        raise FuselineError("bad_usage", "which rows are to be chosen from?", "fuseline suggest MODEL POOL")
    if into is not None or rest is not None or id is not None or allow_new_classes or allow_copies or copy_media:
        raise FuselineError("bad_usage", "these options belong to --take", "name the labelled rows: --take FILE")
    from fuseline import api

    target = out or Path("suggested.csv")
    made = api.suggest(
        model,
        pool,
        n,
        by=by,
        measure=measure,
        out=target,
        labelled=labelled,
        seed=seed,
        batch_size=batch_size,
        force=force,
        quiet=quiet,
    )
    console = Console()
    counts = made.counts
    left = ", ".join(f"{counts[k]} {word}" for k, word in _WORDS.items() if counts[k])
    text = f"{len(made.rows)} of {counts['candidates']} rows to label, by {made.by}: {target}"
    console.print(text + (f" (left aside: {left})" if left else ""), markup=False, soft_wrap=True)
    for note in made.notes:
        console.print(f"· {note}", markup=False, soft_wrap=True)
    for error in made.bad[:SHOWN]:
        console.print(f"· {str(error).splitlines()[0]}", markup=False, soft_wrap=True)
    if len(made.bad) > SHOWN:
        console.print(f"· and {counts['errors'] - SHOWN} more rows that cannot be read", markup=False)
    if counts["errors"]:
        raise typer.Exit(1)


_WORDS = {
    "errors": "that cannot be read",
    "labelled": "with a label",
    "empty": "without any input",
    "copies": "that are copies of another",
}


def _take(
    model: Path,
    labelled: Path,
    into: Path,
    out: Path,
    pool: Path | None,
    rest: Path | None,
    id: str | None,
    allow_new_classes: bool,
    allow_copies: bool,
    copy_media: bool,
    force: bool,
) -> None:
    from fuseline import api

    taken = api.take_labels(
        model,
        labelled,
        into,
        out,
        pool=pool,
        rest=rest,
        id=id,
        allow_new_classes=allow_new_classes,
        allow_copies=allow_copies,
        copy_media=copy_media,
        force=force,
    )
    console = Console()
    text = f"{len(taken.taken)} labelled rows taken, {taken.unlabelled} without a label yet: {out}, {taken.rows} rows"
    console.print(text, markup=False, soft_wrap=True)
    if taken.new_classes:
        console.print(f"· new classes: {', '.join(taken.new_classes)}", markup=False, soft_wrap=True)
    if taken.rest is not None:
        console.print(f"· {taken.rest} rows are left in the pool: {rest}", markup=False, soft_wrap=True)
    for note in taken.notes:
        console.print(f"· {note}", markup=False, soft_wrap=True)
    console.print(f"next: set table.path to {out} and run `fuseline train`", markup=False, soft_wrap=True)
