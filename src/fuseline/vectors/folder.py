"""An index's folder. Dimensions: N rows, Q queries, E embedding.

`index.json` holds the format's version, which package made the vectors, and the sha256 of every other member, all
checked before anything is read; then the members are mapped into memory, so that an index may be larger than it:

- `vectors.f32`: unit vectors, float32, row after row
- `graph.usearch`: a small-world graph over them (HNSW, Malkov & Yashunin 2018) as usearch writes it
- `rows.jsonl`: what was kept of each row, and `offsets.u64`, where each of its lines begins

Nothing here is pickled. Members are replaced by renaming the folder: a process that has one open keeps the old one. A
file that is overwritten in place would change answers, as with any mapped file.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.package.files import replace_folder, settle, sha256_of, write_json

FORMAT = 1
MANIFEST, VECTORS, GRAPH, ROWS, OFFSETS = "index.json", "vectors.f32", "graph.usearch", "rows.jsonl", "offsets.u64"
MEMBERS = (VECTORS, GRAPH, ROWS, OFFSETS)
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 64
CELLS = 8_000_000
"""similarities held at once in an exact search"""


@dataclass(frozen=True)
class Hit:
    """One row that was found."""

    row: int
    """of the table that was indexed, 0 first"""
    score: float
    """cosine, 1 is the same direction"""
    id: Any = None
    cells: dict[str, Any] = field(default_factory=dict)
    """the columns that the index kept"""

    def to_dict(self) -> dict[str, Any]:
        return {"row": self.row, "score": self.score, "id": self.id, "cells": self.cells}


def _usearch() -> Any:
    try:
        from usearch import index
    except ImportError:
        raise FuselineError("missing_extra", "an index needs usearch", "pip install 'fuseline[index]'") from None
    return index


class Writer:
    """Writes an index beside its place, and puts it there when it is whole. One thread adds: same rows, same bytes."""

    def __init__(self, target: Path, dim: int) -> None:
        self.target, self.dim, self.rows = target, dim, 0
        if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
            raise FuselineError("cannot_write", f"{target} is no index", "name a folder that is new or empty")
        self.new = target.with_name(target.name + ".new")
        shutil.rmtree(self.new, ignore_errors=True)
        self.graph = _usearch().Index(
            ndim=dim,
            metric="ip",
            dtype="f32",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )
        try:
            self.new.mkdir(parents=True)
            self._vectors, self._rows, self._offsets = (
                (self.new / name).open("wb") for name in (VECTORS, ROWS, OFFSETS)
            )
        except OSError as error:
            raise FuselineError("cannot_write", f"cannot write in {target}: {error.strerror}", "") from None

    def add(self, vectors_NE: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> None:
        """Unit vectors, and {"row", "id", "cells"} of each."""
        vectors_NE = np.ascontiguousarray(vectors_NE, dtype="<f4")
        assert vectors_NE.shape == (len(rows), self.dim)
        if not len(rows):
            return
        self.graph.add(np.arange(self.rows, self.rows + len(rows), dtype=np.uint64), vectors_NE, threads=1)
        self._vectors.write(vectors_NE.tobytes())
        for row in rows:
            self._offsets.write(self._rows.tell().to_bytes(8, "little"))
            self._rows.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n")
        self.rows += len(rows)

    def close(self) -> None:
        for file in (self._vectors, self._rows, self._offsets):
            file.close()

    def drop(self) -> None:
        self.close()
        shutil.rmtree(self.new, ignore_errors=True)

    def seal(self, about: Mapping[str, Any]) -> Index:
        """`about`: what index.json says beside format, dim, rows and members."""
        self.close()
        self.graph.save(str(self.new / GRAPH))
        members = {
            name: {"sha256": sha256_of(self.new / name), "bytes": (self.new / name).stat().st_size} for name in MEMBERS
        }
        head = {"format": FORMAT, "dim": self.dim, "rows": self.rows}
        write_json(self.new / MANIFEST, {**head, **about, "members": members})
        replace_folder(self.new, self.target)
        return read_index(self.target)


class Index:
    """A verified index. Thread-safe. Make it with :func:`read_index`."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.rows, self.dim = int(manifest["rows"]), int(manifest["dim"])
        self.package, self.version = str(manifest["package"]["name"]), str(manifest["package"]["version"])
        self.side = str(manifest["side"])
        self.vectors_NE: np.ndarray = np.memmap(folder / VECTORS, "<f4", "r", shape=(self.rows, self.dim))
        self._offsets_N: np.ndarray = np.memmap(folder / OFFSETS, "<u8", "r")
        self._lines: np.ndarray = np.memmap(folder / ROWS, np.uint8, "r")
        self._graph: Any = None
        self._lock = threading.Lock()

    def nearest(self, query_QE: np.ndarray, k: int, *, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Places in the index and cosines of the k nearest, best first, both (Q, min(k, N)).

        `exact`: look at every vector; else the graph is walked, which finds nearly all of them in far less time.
        """
        query_QE = unit(query_QE)
        assert query_QE.shape[1] == self.dim
        k = min(k, self.rows)
        if k == 0 or not len(query_QE):
            return np.empty((len(query_QE), k), np.int64), np.empty((len(query_QE), k), np.float32)
        if exact:
            return self._all(query_QE, k)
        with self._lock:  # a walk takes microseconds, and the graph has a fixed number of walkers
            if self._graph is None:
                self._graph = _usearch().Index.restore(str(self.folder / GRAPH), view=True)
                if self._graph is None or self._graph.ndim != self.dim or len(self._graph) != self.rows:
                    raise _broken(f"{GRAPH} does not belong to this index")
            self._graph.expansion_search = max(EXPANSION_SEARCH, 2 * k)
            found = self._graph.search(query_QE, k, threads=1)
        places_QK = np.asarray(found.keys).reshape(len(query_QE), -1).astype(np.int64)
        # By our own arithmetic, so that exact and not exact give a row the same score.
        scores_QK = np.einsum("qe,qke->qk", query_QE, self.vectors_NE[places_QK])
        order_QK = np.argsort(-scores_QK, axis=1, kind="stable")
        return np.take_along_axis(places_QK, order_QK, 1), np.take_along_axis(scores_QK, order_QK, 1)

    def _all(self, query_QE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Of equal cosines the first row's comes first."""
        places: np.ndarray = np.empty((len(query_QE), 0), np.int64)
        scores: np.ndarray = np.empty((len(query_QE), 0), np.float32)
        step = max(k, CELLS // max(1, len(query_QE)))
        for start in range(0, self.rows, step):
            some = query_QE @ self.vectors_NE[start : start + step].T
            own = np.broadcast_to(np.arange(start, start + some.shape[1]), some.shape)
            best = np.stack([_highest(row, k) for row in some])
            scores = np.concatenate([scores, np.take_along_axis(some, best, 1)], axis=1)
            places = np.concatenate([places, np.take_along_axis(own, best, 1)], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)

    def kept(self, place: int) -> dict[str, Any]:
        """{"row", "id", "cells"} of a row."""
        start = int(self._offsets_N[place])
        stop = int(self._offsets_N[place + 1]) if place + 1 < self.rows else len(self._lines)
        return dict(json.loads(self._lines[start:stop].tobytes()))

    def hits(self, query_QE: np.ndarray, k: int, *, exact: bool = False) -> list[list[Hit]]:
        places_QK, scores_QK = self.nearest(query_QE, k, exact=exact)
        return [
            [Hit(score=round(float(s), 6), **self.kept(int(p))) for p, s in zip(places, scores, strict=True)]
            for places, scores in zip(places_QK, scores_QK, strict=True)
        ]

    def require(self, name: str, version: str) -> None:
        """Raises FuselineError ``other_package`` where the index was made by another model than this one."""
        if version != self.version:
            raise FuselineError(
                "other_package",
                f"{self.folder} was made by {self.package} version {self.version}, not by {name} version {version}: "
                "their vectors have nothing to do with each other",
                "make the index anew with `fuseline index`",
            )


def _highest(scores_N: np.ndarray, k: int) -> np.ndarray:
    """Places of the k highest, or of all, best first; sorts only those that may be among them."""
    if k >= len(scores_N):
        return np.argsort(-scores_N, kind="stable")
    least = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
    near = np.flatnonzero(scores_N >= least)
    return np.asarray(near[np.argsort(-scores_N[near], kind="stable")][:k])


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 of length 1 along the last axis; a vector of zeros stays."""
    vectors = np.asarray(vectors, dtype=np.float32)
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=-1, keepdims=True))
    out: np.ndarray = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return out


def _broken(message: str) -> FuselineError:
    return FuselineError("bad_index", message, "make the index anew with `fuseline index`")


def read_index(folder: str | Path) -> Index:
    """Open and verify. Raises FuselineError ``no_such_file``, ``bad_index``, ``index_version``."""
    folder = settle(Path(folder))
    if not (folder / MANIFEST).is_file():
        raise FuselineError("no_such_file", f"no index at {folder}", "make one with `fuseline index`")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            newer = f"it has format {manifest['format']}, this fuseline reads {FORMAT}"
            raise FuselineError("index_version", f"{folder}: {newer}", "make the index anew with `fuseline index`")
        members, rows, dim = manifest["members"], int(manifest["rows"]), int(manifest["dim"])
        known = {name: (str(one["sha256"]), int(one["bytes"])) for name, one in members.items()}
        _ = str(manifest["side"]), str(manifest["package"]["version"]), str(manifest["package"]["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _broken(f"{folder / MANIFEST} is not laid out as an index's") from None
    if set(known) != set(MEMBERS) or rows < 1 or dim < 1:
        raise _broken(f"{folder / MANIFEST} is not laid out as an index's")
    for name, (digest, size) in known.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise _broken(f"{path} is missing")
        if path.stat().st_size != size or sha256_of(path) != digest:
            raise _broken(f"{path} is not the file that was written")
    if known[VECTORS][1] != 4 * rows * dim or known[OFFSETS][1] != 8 * rows:
        raise _broken(f"{folder / MANIFEST} counts other rows than there are")
    return Index(folder, manifest)
