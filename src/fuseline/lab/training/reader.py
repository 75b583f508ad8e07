"""From rows of the table to batches of tensors. Dimensions: B batch, M inputs, T tokens, D encoder width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.training.cache import Cache, Kept, cell_key
from fuseline.lab.training.disk.shelf import Shelf
from fuseline.lab.training.encode import device_of, encode_cell, same
from fuseline.lab.training.identity import arrays_digest, encoder_digest, is_frozen
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import RowParser, said_of
from fuseline.runtime.backend import cpu_quota
from fuseline.tasks import Task, read_columns

ROWS_KEPT = 10_000
"""rows of a small table that are read and parsed once"""


@dataclass
class Batch:
    """`arrays` are named as the graph's inputs, `present` apart; `targets` are Task.encode stacked."""

    arrays: dict[str, Tensor]
    present_BM: Tensor
    targets: Tensor | None
    rows: np.ndarray
    weight: float = 1.0
    """of its loss; not 1 where several processes have parts of unlike size of one batch"""
    unlabelled: Batch | None = None
    """rows without targets that the same step learns from"""


@dataclass
class Row:
    """One row after reading: a value an input, its target, or why it cannot be used."""

    index: int
    values: dict[str, Any | None]
    target: np.ndarray | None
    notes: list[str]
    error: FuselineError | None = None
    alone: dict[str, dict[str, np.ndarray]] | None = None
    """where rows are kept: each input's arrays of this row as a batch of one, made once"""


