"""Which rows of a pool to label next, and their labels taken back. None of it needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.progress import voice
from fuseline.runtime import Predictor, load

if TYPE_CHECKING:
    from fuseline.labelling import Suggestion, Taken


def suggest(
    model: str | Path | Predictor,
    pool: Any,
    n: int = 50,
    *,
    by: str = "auto",
    measure: str = "auto",
    out: str | Path | None = None,
    labelled: Any = None,
    seed: int = 0,
    batch_size: int = 32,
    force: bool = False,
    quiet: bool = False,
) -> Suggestion:
    """The rows of a pool without labels that are worth labelling first, and why. Streams the pool.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        pool: the rows; a target column may be there, rows with a target are left aside.
        n: how many rows.
        by: "uncertainty": what the model is least sure of. "diversity": rows unlike each other (k-center greedy).
            "badge": both, of classes. "random". "auto": badge for classes, the committee's disagreement for numbers of
            several inputs, else diversity.
        measure: of uncertainty: "entropy" (default), "margin" or "least_confidence" of classes; "disagreement" of the
            answers with one input hidden, for classes and numbers.
        out: a table for the person who labels: all of the pool's columns, `_row`, `_why`, `_score`, `_suggested_by`,
            and the empty target (.csv, .tsv, .jsonl, .parquet).
        labelled: the training table, for diversity: rows like those are not chosen.
        seed: of chance in random and badge.
        batch_size: rows run at once.
        force: overwrite `out`.
        quiet: say nothing.

    Returns:
        The rows, most wanted first, and the rows of the pool that cannot be read.

    Raises:
        FuselineError: ``bad_usage`` where the model cannot say what the method needs, ``empty_table`` where no row may
            be labelled, ``missing_column``, ``file_exists``, ``bad_output``.
    """
    from fuseline.labelling import suggest as choose
    from fuseline.labelling.paths import file_columns, moved, relative_to
    from fuseline.labelling.suggest import frame_of
    from fuseline.labelling.writing import check_target, write_table

    predictor = model if isinstance(model, Predictor) else load(model)
    target = None if out is None else Path(out)
    if target is not None:
        check_target(target, force=force)
    opened, columns = _opened(predictor, pool)
    known, known_columns = (None, []) if labelled is None else _opened(predictor, labelled)
    made = choose(
        predictor,
        opened,
        n,
        by=by,
        measure=measure,
        labelled=known,
        columns=columns,
        labelled_columns=known_columns,
        media=_media(predictor, opened),
        labelled_media=None if known is None else _media(predictor, known),
        seed=seed,
        voice=voice("quiet" if quiet else "auto"),
        batch_size=batch_size,
    )
    if target is None:
        return made
    import polars as pl

    frame = frame_of(opened, made, predictor.task.columns)
    folder = target.absolute().parent.resolve()
    if opened.folder is not None and opened.folder.resolve() != folder:
        files = [c for c in file_columns(predictor.package.recipe) if c in frame.columns]
        place = relative_to(folder)
        for name in files:
            cells = [moved(cell, opened.folder, place) for cell in frame[name].to_list()]
            frame = frame.with_columns(pl.Series(name, cells, dtype=frame.schema[name]))
        if files:
            made.notes.append(f"{', '.join(files)}: files are named as seen from {target.parent}")
    write_table(target, [frame])
    return made


def take_labels(
    model: str | Path | Predictor,
    labelled: Any,
    into: Any,
    out: str | Path,
    *,
    pool: Any = None,
    rest: str | Path | None = None,
    id: str | None = None,
    allow_new_classes: bool = False,
    allow_copies: bool = False,
    copy_media: bool = False,
    force: bool = False,
) -> Taken:
    """Put the labelled rows of a suggestion behind a training table, as a new table. All or nothing.

    Args:
        model: the package that suggested them: it says what a label and an input is.
        labelled: the suggested rows; those whose target is still empty stay in the pool.
        into: the training table.
        out: the new table, beside the training table where cells name files.
        pool: the pool, to check that its rows are meant; needed for `rest`.
        rest: the pool without the rows that were taken.
        id: a column whose values may not be there twice.
        allow_new_classes: take labels that the model does not know.
        allow_copies: take rows that are like one of the training table in every column but the target.
        copy_media: copy files from outside of the new table's folder into it (`added-media`).
        force: overwrite `out` and `rest`.

    Raises:
        FuselineError: ``bad_cell`` (an unknown class, no number), ``duplicate``, ``no_target`` (no label yet),
            ``unsafe_path``, ``file_exists``, ``missing_column``, ``bad_usage``.
    """
    from fuseline.labelling import take

    predictor = model if isinstance(model, Predictor) else load(model)
    if predictor.package.recipe.table.windows is not None or not predictor.task.columns:
        raise FuselineError("bad_usage", f"a {predictor.task.name} model takes no labels of rows", "")
    return take(
        predictor,
        Table.open(labelled, absent=()),
        Table.open(into, absent=()),
        Path(out),
        pool=None if pool is None else Table.open(pool, absent=()),
        rest=None if rest is None else Path(rest),
        id=id,
        allow_new_classes=allow_new_classes,
        allow_copies=allow_copies,
        copy_media=copy_media,
        force=force,
    )


def _opened(predictor: Predictor, source: Any) -> tuple[Table, list[str]]:
    """A table with its cells as written (the parser knows the words for `absent`), and its columns that are read."""
    recipe = predictor.package.recipe
    if recipe.table.windows is not None:
        raise FuselineError(
            "bad_usage", "a forecast's targets come with time: there is nothing to label", "wait, and train again"
        )
    table = source if isinstance(source, Table) else Table.open(source, absent=())
    needed = [c for name, spec in recipe.inputs.items() for c in recipe.columns_of(name) if spec.required]
    table.require(list(dict.fromkeys(needed)))
    return table, [c for c in predictor.rows.columns if c in table.columns]


def _media(predictor: Predictor, table: Table) -> MediaRoot:
    root = predictor.package.recipe.table.media_root
    return MediaRoot(root or (str(table.folder) if table.folder else None))
