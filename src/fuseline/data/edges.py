"""A graph beside the table: edge lists and triples, and numbers about entities.

Dimensions: N entities, E edges, F numbers of an entity.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from fuseline.data.leaks import Leak
from fuseline.data.table import Table
from fuseline.errors import FuselineError, closest

LONGEST_NAME = 200
"""characters of an entity that tell it from others"""
NAMES = (("head", "tail"), ("source", "target"), ("src", "dst"), ("subject", "object"), ("from", "to"))
RELATIONS = ("relation", "predicate", "rel", "edge", "type")
ALIKE = "edge"
"""the one relation of a file that names none"""
MOST_EDGES = 20_000_000
FEWEST_ROWS, SAID = 10, 0.9
"""a relation gives the target away where so many rows have it, and of those this share has the target at its end"""


@dataclass
class Edges:
    """Triples by index. Entities stand in the order of their names."""

    entities: list[str]
    relations: list[str]
    triples_E3: np.ndarray
    """int32: head, relation, tail"""
    notes: list[str] = field(default_factory=list)


def path_beside(text: str, folder: str | Path | None, where: str) -> Path:
    """A file that a recipe names, inside `folder`. Raises FuselineError ``unsafe_path`` or ``no_such_file``."""
    if folder is None:
        raise FuselineError(
            "no_such_file",
            f"{where}: a table that is no file has no folder to look for {text!r} in",
            "set table.media_root to the folder that holds it",
        )
    root = os.path.realpath(folder)
    plain = text.replace("\\", "/")
    inside = f"give a path inside {folder}, or set table.media_root to the folder that holds it"
    if "\0" in plain or plain.startswith(("/", "~")) or plain[1:2] == ":":
        raise FuselineError("unsafe_path", f"{where}: {text!r} is no relative path", inside)
    real = os.path.realpath(os.path.join(root, plain))
    if not real.startswith(root.rstrip(os.sep) + os.sep):
        raise FuselineError("unsafe_path", f"{where}: {text!r} leaves the table's folder", inside)
    if not os.path.isfile(real):
        parent = os.path.dirname(real)
        near = closest(os.path.basename(real), os.listdir(parent)[:2000]) if os.path.isdir(parent) else None
        hint = f"did you mean {near!r}? " if near else ""
        raise FuselineError("no_such_file", f"{where}: no file {text!r} in {folder}", hint + "paths start there")
    return Path(real)


def edge_columns(
    columns: Sequence[str], head: str | None = None, relation: str | None = None, tail: str | None = None
) -> tuple[str, str | None, str] | None:
    """(head, relation, tail): those named; else by their usual names; else the only two or three columns in order.

    None where that says nothing."""
    folded = {c.casefold(): c for c in columns}
    if head is None and tail is None:
        head, tail = next(((folded[h], folded[t]) for h, t in NAMES if h in folded and t in folded), (None, None))
        if head is None and len(columns) == 2:
            head, tail = columns
        elif head is None and len(columns) == 3:
            head, relation, tail = columns[0], relation or columns[1], columns[2]
    if head is None or tail is None:
        return None
    if relation is None:
        relation = next((folded[r] for r in RELATIONS if r in folded and folded[r] not in (head, tail)), None)
    return head, relation, tail


def read_edges(
    path: Path, head: str | None = None, relation: str | None = None, tail: str | None = None, where: str = "edges"
) -> Edges:
    """Read a table of edges, each once. Columns as :func:`edge_columns` finds them; without a relation all are alike.

    Raises FuselineError ``missing_column``, ``bad_table``, ``empty_table``, and as `Table.open`.
    """
    table = Table.open(path)
    table.require([c for c in (head, relation, tail) if c is not None])
    found = edge_columns(table.columns, head, relation, tail)
    if found is None:
        raise FuselineError(
            "bad_table",
            f"{where}: which columns of {path.name} are the two ends of an edge?",
            f"name them with `head` and `tail`; its columns: {', '.join(table.columns[:20])}",
        )
    if table.n_rows > MOST_EDGES:
        raise FuselineError("too_large", f"{where}: {table.n_rows:,} edges, at most {MOST_EDGES:,} are read", "")
    named = {c: names_of(table.column(c)) for c in dict.fromkeys(c for c in found if c is not None)}
    frame = pl.DataFrame(
        {
            "head": named[found[0]],
            "relation": named[found[1]] if found[1] is not None else pl.Series([ALIKE]).new_from_index(0, table.n_rows),
            "tail": named[found[2]],
        }
    )
    whole = frame.drop_nulls()
    once = whole.unique(maintain_order=True)
    notes = []
    if whole.height < frame.height:
        notes.append(f"{frame.height - whole.height} edges of {path.name} lack an end or a relation and are left out")
    if once.height < whole.height:
        notes.append(f"{whole.height - once.height} edges of {path.name} are written twice and count once")
    if not once.height:
        raise FuselineError("empty_table", f"{where}: {path.name} holds no whole edge", "")
    entities = pl.concat([once["head"], once["tail"]]).unique().sort()
    relations = once["relation"].unique().sort()
    columns = (_index(once["head"], entities), _index(once["relation"], relations), _index(once["tail"], entities))
    return Edges(entities.to_list(), relations.to_list(), np.stack(columns, axis=1), notes)


def read_features(
    path: Path, entity: str | None = None, where: str = "features"
) -> tuple[list[str], list[str], np.ndarray]:
    """Numbers about entities: (entities, names of the numbers, (N, F) float32 with NaN where absent).

    `entity`: the column of ids; default: the first one. Of an entity that stands twice, the first row counts.

    Raises FuselineError ``missing_column``, ``bad_table`` where a column holds other than numbers.
    """
    table = Table.open(path)
    entity = table.columns[0] if entity is None else entity
    table.require([entity])
    names = [c for c in table.columns if c != entity]
    if not names:
        raise FuselineError("bad_table", f"{where}: {path.name} has no column but {entity!r}", "give numbers beside it")
    data = {"entity": names_of(table.column(entity))}
    for name in names:
        series = table.column(name)
        numbers = series.cast(pl.Float64, strict=False).fill_nan(None)
        wrong = series.filter(numbers.is_null() & series.is_not_null())
        if series.dtype.is_float():
            wrong = wrong.drop_nans()
        if wrong.len():
            raise FuselineError(
                "bad_table",
                f"{where}: {str(wrong[0])[:60]!r} in column {name!r} of {path.name} is no number",
                "features are numbers; write a word as an edge of a relation instead",
            )
        data[f"number {name}"] = numbers
    frame = pl.DataFrame(data).drop_nulls("entity").unique("entity", keep="first", maintain_order=True)
    values_NF = frame.drop("entity").to_numpy().astype(np.float64)
    return frame["entity"].to_list(), names, np.clip(values_NF, -1e30, 1e30).astype(np.float32)


def names_of(series: pl.Series) -> pl.Series:
    """A column's cells as the names of entities: 1, 1.0 and "1" are one, blanks at the ends are none of it."""
    if series.dtype.is_float():
        whole = series.drop_nulls().drop_nans()
        if (whole == whole.round()).all() and (whole.abs() < 1e15).all():
            series = series.fill_nan(None).cast(pl.Int64)
    text = series.cast(pl.String).str.strip_chars().str.normalize("NFC").str.slice(0, LONGEST_NAME)
    return text.set(text == "", None)


