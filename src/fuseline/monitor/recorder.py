"""A sampled, size-bounded log of what was served, as Parquet: statistics of inputs and answers, never the cells.

A file is whole or it is not there: each is written beside its place and renamed. A kill loses what came since the last
flush. Later labels find their rows by request id and row number.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fuseline.errors import FuselineError
from fuseline.monitor.seen import OPEN, Redaction, kept_stats, records, table

if TYPE_CHECKING:
    from fuseline.serve.calls import Call, Event, ModelInfo

log = logging.getLogger(__name__)

QUEUE = 1000
"""requests waiting to be written; more are dropped, and counted"""
FILE_BYTES = 2 * 2**20
"""a file is added to until it is so large"""
HALF_WRITTEN = 3600.0
"""seconds after which an unfinished file is taken for the leftover of a killed server"""
HELD = 5000
"""rows that are written without waiting for the interval"""
NOT_RECORDED = ("warmup",)
_Rows = tuple[tuple[str, str], list[dict[str, Any]]]


class Recorder:
    """An observer that writes the log. Its thread ends with :meth:`close`.

    Args:
        folder: of the log; made where it is not there.
        share: of the requests, chosen by a keyed hash of the request id, so that all rows of one go together.
        megabytes: of all files together; the oldest are deleted.
        redaction: what is left out.
        seconds: between two writes.
        seed: of the hash. Default: a secret one, so that no caller can choose an id that is (or is never) recorded.

    Raises FuselineError ``bad_folder`` where the folder cannot be written.
    """

    name = "recorder"

    def __init__(
        self,
        folder: str | Path,
        *,
        share: float = 0.1,
        megabytes: float = 500.0,
        redaction: Redaction = OPEN,
        seconds: float = 30.0,
        seed: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.share, self.megabytes, self.redaction, self.seconds = share, megabytes, redaction, seconds
        self._key = hashlib.blake2b((secrets.token_hex() if seed is None else seed).encode()).digest()
        self._models: dict[tuple[str, str], ModelInfo] = {}
        self._kinds: dict[tuple[str, str], dict[str, str]] = {}
        self._queue: queue.Queue[_Rows | None] = queue.Queue(QUEUE)
        self._files: dict[tuple[str, str], Path] = {}
        self._mark, self._number = secrets.token_hex(4), 0
        self._counts = {"recorded": 0, "dropped": 0, "failed": 0}
        self._failure = ""
        self._closed = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob("*.parquet.new"):
                if time.time() - left.stat().st_mtime > HALF_WRITTEN:
                    left.unlink(missing_ok=True)
            probe = self.folder / f".write-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise FuselineError(
                "bad_folder", f"the log cannot be written to {self.folder}: {error.strerror}", "choose another folder"
            ) from None
        self._thread = threading.Thread(target=self._work, name="fuseline-recorder", daemon=True)
        self._thread.start()

    def sampled(self, request: str) -> bool:
        """Whether a request is recorded: the same answer for the same id as long as the recorder lives."""
        digest = hashlib.blake2b(request.encode("utf-8", "replace"), key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * 2**64

    def wants(self, call: Call) -> bool:
        return call.door not in NOT_RECORDED and self.sampled(call.id)

    def loaded(self, info: ModelInfo) -> None:
        self._models[info.name, info.version] = info
        self._kinds[info.name, info.version] = kept_stats(info.profile, self.redaction)

    def unloaded(self, model: str, version: str) -> None:
        """Its rows that wait are still written; later ones are dropped, and counted."""
        self._models.pop((model, version), None)

    def ended(self, event: Event) -> None:
        if self._closed or not event.rows or not self.wants(event.call):
            return
        key = (event.call.model, event.version)
        info = self._models.get(key)
        if info is None:
            self._counts["dropped"] += len(event.rows)
            return
        # Only the records wait to be written: an event holds its request's pictures and sounds.
        found = records(event, info, self.redaction)
        try:
            self._queue.put_nowait((key, found))
        except queue.Full:
            self._counts["dropped"] += len(found)

    def status(self) -> dict[str, Any]:
        """Rows recorded, dropped because the queue was full, and failed to be written; and why."""
        return {**self._counts, "share": self.share, "failure": self._failure}

    def close(self) -> None:
        """Write what is left. Events that come later are not recorded."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        held: dict[tuple[str, str], list[dict[str, Any]]] = {}
        last = time.monotonic()
        ended = False
        while not ended:
            try:
                item = self._queue.get(timeout=max(0.01, last + self.seconds - time.monotonic()))
                if item is None:
                    ended = True
                else:
                    held.setdefault(item[0], []).extend(item[1])
            except queue.Empty:
                pass
            if ended or sum(map(len, held.values())) >= HELD or time.monotonic() - last >= self.seconds:
                self._flush(held)
                held, last = {}, time.monotonic()

    def _flush(self, rows: Mapping[tuple[str, str], list[dict[str, Any]]]) -> None:
        for key, found in rows.items():
            try:
                if found:
                    self._append(key, found)
                self._counts["recorded"] += len(found)
                self._failure = ""
            except Exception as error:  # a full disk, a folder taken away: serving goes on, and status() says it
                self._counts["failed"] += len(found)
                self._failure = f"{type(error).__name__}: {error}"
                self._files.pop(key, None)
                log.warning("%d rows could not be recorded: %s", len(found), self._failure)
        if rows:
            with contextlib.suppress(OSError):  # somebody else's files in the folder, say
                self._forget()

    def _append(self, key: tuple[str, str], rows: list[dict[str, Any]]) -> None:
        frame = table(rows, self._kinds[key])
        path = self._files.get(key)
        if path is not None and path.exists() and path.stat().st_size < FILE_BYTES:
            frame = pl.concat([pl.read_parquet(path, memory_map=False), frame], how="diagonal")
        else:
            self._number += 1
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            path = self._files[key] = self.folder / f"{stamp}-{self._mark}-{self._number:06d}.parquet"
        new = path.with_name(path.name + ".new")
        try:
            with new.open("wb") as file:
                frame.write_parquet(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)

    def _forget(self) -> None:
        """Delete the oldest files beyond the bound."""
        files = []
        for path in self.folder.glob("*.parquet"):
            try:
                stat = path.stat()
            except OSError:
                continue
            files.append((stat.st_mtime, path, stat.st_size))
        total = sum(size for _, _, size in files)
        for _, path, size in sorted(files):
            if total <= self.megabytes * 2**20:
                break
            path.unlink(missing_ok=True)
            total -= size
