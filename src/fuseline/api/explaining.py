"""Why a package answered as it did. Shapley values and occlusion need no torch; integrated gradients do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fuseline.api.answers import _columns_there, _media, _table_for
from fuseline.api.vectors import search
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.progress import voice
from fuseline.runtime import Predictor, load

if TYPE_CHECKING:
    from fuseline.explain import Explanation, Explanations

FIRST = 20
"""rows that are explained unless told otherwise"""


def explain(
    model: str | Path | Predictor,
    table: Any,
    *,
    rows: Sequence[int] | Literal["all"] | None = None,
    inside: bool | Sequence[str] = False,
    method: Literal["occlusion", "gradients"] = "occlusion",
    of: str | None = None,
    changes: Mapping[str, Any] | None = None,
    index: str | Path | None = None,
    nearest: int = 3,
    html: str | Path | None = None,
    grid: int = 8,
    most_parts: int = 64,
    most_outputs: int = 4096,
    batch_size: int = 32,
    quiet: bool = False,
) -> Explanations:
    """Explain a package's answers to rows of a table.

    Args:
        model: a package, a run's folder, or a loaded predictor (not with `method="gradients"`).
        table: anything that :func:`predict` takes.
        rows: which of it, from 0; default: the first 20; "all": every one.
        inside: also the parts of the inputs (words, patches, moments, cells, steps): of all, or of those named.
        method: how parts are judged: by hiding them, or by integrated gradients (needs torch and float weights).
        of: the class or target that is explained; default: the answered class, the first target.
        changes: column -> another cell: what the answer would be.
        index: made by :func:`index` from the same package, e.g. of its training table: rows like these are named.
        nearest: how many of them.
        html: write a page, too.
        grid: patches along each side of a picture.
        most_parts: parts of a text, sound or series at most.
        most_outputs: answers that one row may take.
        batch_size: answers computed at once.
        quiet: say nothing.

    Returns:
        :class:`fuseline.explain.Explanations`; `model_dump_json()` is what docs/explanations.md documents.

    Raises:
        FuselineError: ``bad_usage``, ``unknown_column``, ``too_large``, ``missing_column``, ``other_package``.
    """
    from fuseline.explain import Options, explain_rows
    from fuseline.explain.explainer import with_nearest
    from fuseline.explain.schema import Explanations, Neighbour
    from fuseline.explain.summary import summarise

    if method not in ("occlusion", "gradients"):
        raise FuselineError("bad_usage", f"no method {method!r}", "occlusion or gradients")
    predictor = model if isinstance(model, Predictor) else load(model)
    opened = _table_for(predictor, table, ())
    chosen = _rows(rows, opened.n_rows)
    media = _media(predictor, opened)
    columns = _columns_there(opened, predictor.rows.columns, (), predictor)
    by_gradients = method == "gradients" and inside is not False
    options = Options(
        inside=False if by_gradients else inside,
        of=of,
        changes=changes or {},
        grid=grid,
        most_parts=most_parts,
        most_outputs=most_outputs,
    )
    cells: list[dict[str, Any]] = [{} for _ in chosen]
    if columns:
        cells = Table.rows(opened.take(np.array(chosen, dtype=np.int64), columns))
    done: list[Explanation] = []
    with voice("quiet" if quiet else "auto").track("explaining", len(chosen)) as advance:
        for place, row in zip(chosen, cells, strict=True):
            found = explain_rows(predictor, [row], options, media=media, places=[place], batch_size=batch_size)
            done += found.rows
            advance(1)
    if by_gradients:
        done = _with_gradients(predictor, done, cells, media, inside, grid, most_parts)
    if index is not None:
        matches = search(predictor, index, cells, k=nearest, media=media.folder)
        for i, match in enumerate(matches):
            if match.error is None and done[i].error is None:
                done[i] = with_nearest(done[i], [Neighbour(**hit.to_dict()) for hit in match.hits])
    package = predictor.package
    result = Explanations(
        model={"name": package.name, "version": package.version}, rows=tuple(done), summary=summarise(done)
    )
    if html is not None:
        from fuseline.explain.page import write_page

        write_page(Path(html), result, predictor, cells, media)
    return result


def _rows(rows: Sequence[int] | Literal["all"] | None, count: int) -> list[int]:
    if rows == "all":
        return list(range(count))
    if rows is None:
        return list(range(min(FIRST, count)))
    chosen = [int(r) for r in rows]
    wrong = [r for r in chosen if not 0 <= r < count]
    if wrong or not chosen:
        said = f"the table has no row {wrong[0]}" if wrong else "no row is named"
        raise FuselineError("bad_usage", said, f"rows are 0 to {count - 1}" if count else "the table is empty")
    return chosen


def _with_gradients(
    predictor: Predictor,
    done: list[Explanation],
    cells: Sequence[Mapping[str, Any]],
    media: Any,
    inside: bool | Sequence[str],
    grid: int,
    most_parts: int,
) -> list[Explanation]:
    from fuseline.api.training import need_training

    need_training()
    from fuseline.lab.attribute import attribute_rows

    return attribute_rows(predictor.package, done, cells, media=media, inside=inside, grid=grid, most_parts=most_parts)
