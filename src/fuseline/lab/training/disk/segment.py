"""One file of records, written by one process at a time and read by many.

`NAME.tokens` only grows. `NAME.index` beside it says where the records of its first bytes are, and is replaced whole;
what the file holds behind those bytes is found by going from head to head, until one is torn. A kill at any moment
therefore costs at most the record that was being written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuseline.lab.training.disk.record import HEAD, KEY, MAGIC, read_head

DATA, INDEX = ".tokens", ".index"
_INDEX_HEAD = struct.Struct("<4sQQ32s")
_ENTRY = np.dtype([("key", f"V{KEY}"), ("at", "<u8"), ("size", "<u8")])


class Segment:
    """Not thread-safe: its shelf holds a lock."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Open a file that is there. `write`: only where nobody else writes it.

        Raises:
            OSError: where it is gone, or another process writes it.
        """
        self.path = path
        self.end = 0
        """bytes whose records are known"""
        self._map: mmap.mmap | None = None
        self._file = os.open(path, os.O_RDWR if write else os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if write:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def new(cls, path: Path) -> Segment:
        """An empty file for this process to write."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return cls(path, write=True)

    def size(self) -> int:
        return os.fstat(self._file).st_size

    def found(self) -> Iterator[tuple[bytes, int, int]]:
        """(key, place, size) of the records behind what was found before, e.g. because another process goes on
        writing."""
        if self.end == 0:
            yield from self._indexed()
        size = self.size()
        while self.end + HEAD <= size:
            try:
                head = read_head(os.pread(self._file, HEAD, self.end))
            except OSError:  # no file, or a failing disk
                return
            if head is None or self.end + head.size > size:
                return
            at, self.end = self.end, self.end + head.size
            yield head.key, at, head.size

    def _indexed(self) -> Iterator[tuple[bytes, int, int]]:
        """What the index says, if it is whole and the file is as long as it says."""
        try:
            data = self.path.with_suffix(INDEX).read_bytes()
        except OSError:
            return
        if len(data) < _INDEX_HEAD.size:
            return
        magic, covers, count, check = _INDEX_HEAD.unpack_from(data)
        body = data[_INDEX_HEAD.size :]
        if (magic, check) != (MAGIC, _checked(covers, body)) or len(body) != count * _ENTRY.itemsize:
            return
        if covers > self.size():
            return
        self.end = covers
        yield from np.frombuffer(body, _ENTRY).tolist()

    def read(self, at: int, size: int) -> memoryview:
        """A record's bytes: mapped, or where the map does not reach yet, copied.

        A file that grows is mapped anew only when it has doubled, so that few maps of it are ever held.

        Raises:
            OSError: on a failing disk.
        """
        if self._map is None or (at + size > len(self._map) and self.size() >= 2 * len(self._map)):
            with contextlib.suppress(ValueError):  # an empty file cannot be mapped
                self._map = mmap.mmap(self._file, self.size(), prot=mmap.PROT_READ)
        if self._map is not None and at + size <= len(self._map):
            return memoryview(self._map)[at : at + size]
        return memoryview(os.pread(self._file, size, at))

    def append(self, record: bytes) -> int:
        """Write a record behind the last whole one; returns its place.

        Raises:
            OSError: where the disk is full; the file is then as it was.
        """
        at = self.end
        try:
            written = 0
            while written < len(record):
                written += os.pwrite(self._file, memoryview(record)[written:], at + written)
        except OSError:
            os.ftruncate(self._file, at)
            raise
        self.end = at + len(record)
        return at

    def cut(self) -> None:
        """Before writing to a file that a killed process left: what is torn at its end is no record of anyone's."""
        if self.size() > self.end:
            os.ftruncate(self._file, self.end)

    def write_index(self, entries: list[tuple[bytes, int, int]]) -> None:
        """`entries`: all records up to `end`."""
        body = np.array(entries, dtype=_ENTRY).tobytes()
        head = _INDEX_HEAD.pack(MAGIC, self.end, len(entries), _checked(self.end, body))
        new = self.path.with_suffix(f"{INDEX}.{os.getpid()}")
        try:
            new.write_bytes(head + body)
            os.replace(new, self.path.with_suffix(INDEX))
        except OSError:  # it saves time only
            new.unlink(missing_ok=True)

    def touch(self) -> None:
        """Used now: what is used last is removed last."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def unlock(self) -> None:
        """Stop writing; another process may go on."""
        fcntl.flock(self._file, fcntl.LOCK_UN)


def is_written(path: Path) -> bool:
    """Whether some process writes this file now."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: better kept than lost
        return True
    finally:
        os.close(file)


def remove(path: Path) -> None:
    """A file and its index. Who has it mapped keeps what they see."""
    left = path.parent.glob(f"{path.stem}{INDEX}.*")  # of processes killed while they wrote an index
    for name in (path.with_suffix(INDEX), path, *left):
        with contextlib.suppress(OSError):
            name.unlink()


def _checked(covers: int, body: bytes) -> bytes:
    return hashlib.blake2b(struct.pack("<Q", covers) + body, digest_size=32).digest()
