"""Labels of suggested rows, checked and put to the training table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.data.table import Table
from fuseline.errors import FuselineError, closest
from fuseline.labelling.paths import file_columns, inside, moved
from fuseline.labelling.suggest import OWN
from fuseline.labelling.writing import check_target, write_table
from fuseline.modalities import MediaRoot
from fuseline.runtime import Predictor
from fuseline.tasks.labels import parse_label, parse_labels, text_of

SHOWN = 10
BLOCK = 1024


@dataclass
class Taken:
    """What was taken: rows of the labelled table, how many were left, and what is to be said."""

    taken: list[int]
    unlabelled: int
    rows: int
    """of the new table"""
    rest: int | None = None
    """rows left in the pool, where it was written anew"""
    new_classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def take(
    predictor: Predictor,
    labelled: Table,
    into: Table,
    out: Path,
    *,
    pool: Table | None = None,
    rest: Path | None = None,
    id: str | None = None,
    allow_new_classes: bool = False,
    allow_copies: bool = False,
    copy_media: bool = False,
    force: bool = False,
) -> Taken:
    """Write `into` with the labelled rows behind it. All or nothing. See :func:`fuseline.take_labels` for arguments and
    errors. Tables are opened with their cells as written."""
    task, recipe = predictor.task, predictor.package.recipe
    check_target(out, force=force)
    if rest is not None:
        if pool is None:
            raise FuselineError("bad_usage", "--rest is what is left of a pool", "name the pool behind the model")
        check_target(rest, force=force)
        if rest.resolve() == out.resolve():
            raise FuselineError("bad_usage", f"{out} cannot be both the new table and the rest", "choose two names")
    _keep_apart([out, *([rest] if rest else [])], [labelled, into, *([pool] if pool else [])])
    labelled.require([*task.columns, *([id] if id else [])])
    into.require([*task.columns, *([id] if id else [])])
    whole = labelled.take(np.arange(labelled.n_rows))
    cells = Table.rows(whole)
    new: set[str] = set()
    taken, errors = [], []
    for i, row in enumerate(cells):
        try:
            if _encoded(predictor, row, new if allow_new_classes else None) is not None:
                taken.append(i)
        except FuselineError as error:
            errors.append(_nearest(predictor, error.at(i), row))
    if errors:
        labels = getattr(task, "labels", ())  # numbers have none
        known = f"; known: {', '.join(labels)}" if labels else ""
        raise _refused("labels that the model does not know", errors, f"mend them, or --allow-new-classes{known}")
    if not taken:
        raise FuselineError("no_target", "no row has a label yet", f"fill the column {task.columns[0]!r}")
    if "_row" in labelled.columns:
        _once([(str(cells[i]["_row"]), i) for i in taken], "_row", "a row of the pool was labelled twice")
    notes: list[str] = []
    frame = _fitted(predictor, whole[taken], labelled, into, out, copy_media, notes)
    if not allow_copies:
        _no_copies(frame, taken, into, [c for c in frame.columns if c not in task.columns])
    if id is not None:
        _no_ids_twice(frame, taken, into, id)
    _check_pool(pool, cells, taken, predictor)
    _check_cells(cells, taken, predictor)

    def frames() -> Iterator[pl.DataFrame]:
        yield from (f for _, f in into.batches(None, BLOCK))
        yield frame

    rows = write_table(out, frames())
    left = None
    if rest is not None and pool is not None:
        gone = np.array([int(cells[i]["_row"]) for i in taken])
        left = _write_rest(pool, rest, gone)
    if new and (fixed := recipe.task.options.get("classes")):
        notes.append(f"the recipe lists its classes ({len(fixed)}): add the new ones to task.classes")
    return Taken(taken, labelled.n_rows - len(taken), rows, left, sorted(new), notes)


def _keep_apart(written: list[Path], read: list[Table]) -> None:
    """What is read is never overwritten, not even with --force: it is all that there is to begin again from."""
    for path in written:
        for table in read:
            if table.folder is not None and table.name and path.resolve() == (table.folder / table.name).resolve():
                raise FuselineError("bad_usage", f"{path} is read, and cannot be written over", "choose another name")


def _encoded(predictor: Predictor, row: Mapping[str, Any], new: set[str] | None) -> Any:
    """The row's target; None: it has none. `new`: takes classes that the model does not know; None: they are errors."""
    task: Any = predictor.task
    own = {c: predictor.rows.cell(row[c]) for c in task.columns}
    try:
        return task.encode(own)
    except FuselineError:
        if new is None or task.name != "classification":
            raise
        column = task.columns[0]
        if task.mode == "multilabel":
            found = parse_labels(own[column], column, task.config.separator) or []
        else:
            one = parse_label(own[column], column)
            found = [] if one is None else [one]
        new |= {text_of(label) for label in found} - set(task.labels)
        return found


