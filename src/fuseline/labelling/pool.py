"""What a package says of a pool's rows, streamed. Dimensions: N rows that may be labelled, B batch, M inputs, E
embedding, C classes or numbers of an answer, K committee members.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.labelling.measures import disagreement
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import Parsed
from fuseline.progress import Voice
from fuseline.runtime import Predictor
from fuseline.runtime.bucket import WINDOW, by_length

MOST_BAD = 10_000
"""rows of which the reason is kept"""
SAMPLED = 65_536
"""rows whose embeddings and answers are held before they go to disk"""


class Spool:
    """Rows of numbers of one width (N, width), kept in a file of a folder that the caller takes away."""

    def __init__(self, path: Path) -> None:
        self.path, self.width, self.rows = path, 0, 0
        self._file = path.open("wb")

    def add(self, values_BW: np.ndarray) -> None:
        values_BW = np.ascontiguousarray(values_BW, np.float32)
        self.width, self.rows = values_BW.shape[1], self.rows + len(values_BW)
        self._file.write(values_BW.tobytes())

    def mapped(self) -> np.ndarray:
        """(N, width), read only."""
        self._file.close()
        if not self.rows or not self.width:
            return np.zeros((self.rows, self.width), np.float32)
        return np.memmap(self.path, np.float32, "r", shape=(self.rows, self.width))


@dataclass(frozen=True)
class Wanted:
    """What the chosen method reads of a row."""

    answers: bool = False
    embedding: bool = False
    committee: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.answers or self.embedding or self.committee)


@dataclass
class Seen:
    """A pool's rows that may be labelled, in the pool's order."""

    places_N: np.ndarray
    """their rows in the pool"""
    answers_NC: np.ndarray
    """chances of classes, or numbers in standard deviations of training's; (N, 0) where not wanted"""
    embedding_NE: np.ndarray
    disagreement_N: np.ndarray
    without_N: np.ndarray
    """the input without which the answer changes the most; -1: none"""
    counts: dict[str, int]
    bad: list[FuselineError] = field(default_factory=list)
    """why rows cannot be read: the first MOST_BAD of them"""


def read_pool(
    predictor: Predictor,
    table: Table,
    folder: Path,
    *,
    columns: Sequence[str],
    media: MediaRoot,
    wanted: Wanted,
    voice: Voice,
    batch_size: int,
) -> Seen:
    """Parse every row and run what is `wanted`. Left out are, and counted: rows that cannot be read (`errors`), that
    have a label (`labelled`), that have no input (`empty`), and copies of an earlier row (`copies`).

    `columns`: that are read, of those that the table has. Memory: a window of decoded rows and some bytes a row.
    """
    targets = [c for c in predictor.task.columns if c in table.columns]
    counts = dict.fromkeys(("rows", "errors", "labelled", "empty", "copies"), 0)
    spools = {name: Spool(folder / f"{name}.f32") for name in ("answers", "embedding", "committee")}
    places: list[np.ndarray] = []
    bad: list[FuselineError] = []
    met: set[bytes] = set()
    with voice.track("reading the pool", table.n_rows) as advance:
        for start, frame in table.batches(list(dict.fromkeys([*columns, *targets])), WINDOW * batch_size):
            parsed: list[Parsed] = []
            own: list[int] = []
            for i, row in enumerate(Table.rows(frame)):
                counts["rows"] += 1
                if any(_filled(predictor, row.get(c)) for c in targets):
                    counts["labelled"] += 1
                    continue
                got = predictor.rows.parse({c: row[c] for c in columns}, media, start + i)
                if got.error is not None:
                    counts["errors"] += 1
                    bad += [got.error] if len(bad) < MOST_BAD else []
                elif all(v is None for v in got.values.values()):
                    counts["empty"] += 1
                elif (digest := _digest(predictor, got.values)) in met:
                    counts["copies"] += 1
                else:
                    met.add(digest)
                    parsed.append(got)
                    own.append(start + i)
            kept = _run(predictor, parsed, wanted, batch_size, own, bad, counts)
            places.append(np.array(own, np.int64)[kept.good])
            for name, values in kept.values.items():
                spools[name].add(values[kept.good])
            advance(frame.height)
    committee_N2 = spools["committee"].mapped()
    rows = sum(map(len, places))
    has = committee_N2.shape[1] > 0
    return Seen(
        places_N=np.concatenate(places) if places else np.zeros(0, np.int64),
        answers_NC=spools["answers"].mapped(),
        embedding_NE=spools["embedding"].mapped(),
        disagreement_N=np.array(committee_N2[:, 0], np.float64) if has else np.full(rows, np.nan),
        without_N=np.array(committee_N2[:, 1], np.int64) if has else np.full(rows, -1),
        counts=counts,
        bad=bad,
    )


