"""One loaded package at work: rows are decoded in threads, wait for company, run as batches, and go back to their own
request by construction: a row's answer is the result of the row's own future."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.explain import Explanation, Options
from fuseline.explain.explainer import Plan, finish, plan_row
from fuseline.modalities import MediaRoot
from fuseline.modalities.document import Document
from fuseline.modalities.image import Image
from fuseline.modalities.rows import Parsed, lengths_of
from fuseline.modalities.video import Video
from fuseline.runtime import Answer, Predictor
from fuseline.serve.batching import Appetite, Item, choose, cost_of
from fuseline.serve.calls import Row, RowSeen, Wish
from fuseline.serve.settings import Settings

log = logging.getLogger(__name__)

BATCH_SHARE = 0.25
"""of the latency objective that one batch may take"""
NO_FILES = MediaRoot(None)
"""a request's cells hold their bytes; no path that it names is ever opened"""


@dataclass
class Scored:
    """Answers of one request's rows, in order, and what they cost."""

    answers: list[Answer]
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_sizes: tuple[int, ...] = ()
    executions: float = 0.0
    """this request's part of the batches that it shared with others, so that sums over requests count each once"""
    seen: list[RowSeen] = field(default_factory=list)


@dataclass
class _Ran:
    answer: Answer
    embedding: np.ndarray | None
    waited: float
    batch: _Batch


@dataclass(eq=False)
class _Batch:
    rows: int
    seconds: float = 0.0


