"""One encoder's tokens in the store: a folder of segments, and in memory where each record stands."""

from __future__ import annotations

import os
import secrets
import threading
import time
from pathlib import Path
from typing import Protocol

from fuseline.lab.training.cache import Kept
from fuseline.lab.training.disk.record import DamagedError, pack, unpack
from fuseline.lab.training.disk.segment import DATA, Segment, remove

PAUSE = 1.0
"""seconds between two looks at what other processes have written"""


class Budget(Protocol):
    """What a shelf asks and tells its store."""

    segment_bytes: int

    def room(self, size: int) -> bool:
        """Whether so many bytes more may be written; makes room where it can."""
        ...

    def used(self, segment: Segment) -> None: ...

    def hit(self, size: int) -> None: ...

    def wrote(self, size: int) -> None: ...

    def damaged(self) -> None: ...

    def stop(self, error: OSError) -> None:
        """Nothing more can be written."""
        ...


class Shelf:
    """Thread-safe. Keys are digests of what the encoder was given."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.folder, self.budget = folder, budget
        self._lock = threading.RLock()
        self._segments: dict[str, Segment] = {}
        self._places: dict[bytes, tuple[Segment, int, int]] = {}
        self._verified: set[bytes] = set()
        self._own: Segment | None = None
        self._own_places: list[tuple[bytes, int, int]] = []
        self._flushed = 0
        self._looked = -PAUSE
        self.look()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> Kept | None:
        """The tokens as read-only views of the file, verified the first time; None where there are none, or what was
        there is damaged."""
        with self._lock:
            if key not in self._places and time.monotonic() - self._looked > PAUSE:
                self.look()
            place = self._places.get(key)
            if place is None:
                return None
            segment, at, size = place
            try:
                kept = unpack(segment.read(at, size), key, verify=key not in self._verified)
            except (DamagedError, OSError):
                self._drop(segment)
                self.budget.damaged()
                return None
            self._verified.add(key)
            self.budget.used(segment)
        self.budget.hit(size)
        return kept

    def put(self, key: bytes, kept: Kept) -> bool:
        """Whether it is on disk now."""
        record = pack(key, kept)
        with self._lock:
            if key in self._places:
                return True
            own = self._writable(len(record))
            if own is None:
                return False
            try:
                at = own.append(record)
            except OSError as error:
                self.budget.stop(error)
                return False
            self._places[key] = (own, at, len(record))
            self._own_places.append((key, at, len(record)))
            self.budget.used(own)
        self.budget.wrote(len(record))
        return True

    def look(self) -> None:
        """Learn of what stands in the folder, written by whomever."""
        with self._lock:
            self._looked = time.monotonic()
            try:
                names = sorted(p.name for p in self.folder.iterdir() if p.suffix == DATA)
            except OSError:
                return
            for name in names:  # begun earlier first: of two records of one key the later one is taken
                if name not in self._segments:
                    try:
                        self._segments[name] = Segment(self.folder / name)
                    except OSError:
                        continue
                segment = self._segments[name]
                if segment is not self._own:
                    self._places |= {key: (segment, at, size) for key, at, size in segment.found()}

    def flush(self) -> None:
        """Write down where the records of the file being written are, so that the next process need not search it."""
        with self._lock:
            if self._own is not None and len(self._own_places) != self._flushed:
                self._own.write_index(self._own_places)
                self._flushed = len(self._own_places)

    def _writable(self, size: int) -> Segment | None:
        """The file that this process writes: left when it is full, begun where there is none to go on with."""
        if not self.budget.room(size):
            return None
        if self._own is not None and self._own.end and self._own.end + size > self.budget.segment_bytes:
            self._leave()
        if self._own is None:
            try:
                self._own = self._adopted(size) or self._begun()
            except OSError as error:
                self.budget.stop(error)
        return self._own

    def _adopted(self, size: int) -> Segment | None:
        """A file that an earlier process left unfinished, so that many short runs do not make many files."""
        for name, known in self._segments.items():
            try:
                if known.size() + size > self.budget.segment_bytes:
                    continue
                segment = Segment(self.folder / name, write=True)
            except OSError:  # another process writes it, or it is gone
                continue
            self._own_places, self._flushed = list(segment.found()), 0
            segment.cut()
            self._places |= {key: (segment, at, size) for key, at, size in self._own_places}
            self._segments[name] = segment
            return segment
        return None

    def _begun(self) -> Segment:
        self.folder.mkdir(parents=True, exist_ok=True)  # may have been removed when it was empty
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}{DATA}"
        segment = self._segments[name] = Segment.new(self.folder / name)
        self._own_places, self._flushed = [], 0
        return segment

    def _leave(self) -> None:
        assert self._own is not None
        self.flush()
        self._own.unlock()
        self._own = None

    def _drop(self, segment: Segment) -> None:
        """Nothing of a damaged file is believed: its tokens are computed again."""
        if segment is self._own:
            self._leave()
        for key in [key for key, place in self._places.items() if place[0] is segment]:
            del self._places[key]
            self._verified.discard(key)
        remove(segment.path)
        self._segments = {name: s for name, s in self._segments.items() if s is not segment}