class Reader:
    """Reads rows and remembers. `keep` makes a frozen encoder's tokens stand in for its cells."""

    def __init__(self, table: Table, parser: RowParser, task: Task, media: MediaRoot, cache: Cache) -> None:
        self.table, self.parser, self.task, self.media, self.cache = table, parser, task, media, cache
        self.columns = list(dict.fromkeys((*parser.columns, *read_columns(task))))
        self.frozen: dict[str, tuple[str, Encoder]] = {}
        self.addressed: frozenset[str] = frozenset()
        """inputs whose decoded cells' digests are remembered, since their tokens will be looked up on disk"""
        self.unsteady: set[str] = set()
        """frozen inputs whose encoder gave two answers for one cell: kept in memory only"""
        self._shelves: dict[str, Shelf] = {}
        self._steady: set[str] = set()
        self._rows_bytes = 0
        self._torch_threads = torch.get_num_threads()
        self._rows: dict[int, Row] = {}
        self._dummies: dict[str, Kept] = {}
        self._settings = {
            name: hashlib.sha256(json.dumps(m.state(), sort_keys=True, default=str).encode()).hexdigest()
            for name, m in parser.modalities.items()
        }
        self._threads = ThreadPoolExecutor(cpu_quota(), thread_name_prefix="fuseline-read")

    def keep(self, name: str, encoder: Encoder, options: str = "") -> None:
        """From now on input `name` is given as its frozen encoder's tokens, each cell encoded once.

        `options`: the encoder's options as text. An encoder of which anything trains is kept in memory at most: what it
        gives is right only until its next step.
        """
        identity = encoder_digest(encoder, f"{options} {self._settings[name]}")
        self.frozen[name] = (identity, encoder)
        self._torch_threads = torch.get_num_threads()
        self._dummies.pop(name, None)
        self._shelves.pop(name, None)
        self._steady.discard(name)
        self._forget_rows()
        if self.cache.store is not None and is_frozen(encoder) and device_of(encoder).type == "cpu":
            about = {
                "encoder": type(encoder).__qualname__,
                "input": name,
                "modality": self.parser.modalities[name].name,
            }
            self._shelves[name] = self.cache.store.shelf(identity, about)

    def let_go(self) -> None:
        """Give cells again, not tokens."""
        self.frozen.clear()
        self._shelves.clear()
        self._forget_rows()

    def _forget_rows(self) -> None:
        self._rows.clear()
        self._rows_bytes = 0

    def value(self, name: str, cells: Mapping[str, Any]) -> tuple[Any | None, str]:
        """One input's value, from the cache where it is there. Raises as RowParser.parse_input."""
        if all(c is None for c in cells.values()):
            return None, ""
        costly = self.parser.modalities[name].file  # decoding costs more than looking up
        if not costly and name not in self.frozen:
            return self.parser.parse_input(name, cells, self.media)
        key = (name, self._settings[name], cell_key(cells, self.media))
        return self._tokens(name, cells, key, costly) if name in self.frozen else self._parsed(name, cells, key, costly)

    def _parsed(self, name: str, cells: Mapping[str, Any], key: Hashable, costly: bool) -> tuple[Any | None, str]:
        value = self.cache.get(key) if costly else None
        if value is not None:
            return value, said_of(value)
        value, note = self.parser.parse_input(name, cells, self.media)
        if costly and value is not None:
            self.cache.put(key, value)
            if name in self.addressed and self.cache.digest(key) is None:
                self.cache.remember(key, arrays_digest(self.parser.modalities[name].collate([value])))
        return value, note

    def _tokens(self, name: str, cells: Mapping[str, Any], key: Hashable, costly: bool) -> tuple[Kept | None, str]:
        """One cell's tokens: from disk or memory where they are there, else encoded now and kept there."""
        shelf = self._shelves.get(name)
        digest = self.cache.digest(key) if shelf is not None else None
        kept: Kept | None = shelf.get(digest) if shelf is not None and digest is not None else None
        kept_key = (key, self.frozen[name][0])
        kept = kept or self.cache.get(kept_key)
        if kept is not None:
            return kept, ""
        value, note = self._parsed(name, cells, key, costly)
        if value is None:
            return None, note
        arrays = self.parser.modalities[name].collate([value])
        if shelf is not None and digest is None:
            digest = arrays_digest(arrays)
            self.cache.remember(key, digest)
            kept = shelf.get(digest)
            if kept is not None:
                return kept, ""
        kept = self._encode(name, arrays)
        if shelf is None or digest is None or not self._is_steady(name, arrays, kept) or not shelf.put(digest, kept):
            self.cache.put(kept_key, kept)
        return kept, ""

    def _is_steady(self, name: str, arrays: dict[str, np.ndarray], kept: Kept) -> bool:
        """Whether the encoder says the same twice, tried once: chance inside it must not be kept for good."""
        if name not in self._steady and name not in self.unsteady:
            steady = same(kept, self._encode(name, arrays))
            (self._steady if steady else self.unsteady).add(name)
            if not steady:
                self._shelves.pop(name, None)
        return name in self._steady

    def _encode(self, name: str, arrays: dict[str, np.ndarray]) -> Kept:
        return encode_cell(self.frozen[name][1], arrays, self._torch_threads)

    def read(self, rows: Sequence[int] | np.ndarray, *, targets: bool = True) -> list[Row]:
        """Read rows in the given order. A bad cell is the row's `error`, never an exception."""
        if targets and self._light:
            new = [int(i) for i in rows if int(i) not in self._rows]
            # Where tokens are on disk they may be more than memory holds.
            room = not self._shelves or self._rows_bytes < self.cache.limit
            if new and len(self._rows) + len(new) <= ROWS_KEPT and room:
                self._rows |= {row.index: self._alone(row) for row in self._read(new, targets=True)}
                new = []
            if not new:
                return [self._rows[int(i)] for i in rows]
        return self._read(rows, targets=targets)

    def holds(self, rows: np.ndarray) -> bool:
        """Whether all these rows are kept: a batch of them costs a join of small arrays."""
        return self._rows.keys() >= set(rows.tolist())

    def _alone(self, row: Row) -> Row:
        if row.error is None:
            row.alone = {name: self._arrays(name, [row.values[name]]) for name in self.parser.names}
            self._rows_bytes += sum(a.nbytes for arrays in row.alone.values() for a in arrays.values())
        return row

    @property
    def _light(self) -> bool:
        """Whether whole rows may be kept: what is large in them is in the cache already, as tokens."""
        return self.table.n_rows <= ROWS_KEPT and all(
            not m.file or name in self.frozen for name, m in self.parser.modalities.items()
        )

    def _read(self, rows: Sequence[int] | np.ndarray, *, targets: bool) -> list[Row]:
        frame = self.table.take(np.asarray(rows), self.columns if targets else list(self.parser.columns))
        return self.read_dicts(Table.rows(frame), rows, targets=targets)

    def read_dicts(
        self, cells: Sequence[Mapping[str, Any]], rows: Sequence[int] | np.ndarray, *, targets: bool = True
    ) -> list[Row]:
        jobs = [(int(i), row, targets) for i, row in zip(rows, cells, strict=True)]
        if self.frozen or any(m.file for m in self.parser.modalities.values()):
            return list(self._threads.map(self._row, jobs))
        return [self._row(job) for job in jobs]

    def _row(self, job: tuple[int, Mapping[str, Any], bool]) -> Row:
        index, row, targets = job
        out = Row(index, {}, None, [])
        try:
            if targets:
                out.target = self.task.encode({c: self.parser.cell(row.get(c)) for c in read_columns(self.task)})
            for name in self.parser.names:
                out.values[name], note = self.value(name, self.parser.cells(name, row))
                if note:
                    out.notes.append(note)
        except FuselineError as error:
            out.error = error.at(index)
        return out

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Tensors of rows that could be read."""
        values = [row.values for row in rows]
        arrays: dict[str, np.ndarray] = {}
        for name in self.parser.names:
            arrays |= _joined(name, rows) or self._arrays(name, [row[name] for row in values])
        have = all(row.target is not None for row in rows)
        return Batch(
            {k: torch.from_numpy(v) for k, v in arrays.items()},
            torch.from_numpy(self.parser.present(values)),
            torch.from_numpy(np.stack([r.target for r in rows if r.target is not None])) if have and rows else None,
            np.array([row.index for row in rows]),
        )

    def _arrays(self, name: str, column: Sequence[Any | None]) -> dict[str, np.ndarray]:
        return self._kept(name, column) if name in self.frozen else self.parser.collate(name, column)

    def _kept(self, name: str, column: Sequence[Kept | None]) -> dict[str, np.ndarray]:
        width = self.frozen[name][1].width
        length = max((k.values_TD.shape[0] for k in column if k is not None), default=1)
        values_BTD = np.zeros((len(column), length, width), np.float32)
        mask_BT = np.zeros((len(column), length), bool)
        mask_BT[:, 0] = True  # a dummy token where the cell is absent: no row may be all masked
        for i, kept in enumerate(column):
            if kept is not None:
                n = kept.values_TD.shape[0]
                values_BTD[i, :n], mask_BT[i, :n] = kept.values_TD, kept.mask_T
        found = {f"{name}.tokens": values_BTD, f"{name}.tokens_mask": mask_BT}
        return found | self._aside(name, column, length)

    def _aside(self, name: str, column: Sequence[Kept | None], length: int) -> dict[str, np.ndarray]:
        """What the encoder handed over beside the tokens; of an absent cell what its dummy gave. An array as long as
        the tokens is padded or cut like them."""
        if name not in self._dummies:
            self._dummies[name] = self._encode(name, self.parser.modalities[name].collate([None]))
        dummy = self._dummies[name]
        rows = []
        for kept in (k or dummy for k in column):
            own, tokens = {}, kept.values_TD.shape[0]
            for key, array in kept.aside.items():
                if array.ndim and array.shape[0] == tokens != length:
                    array = np.pad(array[:length], [(0, max(0, length - tokens)), *[(0, 0)] * (array.ndim - 1)])
                own[key] = array
            rows.append(own)
        return {f"{name}.aside.{key}": np.stack([own[key] for own in rows]) for key in dummy.aside}

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Rows known to be good (the scan saw them). A cell that went bad since is an error, not a silent hole."""
        read = self.read(rows)
        for row in read:
            if row.error is not None:
                raise row.error
        return self.collate(read)

    def batches(self, rows: np.ndarray, size: int) -> Iterator[Batch]:
        for start in range(0, len(rows), size):
            yield self.batch(rows[start : start + size])


def _joined(name: str, rows: Sequence[Row]) -> dict[str, np.ndarray] | None:
    """One input's batch from its rows' own arrays. None where those are missing, or differ in length: to be padded."""
    own = [row.alone[name] for row in rows if row.alone is not None]
    if len(own) < len(rows) or not own:
        return None
    try:
        return {key: np.concatenate([arrays[key] for arrays in own]) for key in own[0]}
    except ValueError:
        return None
