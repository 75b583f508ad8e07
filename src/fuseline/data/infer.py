"""From a table to what each column is, what the task is, and how to split: guesses that say why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from fuseline.data.beside import Beside
from fuseline.data.boxlike import box_like
from fuseline.data.guess import Slash, guess_column, is_blank, is_person, key_of, to_number
from fuseline.data.series import NEXT, looks_like_series, read_series
from fuseline.data.suspects import gives_away
from fuseline.data.table import Table, cells
from fuseline.errors import FuselineError

SAMPLE_ROWS = 20_000
FEW = 20
"""rows of a class below which the draft points to heads for few rows, as training does"""
SAMPLE_BYTES = 32 * 2**20
"""of one column"""
_STRETCH = 250
"""neighbouring rows sampled together, so that a large table is not read whole"""


@dataclass(frozen=True)
class Column:
    """What one column was taken for.

    Attributes:
        kind: image, audio, text, graph; number, category, boolean or date; group, split; target; leak (suspected to
            give the target away); ignored.
        absent: share of rows without a value, in the sample.
        reason: one line for a person.
        otherwise: of a leak or a graph, what it would have been.
        slash: of a date, what 1/3/2020 means.
        edges: of a graph, the file beside the table that holds it.
    """

    name: str
    kind: str
    absent: float
    reason: str
    otherwise: str | None = None
    slash: Slash | None = None
    edges: str | None = None


@dataclass(frozen=True)
class Inferred:
    """`task` and `split` are the recipe's sections; `task` is None without a target."""

    rows: int
    columns: list[Column]
    target: str | None = None
    task: dict[str, Any] | None = None
    task_reason: str = ""
    split: dict[str, Any] = field(default_factory=dict)
    split_reason: str = ""
    sides: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """of retrieval: left and right, their columns"""

    def __getitem__(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)


def infer(table: Table, target: str | None = None) -> Inferred:
    """Look at up to 20,000 rows from all over the table, less of columns of large cells.

    Raises:
        FuselineError: ``missing_column``, ``no_target`` (a target without any value).
    """
    if target is not None:
        table.require([target])
    rows = _sample_rows(table.n_rows)
    aim = _sample(table, target, rows)[1] if target is not None else []
    task, task_reason = _task(target, aim) if target is not None else (None, "")
    columns: list[Column] = []
    beside = Beside(table.folder)
    for name in table.columns:
        some, values, kind = (rows, aim, None) if name == target else _sampled(table, name, rows)
        absent = sum(map(is_blank, values)) / len(values)
        if kind is None:
            columns.append(Column(name, "target", absent, task_reason))
            continue
        guess = guess_column(name, kind, values, some.tolist(), table.folder)
        column = Column(name, guess.kind, absent, guess.reason, slash=guess.slash)
        graph = beside.graph_of(guess.kind, values)
        if graph is not None:
            columns.append(Column(name, "graph", absent, graph[1], guess.kind, edges=graph[0]))
            continue
        if (
            task is not None
            and task["kind"] != "detection"
            and guess.kind in ("number", "category", "boolean", "date")
            and len(some) == len(rows)
        ):
            why = gives_away(values, aim, numeric=task["kind"] == "regression")
            if why:
                column = Column(name, "leak", absent, f"suspected leak: {why}", guess.kind, guess.slash)
        columns.append(column)
    split, split_reason = _split(columns, task)
    return Inferred(table.n_rows, columns, target, task, task_reason, split, split_reason)


def infer_many(table: Table, targets: Sequence[str]) -> Inferred:
    """Several targets, one task each. A column that may give one of them away is suspected."""
    found = [infer(table, target) for target in targets]
    columns = []
    for choices in zip(*(f.columns for f in found), strict=True):
        first = next((c for c in choices if c.kind == "target"), None)
        columns.append(first or next((c for c in choices if c.kind == "leak"), choices[0]))
    tasks = {f.target: f.task for f in found}
    split, reason = _split(columns, {"kind": "multi"})
    return replace(
        found[0],
        columns=columns,
        target=", ".join(targets),
        task={"kind": "multi", "tasks": tasks},
        task_reason="; ".join(f"{f.target}: {f.task_reason.removeprefix('target: ')}" for f in found),
        split=split,
        split_reason=reason,
    )


def infer_pair(table: Table, left: Sequence[str], right: Sequence[str]) -> Inferred:
    """Columns whose rows are to find each other; all others are left aside.

    Raises FuselineError ``missing_column``, ``bad_usage``.
    """
    table.require([*left, *right])
    if set(left) & set(right) or not left or not right:
        raise FuselineError("bad_usage", "a pair needs different columns on both sides", "--left title --right photo")
    found = infer(table)
    columns = []
    for column in found.columns:
        if column.name in (*left, *right):
            if column.kind in ("group", "split", "ignored"):
                message = f"{column.name} is no input: {column.reason}"
                raise FuselineError("bad_usage", message, "choose another column, or write the recipe by hand")
        elif column.kind not in ("group", "split"):
            column = replace(column, kind="ignored", reason=f"on neither side; {column.reason}")
        columns.append(column)
    split, reason = _split(columns, None)
    if split["kind"] == "stratified":
        split, reason = {"kind": "random"}, "there are no classes to spread"
    sides = {"left": tuple(left), "right": tuple(right)}
    return replace(found, columns=columns, task={"kind": "retrieval"}, split=split, split_reason=reason, sides=sides)


