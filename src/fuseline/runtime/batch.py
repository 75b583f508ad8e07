"""Answers for a large table: in parts, in bounded memory; a killed run goes on behind its last whole part."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fuseline.data.table import Table
from fuseline.data.windows import which
from fuseline.errors import FuselineError, unknown_kind
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import Parsed
from fuseline.package.files import sha256_of
from fuseline.progress import Voice
from fuseline.runtime.backend import cpu_quota
from fuseline.runtime.bucket import WINDOW, by_length
from fuseline.runtime.parts import Parts, frame_of
from fuseline.runtime.predictor import Answer, Predictor

log = logging.getLogger(__name__)

ENGINES = ("local", "ray")
HASHED_BYTES = 256 * 2**20
"""a table file up to this size is known by its content, a larger one by its size and time of change"""


@dataclass(frozen=True)
class Job:
    """What is read and how. Travels to other processes: a table in a file is opened there anew."""

    table: Table
    columns: tuple[str, ...]
    """that the package reads and the table has"""
    media: MediaRoot
    batch_size: int


class Shard(NamedTuple):
    part: int
    start: int
    stop: int


class Scorer:
    """Answers ranges of a job's rows with one predictor. Memory: a window of decoded rows and a range of answers."""

    def __init__(self, predictor: Predictor, job: Job, threads: int) -> None:
        self.predictor, self.job = predictor, job
        self._decoders = ThreadPoolExecutor(threads, "decode")

    def close(self) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def score(self, start: int, stop: int) -> pl.DataFrame:
        """Rows [start, stop) as :func:`fuseline.runtime.parts.frame_of` lays them out."""
        answers: list[Answer] = []
        size = WINDOW * self.job.batch_size
        for first in range(start, stop, size):
            answers += self._window(first, min(first + size, stop))
        frame = frame_of(self.predictor.task, start, answers, sure=self.predictor.sure is not None)
        return frame.hstack(which(self.job.table, start, stop))

    def _window(self, start: int, stop: int) -> list[Answer]:
        columns = self.job.columns
        places = range(start, stop)
        rows: list[dict[str, Any]] = [{} for _ in places]
        if columns:
            rows = Table.rows(self.job.table.take(np.arange(start, stop), columns))
        parsed = list(self._decoders.map(self._decode, rows, places))
        answers = [Answer(error=p.error, notes=p.notes) for p in parsed]
        for batch in by_length(self.predictor.rows.modalities, parsed, self.job.batch_size):
            for i, answer in zip(batch, self._answer([parsed[i] for i in batch]), strict=True):
                if answer.error is not None:
                    answer.error.at(start + i)
                answers[i] = answer
        return answers

    def _decode(self, row: dict[str, Any], place: int) -> Parsed:
        try:
            return self.predictor.rows.parse(row, self.job.media, place)
        except Exception as error:  # a defect of ours; hours of other rows shall not be lost to it
            log.exception("row %d could not be read", place)
            return Parsed(error=FuselineError("bad_rows", f"could not be read ({type(error).__name__})", row=place))

    def _answer(self, parsed: Sequence[Parsed]) -> list[Answer]:
        try:
            return self.predictor.answer(parsed)
        except Exception as error:  # one row of these is the cause; alone, it fails alone
            if len(parsed) > 1:
                return [answer for p in parsed for answer in self._answer([p])]
            log.warning("a row could not be computed: %s", error)
            return [Answer(error=FuselineError("bad_rows", "the model could not compute this row"))]


def score_table(
    predictor: Predictor,
    table: Table,
    out: Path,
    *,
    columns: Sequence[str],
    media: MediaRoot,
    fingerprint: str,
    absent: Sequence[str] = (),
    engine: str = "local",
    workers: int | None = None,
    batch_size: int = 32,
    shard_rows: int = 10_000,
    resume: bool = True,
    voice: Voice,
) -> dict[str, int]:
    """Answer every row of `table` into part files of `out`. See :func:`fuseline.api.batch`.

    Args:
        predictor: the model; on Ray its package is opened by every worker.
        table: the rows.
        out: a folder of its own.
        columns: those that are read.
        media: where file cells lie.
        fingerprint: of the table, see :func:`fingerprint_of`.
        absent: what the caller left out of `columns`; part of what the answers are made from.
        engine: local or ray.
        workers: processes of the Ray engine. Default: one a core.
        batch_size: rows run at once.
        shard_rows: rows of a part.
        resume: go on with what the folder holds; else it is thrown away.
        voice: told how far it is.

    Returns counts: rows, errors (rows without an answer), parts, kept (parts that were there before).
    """
    if engine not in ENGINES:
        raise unknown_kind("engine", engine, ENGINES)
    if workers is not None and engine == "local":
        raise FuselineError("bad_usage", "--workers is of the Ray engine", "the local engine uses every core by itself")
    parts = Parts(out.resolve())
    parts.check()
    made_from = {
        "package": f"{predictor.package.name} {predictor.package.version}",
        "table": fingerprint,
        "rows": table.n_rows,
        "shard_rows": shard_rows,
        "batch_size": batch_size,
        "absent": sorted(absent),
    }
    parts.begin(made_from, resume=resume)
    starts = range(0, table.n_rows, shard_rows)
    shards = [Shard(i, start, min(start + shard_rows, table.n_rows)) for i, start in enumerate(starts)]
    todo = [s for s in shards if not parts.is_whole(s.part, s.stop - s.start)]
    kept = {s.part for s in shards} - {s.part for s in todo}
    if kept:
        voice.say(f"{len(kept)} of {len(shards)} parts are there already")
    counts = {"rows": table.n_rows, "errors": sum(map(parts.errors, kept)), "parts": len(shards), "kept": len(kept)}
    root = None if media.folder is None else str(Path(media.folder).resolve())
    job = Job(table, tuple(columns), MediaRoot(root), batch_size)
    with (
        closing(_run(engine, predictor, job, parts, todo, workers)) as running,
        voice.track("answering", sum(s.stop - s.start for s in todo)) as advance,
    ):
        for rows, errors in running:
            counts["errors"] += errors
            advance(rows, f"{counts['errors']} errors" if counts["errors"] else "")
    parts.end({k: counts[k] for k in ("errors", "parts")})
    return counts


def _run(
    engine: str, predictor: Predictor, job: Job, parts: Parts, todo: Sequence[Shard], workers: int | None
) -> Generator[tuple[int, int]]:
    """Write the parts; gives (rows, errors) of each as it is done."""
    if not todo:
        return
    if engine == "ray":
        from fuseline.runtime.ray_data import on_ray_data

        yield from on_ray_data(predictor.package, job, parts, todo, workers)
        return
    with closing(Scorer(predictor, job, cpu_quota())) as scorer:
        for shard in todo:
            frame = scorer.score(shard.start, shard.stop)
            parts.write(shard.part, frame)
            yield frame.height, frame.height - frame["error"].null_count()


def fingerprint_of(source: Any, table: Table) -> str:
    """Tells tables apart, so that no run goes on with the answers of another. Files that cells name are not looked at.

    A file up to 256 MB, or a table in memory: its content. A larger file: its size and time of change.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        status = path.stat()
        if status.st_size > HASHED_BYTES:
            return f"{status.st_size} bytes of {status.st_mtime_ns}"
        return f"sha256 {sha256_of(path)}"
    hashed = hashlib.sha256()
    for _, frame in table.batches(size=4096):
        buffer = io.BytesIO()
        frame.write_ipc(buffer)
        hashed.update(buffer.getbuffer())
    return f"sha256 {hashed.hexdigest()}"
