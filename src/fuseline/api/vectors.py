"""An index over a table's rows, and the rows of it that are nearest. None of it needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuseline.api.answers import _columns_there, _media, _table_for
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.progress import voice
from fuseline.runtime import Predictor, load

if TYPE_CHECKING:
    from fuseline.vectors import Index, Matches


def index(
    model: str | Path | Predictor,
    table: Any,
    out: str | Path,
    *,
    side: str | None = None,
    id: str | None = None,
    keep: Sequence[str] | None = None,
    absent: Sequence[str] = (),
    batch_size: int = 32,
    quiet: bool = False,
) -> dict[str, int]:
    """Embed every row of a table and write an index that :func:`search` finds the nearest of. Streams.

    Args:
        model: a package, a run's folder, or a loaded predictor. Of a retrieval model one side is indexed, of any other
            its fused embedding.
        table: the rows. They need only the columns of what is indexed.
        out: the index's folder; one that holds an index is replaced when the new one is whole.
        side: of a retrieval model, "right" (the default) or "left".
        id: a column that names the rows.
        keep: columns that a hit shows; default: those that the vectors are made from. Bytes are not kept.
        absent: inputs to treat as absent in every row.
        batch_size: rows run at once.
        quiet: say nothing.

    Returns:
        Counts: rows, indexed, lacking (rows without the side), errors.

    Raises:
        FuselineError: ``missing_extra``, ``bad_usage``, ``cannot_write``, ``empty_table``, ``missing_column``.
    """
    from fuseline.vectors import build_index, side_of
    from fuseline.vectors.build import columns_of

    predictor = model if isinstance(model, Predictor) else load(model)
    chosen = side_of(predictor, side)
    needed = columns_of(predictor, chosen)
    others = [c for c in predictor.rows.columns if c not in needed]
    opened = _table_for(predictor, table, [*absent, *others])
    wanted = [c for c in needed if c in opened.columns] if keep is None else list(keep)
    opened.require([*wanted, *([id] if id else [])])
    read = _columns_there(opened, needed, absent, predictor)
    _, counts = build_index(
        predictor,
        opened.batches(list(dict.fromkeys([*read, *wanted, *([id] if id else [])])), 256),
        out,
        side=chosen,
        rows=opened.n_rows,
        id=id,
        keep=wanted,
        hidden=[c for c in predictor.rows.columns if c not in read],
        media=_media(predictor, opened),
        voice=voice("quiet" if quiet else "auto"),
        batch_size=batch_size,
    )
    return counts


def search(
    model: str | Path | Predictor,
    index: str | Path | Index,
    rows: Sequence[Mapping[str, Any]],
    *,
    k: int = 10,
    exact: bool = False,
    media: str | Path | None = None,
) -> list[Matches]:
    """The rows of an index that are nearest to each of `rows`, best first.

    A row with cells of the side that is not indexed is compared with those that are (a description finds pictures); one
    that has only the indexed side finds what is like it.

    Args:
        model: the package that made the index; another one is refused.
        index: its folder, or one that `fuseline.vectors.read_index` opened.
        rows: mappings of column to cell, as :meth:`Predictor.predict` takes them.
        k: hits a row.
        exact: compare with every vector instead of walking the graph.
        media: folder that file cells are relative to and may not leave; None: cells hold bytes.

    Raises:
        FuselineError: ``other_package``, ``bad_index``, ``no_such_file``, ``bad_usage``.
    """
    from fuseline import vectors

    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise FuselineError("bad_usage", f"k is {k!r}", "a whole number of hits from 1 on")
    if isinstance(rows, Mapping):
        raise FuselineError("bad_rows", "search takes a list of rows", "wrap the one row: search(model, index, [row])")
    predictor = model if isinstance(model, Predictor) else load(model)
    opened = vectors.read_index(index) if isinstance(index, (str, Path)) else index
    root = MediaRoot(None if media is None else str(media))
    return vectors.search(predictor, opened, rows, k=k, exact=exact, media=root)