def _sample_rows(n: int) -> np.ndarray:
    if n <= SAMPLE_ROWS:
        return np.arange(n)
    starts = np.linspace(0, n - _STRETCH, SAMPLE_ROWS // _STRETCH).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(_STRETCH))


def _sampled(table: Table, name: str, rows: np.ndarray) -> tuple[np.ndarray, list[Any], pl.DataType]:
    """The rows looked at, their cells, the column's kind in the table."""
    some, values = _sample(table, name, rows)
    return some, values, table.take(rows[:1], [name]).schema[name]


def _sample(table: Table, name: str, rows: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    few = rows[:: -(-len(rows) // 32)]
    size = table.take(few, [name]).estimated_size() / len(few)
    most = int(np.clip(SAMPLE_BYTES // max(1.0, size), 32, len(rows))) if size > 0 else len(rows)
    some = rows if most >= len(rows) else rows[:: -(-len(rows) // most)]
    return some, cells(table.take(some, [name])[name])


def _task(target: str, aim: list[Any]) -> tuple[dict[str, Any], str]:
    values = [v for v in aim if not is_blank(v)]
    if not values:
        raise FuselineError("no_target", "no row has a target", "choose a column with values", column=target)
    boxes = box_like(values)
    if boxes:
        detection: dict[str, Any] = {"kind": "detection", "target": target}
        detection |= {"format": boxes.form} if boxes.form != "xyxy" else {}
        detection |= {"normalised": True} if boxes.normalised else {}
        return detection, f"target: {boxes.boxes} boxes on the pictures of {len(values)} rows"
    classification: dict[str, Any] = {"kind": "classification", "target": target}
    if looks_like_series(values[:60]) and (target.endswith(NEXT) or _has_fractions(values[:60])):
        return {"kind": "forecast", "target": target}, "target: lists of numbers, the steps that come next"
    if all(isinstance(v, list) or (isinstance(v, str) and _is_json_list(v)) for v in values):
        return classification, "target: any number of labels a row (its cells are lists)"
    labels = [key_of(v) for v in values]
    count = Counter(labels)
    numbers = [n for n in map(to_number, labels) if n is not None]
    if len(numbers) >= 0.98 * len(labels) and not isinstance(values[0], bool) and not _has_codes(labels):
        whole = all(n.is_integer() for n in numbers)
        if len(count) > (min(20, max(2, len(labels) // 10)) if whole else 2):
            return {"kind": "regression", "target": target}, f"target: {len(count)} different numbers"
    parts = Counter(p.strip() for text in labels for p in text.split(";") if p.strip())
    joined = sum(";" in text for text in labels)
    if joined >= 0.1 * len(labels) and len(parts) < len(count):
        return classification | {"mode": "multilabel"}, f"target: {len(parts)} labels, several a row, joined by `;`"
    if _are_texts(labels, count):
        median = sorted(map(len, labels))[len(labels) // 2]
        return {"kind": "generation", "target": target}, f"target: texts to write ({median} characters in the middle)"
    shown = ", ".join(f"{' '.join(k.split())[:30]} {n}" for k, n in count.most_common(4)) + (
        ", …" if len(count) > 4 else ""
    )
    many = "; so many classes are rarely meant" if len(count) > max(20, 0.5 * len(labels)) else ""
    if not many and (fewest := min(count.values())) < FEW and len(aim) < SAMPLE_ROWS:
        many = f"; the rarest class has {fewest} row{'s' if fewest > 1 else ''}: see docs/few-shot.md"
    return classification, f"target: {len(count)} classes ({shown}){many}"


def _are_texts(labels: list[str], count: Counter[str]) -> bool:
    """Sentences that mostly differ are written, not chosen among."""
    several = sum(len(t.split()) >= 3 or len(t) >= 40 for t in labels)
    return len(count) > max(20, 0.5 * len(labels)) and several >= 0.5 * len(labels)


def _has_fractions(values: list[Any]) -> bool:
    """Numbers of labels are whole ones."""
    found = [series for v in values if (series := read_series(v, "", None)) is not None]
    return any((s[~np.isnan(s)] % 1 != 0).any() for s in found)


def _is_json_list(text: str) -> bool:
    if not text.lstrip().startswith("["):
        return False
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def _has_codes(labels: list[str]) -> bool:
    return any(len(t) > 1 and t[0] == "0" and t.isdigit() for t in labels)


def _split(columns: list[Column], task: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
    given = [c for c in columns if c.kind == "split"]
    if given:
        return {"kind": "given", "column": given[0].name}, f"{given[0].name} says which rows are which"
    groups = [c for c in columns if "group" in (c.kind, c.otherwise)]
    if groups:
        chosen = next((c for c in groups if is_person(c.name)), groups[0])
        return {"kind": "group", "group": chosen.name}, f"no {chosen.name} is both trained and tested on"
    kind: Literal["stratified", "random"] = "stratified"
    if task and task["kind"] == "detection":
        return {"kind": "random"}, "boxes have no classes that could be spread evenly"
    if task and task["kind"] == "generation":
        return {"kind": "random"}, "texts have no shares to keep"
    if task and task["kind"] == "multi":
        return {"kind": kind}, "every part holds each target's classes in like shares"
    if task and task["kind"] == "regression":
        return {"kind": kind}, "every part holds low and high targets alike"
    return {"kind": kind}, "every part holds the classes in the same shares"