class Scorer:
    """Runs one predictor for many requests at once. Lives on one event loop."""

    def __init__(self, predictor: Predictor, settings: Settings, threads: int, lanes: int = 1) -> None:
        """`threads` that decode, and `lanes`: batches that run at the same time."""
        self.predictor = predictor
        self.settings = settings
        for modality in predictor.rows.modalities.values():
            of_one = getattr(modality, "item", modality)  # of a set: the modality of one of them
            if isinstance(of_one, (Image, Video, Document)):
                pixels = min(of_one.config.max_pixels, settings.max_pixels)
                of_one.config = of_one.config.model_copy(update={"max_pixels": pixels})
        self._decoders = ThreadPoolExecutor(max(1, threads), "decode")
        self._lanes = ThreadPoolExecutor(lanes, "compute")
        self._free = asyncio.Semaphore(lanes)
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: list[Item] = []
        self._decoding = 0
        self._appetite = Appetite(settings.max_batch_rows)
        self._pace = 0.0
        """smoothed seconds of one unit of cost, 0 while unknown"""
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def _start(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="batches")

    async def score(self, rows: Sequence[Row], *, deadline: float, seen: bool = False) -> Scored:
        """Answer every row. A bad row gets its error; its neighbours do not notice.

        Raises FuselineError ``deadline`` where a row's turn did not come in time.
        """
        self._start()
        tasks = [asyncio.ensure_future(self._row(row, i, deadline)) for i, row in enumerate(rows)]
        try:
            results = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # the caller is gone, or a deadline passed: what has not run yet will not
                task.cancel()
        ran = [r for _, r in results if r is not None]
        batches = {id(r.batch): r.batch for r in ran}
        out = Scored(
            answers=[Answer(error=p.error, notes=p.notes) if r is None else r.answer for p, r in results],
            queue_seconds=max((r.waited for r in ran), default=0.0),
            compute_seconds=sum(b.seconds for b in batches.values()),
            batch_sizes=tuple(b.rows for b in batches.values()),
            executions=sum(1 / r.batch.rows for r in ran),
        )
        if seen:
            out.seen = [self._seen(p, r, a) for (p, r), a in zip(results, out.answers, strict=True)]
        return out

    async def explain(self, rows: Sequence[Row], options: Options, *, deadline: float) -> list[Explanation]:
        """Explain every row: its questions go through the same batches as other callers' rows. A bad row says why.

        Raises FuselineError ``too_large`` where the rows take more answers than the settings allow, before any of them
        is computed; ``deadline``, ``unknown_column``.
        """
        options.check(self.predictor.rows)
        self._start()
        loop, plans = asyncio.get_running_loop(), list[Plan]()
        most = self.settings.max_explain_rows
        for place, row in enumerate(rows):
            parsed = await loop.run_in_executor(self._decoders, self._decode, row, place, deadline)
            if parsed.error is not None and parsed.error.code == "deadline":
                raise parsed.error
            own = row if isinstance(row, Mapping) else {}
            ask = partial(plan_row, self.predictor.rows, own, parsed, options, media=NO_FILES, place=place)
            plans.append(await loop.run_in_executor(self._decoders, ask))
            asked = sum(len(p.asked) for p in plans)
            if asked > most:
                raise FuselineError(
                    "too_large",
                    f"these explanations take more than {most} answers",
                    "ask for fewer rows at once, for the inside of fewer inputs, or for a coarser grid",
                )
        out = []
        for plan in plans:
            tasks = [asyncio.ensure_future(self._parsed(p, deadline)) for p in plan.asked]
            try:
                ran = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
            answers = [
                Answer(error=p.error, notes=p.notes) if r is None else r.answer
                for p, r in zip(plan.asked, ran, strict=True)
            ]
            out.append(finish(plan, answers, self.predictor.task))
        return out

    async def stream(
        self, row: Row, wish: Wish, *, deadline: float, seen: bool = False
    ) -> AsyncGenerator[str | Scored, None]:
        """Write one row's text: pieces as they come, then what :meth:`score` gives. A step at a time takes a lane, so
        that texts and batches take turns; who closes this stops it after the step that runs.

        Raises FuselineError ``deadline``, ``bad_request``, or what is wrong with the row.
        """
        loop, since = asyncio.get_running_loop(), time.monotonic()
        parsed = await loop.run_in_executor(self._decoders, self._decode, row, 0, deadline)
        if parsed.error is not None:
            raise parsed.error
        pieces = self.predictor.stream(parsed, wish.how, wish.stop)
        out = Scored([], batch_sizes=(1,), executions=1.0)
        while True:
            async with self._free:
                start = time.monotonic()
                if start > deadline:
                    raise late()
                out.queue_seconds = out.queue_seconds or start - since
                piece = await loop.run_in_executor(self._lanes, next, pieces, None)
                out.compute_seconds += time.monotonic() - start
            if isinstance(piece, str):
                if piece:
                    yield piece
                continue
            assert piece is not None
            out.answers = [piece.answer]
            if seen:
                ran = _Ran(piece.answer, piece.embedding, out.queue_seconds, _Batch(1))
                out.seen = [self._seen(parsed, ran, piece.answer)]
            yield out
            return

    def _seen(self, parsed: Parsed, ran: _Ran | None, answer: Answer) -> RowSeen:
        stats: dict[str, float | str] = {}
        for name, value in parsed.values.items():
            if value is not None:
                summary = self.predictor.rows.modalities[name].summary(value)
                stats |= {f"{name}.{key}": v for key, v in summary.items()}
        embedding = None if ran is None or ran.embedding is None else tuple(float(v) for v in ran.embedding)
        return RowSeen(answer, stats, embedding)

    async def _row(self, row: Row, place: int, deadline: float) -> tuple[Parsed, _Ran | None]:
        loop = asyncio.get_running_loop()
        self._decoding += 1
        try:
            parsed = await loop.run_in_executor(self._decoders, self._decode, row, place, deadline)
        finally:
            self._decoding -= 1
            self._wake.set()
        if parsed.error is not None and parsed.error.code == "deadline":
            raise parsed.error
        return parsed, await self._parsed(parsed, deadline)

    async def _parsed(self, parsed: Parsed, deadline: float) -> _Ran | None:
        """One decoded row's answer; None where it could not be read."""
        if parsed.error is not None:
            return None
        lengths_M = lengths_of(self.predictor.rows.modalities, parsed.values)
        item = Item(parsed, lengths_M, deadline, time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._wake.set()
        ran: _Ran = await item.future
        return ran

    def _decode(self, row: Row, place: int, deadline: float) -> Parsed:
        if time.monotonic() > deadline:
            return Parsed(error=late())
        try:
            return self.predictor.parse(row, NO_FILES, place)
        except FuselineError as error:
            return Parsed(error=error.at(place))
        except Exception:  # a decoder's own defect is this row's error, not its neighbours'
            log.exception("a row could not be decoded")
            return Parsed(error=FuselineError("bad_rows", "the row could not be decoded", row=place))

    async def _run(self) -> None:
        """Take batches for as long as the scorer lives."""
        while True:
            self._waiting = [i for i in self._waiting if not i.future.done()]
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._free.acquire()
            self._waiting = [i for i in self._waiting if not i.future.done()]
            wanted = self._appetite.rows()
            await self._company(wanted)
            now = time.monotonic()
            live = []
            for item in self._waiting:
                if item.future.done():  # its caller is gone
                    continue
                if item.deadline < now:
                    item.future.set_exception(late())
                    continue
                live.append(item)
            batch = choose(live, wanted, self._most()) if live else []
            taken = set(map(id, batch))
            self._waiting = [i for i in live if id(i) not in taken]
            if batch:
                task = asyncio.create_task(self._on_a_lane(batch, now), name="batch")
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            else:
                self._free.release()

    async def _on_a_lane(self, batch: list[Item], now: float) -> None:
        try:
            await self._compute(batch, now)
        finally:
            self._free.release()

    def _most(self) -> float:
        """The cost of a batch at most. One that runs for longer than its share of the objective helps nobody: on a
        processor the graph's time grows with its rows, and whoever comes next waits for all of them."""
        most = self.settings.max_batch_cost
        if self._pace:
            most = min(most, self.settings.objective_ms / 1e3 * BATCH_SHARE / self._pace)
        return most

    async def _company(self, wanted: int) -> None:
        """Wait for rows that are being decoded right now, as long as the first one may wait. Alone, it goes at once."""
        if not self._waiting:
            return
        until = self._waiting[0].since + self.settings.max_wait_ms / 1e3
        while self._decoding and len(self._waiting) < wanted:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                return

    async def _compute(self, items: list[Item], now: float) -> None:
        loop = asyncio.get_running_loop()
        batch = _Batch(len(items))
        start = time.monotonic()
        try:
            answers, embeddings = await loop.run_in_executor(self._lanes, self._answer, [i.parsed for i in items])
        except Exception as error:
            if len(items) > 1:  # one of them is the cause; alone, it fails alone
                log.warning("a batch of %d failed and is run row by row: %s", len(items), type(error).__name__)
                for item in items:
                    await self._compute([item], now)
                return
            log.exception("a row could not be computed")
            answers = [Answer(error=FuselineError("bad_rows", "the model could not compute this row"))]
            embeddings = [None]
        batch.seconds = time.monotonic() - start
        pace = batch.seconds / cost_of(items)
        self._pace = pace if not self._pace else 0.8 * self._pace + 0.2 * pace
        self._appetite.saw(items, batch.seconds)
        for item, answer, embedding in zip(items, answers, embeddings, strict=True):
            if not item.future.done():
                item.future.set_result(_Ran(answer, embedding, now - item.since, batch))

    def _answer(self, parsed: list[Parsed]) -> tuple[list[Answer], Sequence[Any]]:
        outputs = self.predictor.run([p.values for p in parsed])
        embeddings = outputs.get("embedding")
        rows = [None] * len(parsed) if embeddings is None else list(embeddings)
        return self.predictor.decode(parsed, outputs), rows

    async def warm_up(self) -> None:
        """One answer on a row that has nothing, so that the first caller does not wait for the runtime's own start."""
        await self.score([{}], deadline=time.monotonic() + 300)

    async def close(self) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, *self._running, return_exceptions=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._lanes.shutdown(wait=False, cancel_futures=True)


def late() -> FuselineError:
    return FuselineError("deadline", "the answer would come after the request's deadline", "allow more time, or retry")