def embed_table(
    predictor: Predictor, table: Table, *, columns: Sequence[str], media: MediaRoot, voice: Voice, batch_size: int
) -> np.ndarray:
    """Embeddings (L, E) of a table's readable rows."""
    found = []
    with voice.track("reading labelled rows", table.n_rows) as advance:
        for start, frame in table.batches(columns, WINDOW * batch_size):
            parsed = [predictor.rows.parse(row, media, start + i) for i, row in enumerate(Table.rows(frame))]
            for batch in by_length(predictor.rows.modalities, parsed, batch_size):
                arrays = predictor.rows.arrays([parsed[i].values for i in batch])
                found.append(np.asarray(predictor.backend.run(arrays)["embedding"], np.float32))
            advance(frame.height)
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)


def _filled(predictor: Predictor, cell: Any) -> bool:
    cell = predictor.rows.cell(cell)
    return not (cell is None or cell == "" or (isinstance(cell, float) and np.isnan(cell)))


def _digest(predictor: Predictor, values: Mapping[str, Any]) -> bytes:
    """Equal of rows that the model cannot tell apart."""
    text = hashlib.blake2b(digest_size=12)
    for name, modality in predictor.rows.modalities.items():
        text.update(b"-" if values[name] is None else b"+" + modality.digest(values[name]))
    return text.digest()


@dataclass
class _Kept:
    good: np.ndarray
    values: dict[str, np.ndarray]


def _run(
    predictor: Predictor,
    parsed: Sequence[Parsed],
    wanted: Wanted,
    batch_size: int,
    own: Sequence[int],
    bad: list[FuselineError],
    counts: dict[str, int],
) -> _Kept:
    """A window's rows. One that the model cannot compute, or answers with no finite number, is a bad row alone."""
    good_N = np.ones(len(parsed), bool)
    values: dict[str, np.ndarray] = {}
    if wanted.nothing or not parsed:
        return _Kept(good_N, values)

    def keep(batch: Sequence[int], made: Mapping[str, np.ndarray]) -> None:
        for name, rows_BW in made.items():
            if name not in values:
                values[name] = np.zeros((len(parsed), rows_BW.shape[1]), np.float32)
            values[name][batch] = rows_BW
            if name != "committee":
                good_N[np.asarray(batch)[~np.isfinite(rows_BW).all(axis=1)]] = False

    def run(batch: Sequence[int]) -> None:
        try:
            keep(batch, _outputs(predictor, [parsed[i].values for i in batch], wanted))
        except FuselineError:
            raise
        except Exception:  # one row of these is the cause; alone, it fails alone
            if len(batch) == 1:
                good_N[batch[0]] = False
                return
            for i in batch:
                run([i])

    for batch in by_length(predictor.rows.modalities, parsed, batch_size):
        run(batch)
    for i in np.flatnonzero(~good_N):
        counts["errors"] += 1
        if len(bad) < MOST_BAD:
            bad.append(FuselineError("bad_rows", "the model could not compute this row", row=own[int(i)]))
    return _Kept(good_N, values)


def _outputs(predictor: Predictor, rows: Sequence[Mapping[str, Any]], wanted: Wanted) -> dict[str, np.ndarray]:
    arrays = predictor.rows.arrays(rows)
    outputs = predictor.backend.run(arrays)
    out: dict[str, np.ndarray] = {}
    if wanted.embedding:
        if "embedding" not in outputs:
            raise FuselineError(
                "no_embedding", f"{predictor.package.name} gives no embedding", "choose --by uncertainty or random"
            )
        out["embedding"] = np.asarray(outputs["embedding"], np.float32)
    if wanted.answers or wanted.committee:
        out["answers"] = predictor.task.scale(outputs)
    if wanted.committee:
        out["committee"] = _committee(predictor, arrays, out["answers"])
    return out


def _committee(predictor: Predictor, arrays: Mapping[str, np.ndarray], whole_BC: np.ndarray) -> np.ndarray:
    """(B, 2): how far the answers with one input hidden lie from each other and from the whole one, and which hidden
    input changes the answer the most. A row of one input has no such committee: NaN, -1."""
    present_BM = np.asarray(arrays["present"])
    answers, valid = [whole_BC], [present_BM.sum(axis=1) > 1]
    moved_BM = np.zeros(present_BM.shape)
    for m in range(present_BM.shape[1]):
        seen_BM = present_BM.copy()
        seen_BM[:, m] = False
        has_B = present_BM[:, m] & seen_BM.any(axis=1)
        if not has_B.any():
            continue
        own_BC = predictor.task.scale(predictor.backend.run({**arrays, "present": seen_BM}))
        answers.append(own_BC)
        valid.append(has_B)
        moved_BM[:, m] = np.where(has_B, np.abs(own_BC - whole_BC).sum(axis=1), 0.0)
    task = predictor.task
    apart_B = disagreement(
        np.stack(answers),
        np.stack(valid),
        classes=task.name == "classification",
        several=task.mode == "multilabel",
    )
    without_B = np.where(moved_BM.max(axis=1) > 0, moved_BM.argmax(axis=1), -1)
    return np.stack([apart_B, without_B], axis=1).astype(np.float32)