def _fitted(
    predictor: Predictor,
    frame: pl.DataFrame,
    labelled: Table,
    into: Table,
    out: Path,
    copy_media: bool,
    notes: list[str],
) -> pl.DataFrame:
    """The rows with the training table's columns and kinds, their files named as seen from it."""
    recipe, folder = predictor.package.recipe, out.absolute().parent
    files = [c for c in file_columns(recipe) if c in into.columns]
    if files and into.folder is not None and folder.resolve() != into.folder.resolve():
        raise FuselineError(
            "bad_usage",
            f"{out} would lie in another folder than the training table, whose cells name files beside it",
            f"write it into {into.folder}",
        )
    lacking = [c for c in into.columns if c not in frame.columns]
    extra = [c for c in frame.columns if c not in into.columns and c not in OWN]
    split = recipe.split.column if recipe.split.kind == "given" else None
    needed = [c for c in (recipe.split.group, recipe.split.time) if c in lacking]
    if needed:
        raise FuselineError(
            "missing_column",
            f"the split goes by {needed[0]!r}, which the labelled rows lack",
            "add it",
            column=needed[0],
        )
    if lacking_said := [c for c in lacking if c != split]:
        notes.append(f"absent in the added rows, since they have no such column: {', '.join(lacking_said)}")
    if extra:
        notes.append(f"not taken over, since the training table has no such column: {', '.join(extra)}")
    columns = []
    for name in into.columns:
        kind = into.take(np.zeros(1, np.int64), [name]).schema[name]
        own = frame[name] if name in frame.columns else pl.Series(name, [None] * frame.height, dtype=pl.String)
        if name == split:
            own = pl.Series(name, ["train" if v in (None, "") else v for v in own.to_list()], dtype=pl.String)
        elif name in files and labelled.folder is not None and labelled.folder.resolve() != folder.resolve():
            place = inside(folder, copy=copy_media, column=name)
            own = pl.Series(name, [moved(v, labelled.folder, place) for v in own.to_list()])
        columns.append(_cast(own, kind, name))
    if split is None and recipe.split.kind in ("random", "stratified", "group"):
        notes.append(
            f"split.kind is {recipe.split.kind}: the larger table is dealt out anew, so that figures of the test part "
            "cannot be compared with those before; split: {kind: given} keeps it"
        )
    return pl.DataFrame(columns)


def _cast(own: pl.Series, kind: Any, name: str) -> pl.Series:
    if own.dtype == kind:
        return own
    try:
        if own.dtype == pl.String and kind != pl.String:
            own = pl.Series(name, [None if v == "" else v for v in own.to_list()], dtype=pl.String)
        return own.cast(kind, strict=True)
    except pl.exceptions.PolarsError:
        raise FuselineError(
            "bad_cell",
            f"the training table holds {kind} there, the labelled one {own.dtype} that is not all such",
            "write the labelled table as the training table is, e.g. both as Parquet",
            column=name,
        ) from None


def _key(row: Sequence[Any]) -> tuple[str, ...]:
    """Cells as a CSV has them."""
    return tuple("" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in row)


def _no_copies(frame: pl.DataFrame, taken: Sequence[int], into: Table, columns: Sequence[str]) -> None:
    """Rows that are in the training table, or twice among the labelled ones: in every column but the target."""
    own = frame.select(columns)
    places = _once(
        [(repr(_key(row)), i) for row, i in zip(own.iter_rows(), taken, strict=True)],
        None,
        "the same row is there twice",
    )
    found = []
    for start, block in into.batches(list(columns), BLOCK):
        for i, row in enumerate(block.select(columns).iter_rows()):
            if (place := places.get(repr(_key(row)))) is not None:
                found.append(FuselineError("duplicate", f"it is row {start + i} of the training table", row=place))
    if found:
        hint = "take them out; rows that may rightly be alike are taken with --allow-copies"
        raise _refused("rows that are there already", found, hint)