def _index(names: pl.Series, known: pl.Series) -> np.ndarray:
    """(E,) int32: where in `known`, which is sorted, each name stands."""
    return names.cast(pl.Enum(known)).to_physical().to_numpy().astype(np.int32)


def edge_leaks(edges: Edges, column: str, entities: pl.Series, target: str, targets: pl.Series) -> list[Leak]:
    """Relations at whose other end the row's own target stands, for nearly all rows whose entity has them.

    Args:
        edges: of the graph.
        column: that names entities.
        entities: its cells in some rows.
        target: the column that is predicted.
        targets: its cells in these rows.
    """
    place = {name: i for i, name in enumerate(edges.entities)}
    pairs = zip(names_of(entities).to_list(), names_of(targets).to_list(), strict=True)
    rows = [(place[e], place.get(t, -1)) for e, t in pairs if t is not None and e in place]
    ends = np.unique([t for _, t in rows if t >= 0])
    out = []
    for number, name in enumerate(edges.relations if len(ends) else ()):
        of_relation = edges.triples_E3[edges.triples_E3[:, 1] == number]
        for here, there in ((0, 2), (2, 0)):
            if not np.isin(of_relation[:, there], ends).any():
                continue
            having = set(of_relation[:, here].tolist())
            true = set(map(tuple, of_relation[:, (here, there)].tolist()))
            asked = [row for row in rows if row[0] in having]
            hits = sum(row in true for row in asked)
            if len(asked) >= FEWEST_ROWS and hits >= SAID * len(asked):
                message = (
                    f"{column}: edges of the relation {name!r} say {target}, in {hits} of {len(asked)} training rows "
                    "whose entity has one: take them out of the file, unless they are known before the answer is"
                )
                out.append(Leak(column, hits, [], message))
    return out
