"""The store of frozen encoders' tokens: a folder for every encoder, and one bound for all of them.

The bound is in bytes. Before more is written than it allows, whole files go, those that no run has used for the longest
first; never one that this run has used, nor one that another process is writing. Where nothing can go, nothing more is
written. Processes count every 1/64 of the bound: several that write at once may pass it by that much each.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.lab.training.disk.segment import DATA, INDEX, Segment, is_written, remove
from fuseline.lab.training.disk.shelf import Shelf
from fuseline.package.files import write_json

ABOUT = "about.json"
MARK = "CACHEDIR.TAG"
"""tells backup programs to pass over the folder (bford.info/cachedir)"""
_MARK_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# frozen encoders' outputs, kept by fuseline; safe to delete\n"
)
_LARGEST = 256 * 2**20
_SMALLEST = 64 * 2**10


@dataclass(frozen=True)
class Counts:
    """What a store did since it was opened."""

    hits: int = 0
    hit_bytes: int = 0
    written: int = 0
    written_bytes: int = 0
    damaged: int = 0

    def since(self, before: Counts) -> Counts:
        return Counts(*(a - b for a, b in zip(vars(self).values(), vars(before).values(), strict=True)))


class Store:
    """Thread-safe; several processes may use one folder. Nothing in it is trusted unread: see `record.unpack`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        """Raises FuselineError ``cannot_write`` where the folder can neither be made nor written."""
        self.folder = folder
        self.limit = megabytes * 2**20
        self.segment_bytes = min(max(self.limit // 16, _SMALLEST), _LARGEST)
        self.counts = Counts()
        self.trouble = ""
        """why nothing more is written; empty: it is"""
        self._shelves: dict[str, Shelf] = {}
        self._used: set[Path] = set()
        self._granted = 0
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13))
            if not (folder / MARK).exists():
                (folder / MARK).write_text(_MARK_TEXT, encoding="ascii")
        except OSError as error:
            raise FuselineError(
                "cannot_write",
                f"{folder} cannot hold frozen encoders' outputs: {error.strerror}",
                "set training.cache_folder to another folder, or to off",
            ) from None

    def begin(self) -> None:
        """A new run: what the last one used may go."""
        with self._lock:
            self._used.clear()
            self._granted, self.trouble = 0, ""

    def shelf(self, key: str, about: Mapping[str, Any]) -> Shelf:
        """The place of one encoder's tokens. `key`: a digest of all that decides what it gives for an array."""
        if key not in self._shelves:
            folder = self.folder / key[:40]
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                if not (folder / ABOUT).exists():
                    write_json(folder / ABOUT, dict(about))
            self._shelves[key] = Shelf(folder, self)
        return self._shelves[key]

    def flush(self) -> None:
        for shelf in self._shelves.values():
            shelf.flush()

    def room(self, size: int) -> bool:
        with self._lock:
            if self.trouble:
                return False
            self._granted -= size
            if self._granted >= 0:
                return True
            step = max(self.limit // 64, size)
            if not self._freed(step):
                self.trouble = f"the {self.limit >> 20} MB of training.cache_disk_mb are full"
                return False
            self._granted = step - size
            return True

    def _freed(self, wanted: int) -> bool:
        """Whether `wanted` bytes fit, after removing what was used longest ago."""
        files = sorted(files_in(self.folder), key=lambda file: file[1])
        total = sum(size for _, _, size in files)
        for path, _, size in files:
            if total + wanted <= self.limit:
                return True
            if path not in self._used and not is_written(path):
                remove(path)
                _remove_if_empty(path.parent)
                total -= size
        return total + wanted <= self.limit

    def used(self, segment: Segment) -> None:
        if segment.path not in self._used:
            with self._lock:
                self._used.add(segment.path)
            segment.touch()

    def hit(self, size: int) -> None:
        self._count(hits=1, hit_bytes=size)

    def wrote(self, size: int) -> None:
        self._count(written=1, written_bytes=size)

    def damaged(self) -> None:
        self._count(damaged=1)

    def _count(self, **more: int) -> None:
        with self._lock:
            self.counts = replace(self.counts, **{k: getattr(self.counts, k) + n for k, n in more.items()})

    def stop(self, error: OSError) -> None:
        self.trouble = f"{self.folder} cannot be written: {error.strerror}"


def files_in(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """(path, when it was last used, bytes with its index) of every file of records."""
    for path in folder.glob(f"*/*{DATA}"):
        with contextlib.suppress(OSError):
            status, index = path.stat(), path.with_suffix(INDEX)
            yield path, status.st_mtime, status.st_size + (index.stat().st_size if index.exists() else 0)


def listed(folder: Path) -> list[dict[str, Any]]:
    """What a store's folder holds, an entry an encoder: what it is, its `bytes`, when it was `used` (since 1970)."""
    found: dict[Path, dict[str, Any]] = {}
    for path, used, size in files_in(folder):
        if path.parent not in found:
            about: Any = None
            with contextlib.suppress(OSError, ValueError):
                about = json.loads((path.parent / ABOUT).read_text(encoding="utf-8"))
            own = {k: str(v) for k, v in about.items()} if isinstance(about, dict) else {}
            found[path.parent] = {**own, "bytes": 0, "used": 0.0}
        entry = found[path.parent]
        entry["bytes"] += size
        entry["used"] = max(entry["used"], used)
    return sorted(found.values(), key=lambda entry: -entry["used"])


def clear(folder: Path) -> int:
    """Remove all records; returns the bytes. A run that is using them goes on with what it has open."""
    freed = 0
    for path, _, size in list(files_in(folder)):
        remove(path)
        freed += size
        _remove_if_empty(path.parent)
    return freed


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if not any(path.suffix == DATA for path in folder.iterdir()):
            shutil.rmtree(folder)
