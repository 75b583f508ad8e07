"""Keeps what was costly to make: decoded media and frozen encoders' tokens; bounded in bytes, least used out first."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fuseline.modalities import MediaRoot

if TYPE_CHECKING:
    from fuseline.lab.training.disk.store import Store

DIGESTS = 200_000
"""cells whose decoded content's digest is remembered, in some 100 MB; others are decoded again to know theirs"""


class Kept(NamedTuple):
    """A frozen encoder's tokens of one cell, without padding."""

    values_TD: np.ndarray
    mask_T: np.ndarray
    aside: Mapping[str, np.ndarray] = MappingProxyType({})
    """what it hands to the head beside them"""


class Cache:
    """A thread-safe LRU of bytes-counted values. One may serve many runs: folds and searches share their cells.

    `store`: where frozen encoders' tokens are kept on disk, behind it. None: they are kept in memory, among the rest.
    """

    def __init__(self, megabytes: int, store: Store | None = None) -> None:
        self.store = store
        self.limit = megabytes * 2**20
        self.used = 0
        self.evicted = 0
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._digests: dict[Hashable, bytes] = {}
        self._lock = threading.Lock()

    @property
    def crowded(self) -> bool:
        """Whether even the tokens of frozen encoders push each other out (decoded media go first)."""
        return not any(not isinstance(v, Kept) for v, _ in self._items.values())

    def digest(self, key: Hashable) -> bytes | None:
        """The digest of what a cell's decoding gave, where it is known without decoding."""
        return self._digests.get(key)

    def remember(self, key: Hashable, digest: bytes) -> None:
        if len(self._digests) < DIGESTS:
            self._digests[key] = digest

    def get(self, key: Hashable) -> Any | None:
        with self._lock:
            hit = self._items.get(key)
            if hit is None:
                return None
            self._items.move_to_end(key)
            return hit[0]

    def put(self, key: Hashable, value: Any) -> None:
        size = _bytes(value) + 200
        if size > self.limit:
            return
        with self._lock:
            old = self._items.pop(key, None)
            self.used += size - (old[1] if old else 0)
            self._items[key] = (value, size)
            while self.used > self.limit:
                _, (_, freed) = self._items.popitem(last=False)
                self.used -= freed
                self.evicted += 1


def _bytes(value: Any) -> int:
    if isinstance(value, Kept):
        return value.values_TD.nbytes + value.mask_T.nbytes + sum(a.nbytes for a in value.aside.values())
    return int(getattr(value, "nbytes", 500))  # an array, a clip, a set of them


def cell_key(cells: Mapping[str, Any], media: MediaRoot) -> Hashable:
    """What tells two cells apart without reading their files: the bytes, or the path with its time and size."""
    return _key(cells.values(), media)


def _key(cells: Iterable[Any], media: MediaRoot) -> Hashable:
    parts: list[Hashable] = []
    for cell in cells:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, (bytes, bytearray)):
            parts.append(hashlib.blake2b(cell, digest_size=16).digest())
        elif isinstance(cell, (list, tuple)):
            parts.append(("list", _key(cell, media)))
        elif isinstance(cell, str) and len(cell) < 1024 and media.folder is not None:
            try:
                stat = os.stat(Path(media.folder) / cell)
                parts.append((media.folder, cell, stat.st_mtime_ns, stat.st_size))
            except (OSError, ValueError):
                parts.append((media.folder, cell))  # it may name files all the same: a list of them
        else:
            parts.append(cell if isinstance(cell, Hashable) else repr(cell))
    return tuple(parts)
