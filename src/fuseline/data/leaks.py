"""The same file or the same text in training and in what it is measured on. Dimensions: N rows."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fuseline.data.guess import is_blank
from fuseline.data.items import items_of
from fuseline.data.media import embedded_bytes, find_file
from fuseline.data.split import TEST, TRAIN, UNUSED, VAL, Split
from fuseline.data.table import Table, cells

SHORT = 20
"""characters below which the same text may well be written twice"""
COMMON = 0.01
"""share of the rows from which on a text is a phrase and not a document"""
_EXAMPLES = 3
_BATCH = 256


@dataclass(frozen=True)
class Leak:
    """Content of one column that stands on both sides.

    Attributes:
        count: rows of val and test whose content a training row has too.
        examples: up to three (training row, val or test row).
        severity: "warning"; "note" where the texts are short or common, as phrases and categories are.
    """

    column: str
    count: int
    examples: list[tuple[int, int]]
    message: str
    severity: Literal["warning", "note"] = "warning"


def check_leaks(
    table: Table,
    split: Split,
    media_columns: Sequence[str] = (),
    text_columns: Sequence[str] = (),
    media_root: str | Path | None = None,
    item_columns: Mapping[str, bool] | None = None,
) -> list[Leak]:
    """Compare the parts of a split, column by column: files by content, texts without case and white space.

    Streams the table; what is kept is 16 bytes a row. Only files whose size occurs on both sides are read. A cell
    that names no readable file is passed over: the modality names it.

    Args:
        table: N rows.
        split: of these rows.
        media_columns: paths relative to `media_root` (default: the table's folder), bytes, base64 or data URIs.
        text_columns: compared as texts.
        media_root: files outside it are not opened.
        item_columns: columns of lists -> whether their items are files (else texts), compared item by item.
    """
    assert len(split.part) == table.n_rows
    root = Path(media_root) if media_root is not None else table.folder
    root = root.resolve() if root is not None else None
    found = []
    for column in media_columns:
        leak = _media_leak(table, split.part, column, root)
        found += [leak] if leak else []
    for column in text_columns:
        found += _text_leaks(table, split.part, column)
    for column, files in (item_columns or {}).items():
        leak = _item_leak(table, split.part, column, root, files)
        found += [leak] if leak else []
    return found


def row_leak(table: Table, part: np.ndarray, columns: Sequence[str]) -> Leak | None:
    """Rows of training (`part` 0) that are alike, in every one of the columns, to a row of val or test."""
    keys = np.zeros(table.n_rows, dtype=np.uint64)
    for start, frame in table.batches(list(columns), _BATCH):
        for row, own in enumerate(Table.rows(frame), start):
            if part[row] != UNUSED and not all(is_blank(cell) for cell in own.values()):
                keys[row] = _hash(repr(list(own.values())).encode("utf-8", "replace"))
    train, held = _on_both_sides(keys, part)
    if not len(held):
        return None
    return _leak("all inputs", keys, part, train, held, "the same row stands", "warning")


def _media_leak(table: Table, part: np.ndarray, column: str, root: Path | None) -> Leak | None:
    sizes = _keys(table, part, column, lambda cell: _size(cell, root))
    train, held = _on_both_sides(sizes, part)
    chosen = np.union1d(train, held)
    if not len(chosen):
        return None
    keys = np.zeros(table.n_rows, dtype=np.uint64)
    for start in range(0, len(chosen), _BATCH):
        rows = chosen[start : start + _BATCH]
        frame = table.take(rows, [column])
        keys[rows] = [_digest(cell, root) for cell in cells(frame[column])]
    train, held = _on_both_sides(keys, part)
    if not len(held):
        return None
    return _leak(column, keys, part, train, held, "the same file content stands", "warning")


def _text_leaks(table: Table, part: np.ndarray, column: str) -> list[Leak]:
    short = np.zeros(table.n_rows, dtype=bool)

    def key(cell: Any, row: int) -> int:
        text = normalised(str(cell))
        short[row] = len(text) < SHORT
        return _hash(text.encode("utf-8", "replace"))

    keys = _keys(table, part, column, key, with_row=True)
    train, held = _on_both_sides(keys, part)
    if not len(held):
        return []
    used = keys[(keys != 0) & (part != UNUSED)]
    different, counts = np.unique(used, return_counts=True)
    many = counts > max(10, COMMON * len(used))
    phrase = short | np.isin(keys, different[many])
    out = []
    document = ~phrase
    if document[held].any():
        side, other = train[document[train]], held[document[held]]
        out.append(_leak(column, keys, part, side, other, "the same text stands", "warning"))
    if phrase[held].any():
        side, other = train[phrase[train]], held[phrase[held]]
        out.append(_leak(column, keys, part, side, other, "the same short or common text stands", "note"))
    return out


def _item_leak(table: Table, part: np.ndarray, column: str, root: Path | None, files: bool) -> Leak | None:
    """Rows that share one item of their lists. Files of a size that is on one side only are not read."""
    if files:
        sizes_I, rows_I = _item_keys(table, part, column, True, lambda item: _size(item, root))
        train, held = _on_both_sides(sizes_I, part[rows_I])
        looked = np.zeros(len(part), dtype=bool)
        looked[rows_I[np.union1d(train, held)]] = True
        keys_I, rows_I = _item_keys(
            table, np.where(looked, part, UNUSED), column, True, lambda item: _digest(item, root)
        )
    else:
        keys_I, rows_I = _item_keys(table, part, column, False, _document)
        different, counts = np.unique(keys_I, return_counts=True)
        keys_I[np.isin(keys_I, different[counts > max(10, COMMON * table.n_rows)])] = 0
    train, held = _on_both_sides(keys_I, part[rows_I])
    if not len(held):
        return None
    order = train[np.argsort(keys_I[train], kind="stable")]
    partner = rows_I[order[np.searchsorted(keys_I[order], keys_I[held], side="left")]]
    others, first = np.unique(rows_I[held], return_index=True)
    examples = [(int(partner[f]), int(o)) for o, f in zip(others[:_EXAMPLES], first[:_EXAMPLES], strict=True)]
    where = [f"{(part[others] == number).sum()} of {name}" for number, name in ((VAL, "val"), (TEST, "test"))]
    pairs = ", ".join(f"{a} and {b}" for a, b in examples)
    what = "file content" if files else "text"
    message = (
        f"{column}: an item of the same {what} stands in train and in {len(others)} other rows "
        f"({', '.join(where)}), e.g. rows {pairs}"
    )
    return Leak(column, len(others), examples, message)


def _item_keys(
    table: Table, part: np.ndarray, column: str, files: bool, key: Callable[[Any], int]
) -> tuple[np.ndarray, np.ndarray]:
    """(I,) uint64 keys of all items, 0 where there is nothing to compare, and (I,) their rows."""
    keys: list[int] = []
    rows: list[int] = []
    for start, frame in table.batches([column], _BATCH):
        for row, cell in enumerate(cells(frame[column]), start):
            if part[row] == UNUSED or is_blank(cell):
                continue
            for item in items_of(cell, files=files):
                keys.append(key(item))
                rows.append(row)
    return np.array(keys, dtype=np.uint64), np.array(rows, dtype=np.int64)


def _document(item: Any) -> int:
    text = normalised(str(item))
    return 0 if len(text) < SHORT else _hash(text.encode("utf-8", "replace"))


def _leak(
    column: str,
    keys: np.ndarray,
    part: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    what: str,
    severity: Literal["warning", "note"],
) -> Leak:
    order = train[np.argsort(keys[train], kind="stable")]
    partner = order[np.searchsorted(keys[order], keys[held], side="left")]
    examples = [(int(a), int(b)) for a, b in zip(partner[:_EXAMPLES], held[:_EXAMPLES], strict=True)]
    where = [f"{(part[held] == number).sum()} of {name}" for number, name in ((VAL, "val"), (TEST, "test"))]
    pairs = ", ".join(f"{a} and {b}" for a, b in examples)
    message = f"{column}: {what} in train and in {len(held)} other rows ({', '.join(where)}), e.g. rows {pairs}"
    if severity == "note":
        message += "; such texts may well be written twice"
    return Leak(column, len(held), examples, message, severity)


def _on_both_sides(keys: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training rows, and rows of val and test, whose key (0: none) the other side has."""
    train = np.flatnonzero((part == TRAIN) & (keys != 0))
    held = np.flatnonzero((part > TRAIN) & (keys != 0))
    both = np.intersect1d(keys[train], keys[held])
    return train[np.isin(keys[train], both)], held[np.isin(keys[held], both)]


def _keys(
    table: Table, part: np.ndarray, column: str, key: Callable[..., int], *, with_row: bool = False
) -> np.ndarray:
    """(N,) uint64, 0 where absent or unused."""
    out = np.zeros(table.n_rows, dtype=np.uint64)
    for start, frame in table.batches([column], _BATCH):
        for row, cell in enumerate(cells(frame[column]), start):
            if part[row] != UNUSED and not is_blank(cell):
                out[row] = key(cell, row) if with_row else key(cell)
    return out


def normalised(text: str) -> str:
    """Without differences of case, white space and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _content(cell: Any) -> bytes | None:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    return embedded_bytes(cell) if isinstance(cell, str) else None


def _size(cell: Any, root: Path | None) -> int:
    data = _content(cell)
    if data is not None:
        return len(data)
    path = find_file(cell, root) if isinstance(cell, str) else None
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0


def _digest(cell: Any, root: Path | None) -> int:
    data = _content(cell)
    if data is not None:
        return _hash(data)
    path = find_file(cell, root) if isinstance(cell, str) else None
    try:
        if path:
            with path.open("rb") as file:
                return _short(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        pass
    return 0


def _hash(data: bytes) -> int:
    return _short(hashlib.sha256(data).digest())


def _short(digest: bytes) -> int:
    """64 bits: a million rows meet by chance once in 30 million tables. Never 0."""
    return int.from_bytes(digest[:8], "little") or 1