def _no_ids_twice(frame: pl.DataFrame, taken: Sequence[int], into: Table, id: str) -> None:
    ids = _once([(str(v), i) for v, i in zip(frame[id].to_list(), taken, strict=True)], id, "an id is there twice")
    found = []
    for start, block in into.batches([id], BLOCK):
        for i, value in enumerate(block[id].to_list()):
            if (place := ids.get(str(value))) is not None:
                found.append(FuselineError("duplicate", f"{value} is row {start + i} of the training table", row=place))
    if found:
        raise _refused(f"ids of column {id!r} that are there already", found, "take them out")


def _once(keys: Iterable[tuple[str, int]], column: str | None, what: str) -> dict[str, int]:
    """Key -> row. Raises FuselineError ``duplicate``."""
    seen: dict[str, int] = {}
    for key, row in keys:
        if key in seen:
            raise FuselineError(
                "duplicate", f"{what}: rows {seen[key]} and {row}", "leave one of them", row=row, column=column
            )
        seen[key] = row
    return seen


def _refused(what: str, errors: Sequence[FuselineError], hint: str) -> FuselineError:
    shown = "; ".join(f"row {e.row}: {e.message}" for e in errors[:SHOWN])
    more = f" (and {len(errors) - SHOWN} more)" if len(errors) > SHOWN else ""
    first = errors[0]
    code = first.code if all(e.code == first.code for e in errors) else "bad_cell"
    return FuselineError(code, f"{what}: {shown}{more}", hint, column=first.column)


def _check_pool(
    pool: Table | None, cells: Sequence[Mapping[str, Any]], taken: Sequence[int], predictor: Predictor
) -> None:
    """That the labelled rows are rows of this pool: `_row` says which, and their cells are the same."""
    if pool is None:
        return
    if "_row" not in cells[0]:
        raise FuselineError(
            "missing_column",
            "the labelled rows have no column '_row', which says what row of the pool each is",
            "keep the columns that `fuseline suggest` wrote, or take the labels without naming the pool",
            column="_row",
        )
    for i in taken:
        own = str(cells[i].get("_row"))
        if not own.isdigit() or int(own) >= pool.n_rows:
            raise FuselineError(
                "bad_usage", f"{own!r} is no row of the pool", "is it the pool of this suggestion?", row=i
            )
    rows = np.array([int(str(cells[i]["_row"])) for i in taken])
    files = set(file_columns(predictor.package.recipe))
    columns = [c for c in predictor.rows.columns if c in pool.columns and c in cells[0] and c not in files]
    for i, theirs in zip(taken, Table.rows(pool.take(rows, columns)), strict=True):
        other = next((c for c in columns if _key([theirs[c]]) != _key([cells[i][c]])), None)
        if other is not None:
            raise FuselineError(
                "bad_usage",
                f"the cell is another one in row {cells[i]['_row']} of the pool",
                "is it the pool of this suggestion?",
                row=i,
                column=other,
            )


def _check_cells(cells: Sequence[Mapping[str, Any]], taken: Sequence[int], predictor: Predictor) -> None:
    """That training will be able to read them: a spreadsheet may have written 1,5 for 1.5. Files are not opened."""
    rows, errors = predictor.rows, list[FuselineError]()
    names = [name for name, modality in rows.modalities.items() if not modality.file]
    for i in taken:
        try:
            for name in names:
                rows.parse_input(name, rows.cells(name, cells[i]), MediaRoot(None))
        except FuselineError as error:
            errors.append(error.at(i))
    if errors:
        hint = f"{errors[0].hint}; write the cells as the pool has them"
        raise _refused(f"cells of column {errors[0].column!r} that cannot be read", errors, hint)


def _nearest(predictor: Predictor, error: FuselineError, row: Mapping[str, Any]) -> FuselineError:
    """An unknown class with the closest one that is known; the task's own hint is about training tables."""
    task: Any = predictor.task
    if task.name != "classification" or task.mode == "multilabel":
        return error
    cell = str(row[task.columns[0]])
    near = closest(cell.strip(), task.labels)
    text = f"{cell[:80]!r} is no class" + (f", did you mean {near!r}?" if near else "")
    return FuselineError(error.code, text, row=error.row, column=error.column)


def _write_rest(pool: Table, rest: Path, gone: np.ndarray) -> int:
    """The pool without the rows that were taken, in its order."""

    def frames() -> Iterator[pl.DataFrame]:
        yield pool.take(np.zeros(1, np.int64)).head(0)
        for start, frame in pool.batches(None, BLOCK):
            stay = ~np.isin(np.arange(start, start + frame.height), gone)
            if stay.any():
                yield frame.filter(pl.Series(stay))

    return write_table(rest, frames())
