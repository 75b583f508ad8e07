"""The order of training: one endless stream of batches that is a pure function of (seed, step)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from fuseline.data.order import epoch_order
from fuseline.lab.training.bucket import POOL, bucketed
from fuseline.lab.training.reader import Batch, Reader
from fuseline.lab.training.team import Team

OTHER_ORDER = 15_485_863
"""seed of the unlabelled rows' order, away from that of the labelled ones'"""


class Stream:
    """Training batches of one interval. Lightning's epoch is our interval: what lies between two checkpoints.

    The same step gives the same rows however often the run was killed and resumed in between, and however many
    processes share them: `batch_size` is of all together.
    """

    def __init__(
        self,
        reader: Reader,
        rows: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        interval_steps: int,
        total_steps: int,
        interval: Callable[[], int],
        team: Team | None = None,
        unlabelled: np.ndarray | None = None,
        ratio: int = 1,
        length_N: np.ndarray | None = None,
    ) -> None:
        """`unlabelled`: rows of which each batch brings `ratio` times as many along, in an order of their own.
        `length_N`: of each row of the table, where batches shall be of rows of like length."""
        self.team = team or Team()
        self.unlabelled = unlabelled if unlabelled is not None and len(unlabelled) else None
        self.ratio = ratio
        self.length_N = length_N
        self.reader, self.rows, self.batch_size, self.seed = reader, rows, batch_size, seed
        self.interval_steps, self.total_steps, self.interval = interval_steps, total_steps, interval
        # Blocks only where rows must be fetched from disk: a full permutation mixes better.
        self.block = reader.table.block_rows if reader.table.block_rows < reader.table.n_rows else None

    def __len__(self) -> int:
        return min(self.interval_steps, self.total_steps - self.interval() * self.interval_steps)

    def __iter__(self) -> Iterator[Batch]:
        first = self.interval() * self.interval_steps
        orders = self._orders(self.rows, self.batch_size, self.seed, first)
        all_rows, more = self.rows, None
        if self.unlabelled is not None:
            all_rows = np.concatenate([self.rows, self.unlabelled])
            more = self._orders(self.unlabelled, self.ratio * self.batch_size, self.seed + OTHER_ORDER, first)

        def make(rows: np.ndarray) -> Batch:  # called once a step, in order, so that `more` keeps pace
            return self._batch(rows, None if more is None else next(more))

        if self.reader.holds(all_rows):
            # All in memory: a thread would only take the interpreter and a core from the model.
            return (make(rows) for rows in orders)
        return prefetched(make, orders)

    def _batch(self, rows: np.ndarray, unlabelled: np.ndarray | None) -> Batch:
        if self.block is not None and self.team.size > 1:
            # Each process its own blocks of a table on disk, else all would read them all. Within a block: any rows.
            rows = rows[np.argsort(rows // self.block, kind="stable")]
        mine = self.team.share(rows)
        batch = self.reader.batch(mine)
        batch.weight = self.team.weight(len(mine), len(rows))
        if unlabelled is not None:
            batch.unlabelled = self.reader.batch(unlabelled)
        return batch

    def _orders(self, rows: np.ndarray, size: int, seed: int, first: int) -> Iterator[np.ndarray]:
        """The rows of each step of an interval that begins at step `first`."""
        per_epoch, last = steps_per_epoch(len(rows), size), first + len(self)
        step = first
        while step < last:
            epoch, skip = divmod(step, per_epoch)
            for chosen in epoch_batches(rows, size, seed, epoch, skip, self.block, self.length_N):
                yield chosen
                step += 1
                if step == last:
                    return


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """A last batch of less than half the size is left for the next epoch's other order."""
    return max(1, round(rows / batch_size))


def epoch_batches(
    rows: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int,
    block: int | None = None,
    length_N: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Batches of row numbers of one epoch, from batch `skip` on. `block`: rows that lie together on disk. `length_N`:
    lengths by which rows go together, see :mod:`fuseline.lab.training.bucket`."""
    if length_N is not None:
        pool, inside = divmod(skip, POOL)
        plain = epoch_batches(rows, batch_size, seed, epoch, pool * POOL, block)
        yield from islice(bucketed(plain, length_N, seed, epoch, pool), inside, None)
        return
    local = {} if block is None else {"block": block, "full_below": 0}
    held = np.empty(0, dtype=np.int64)
    left = steps_per_epoch(len(rows), batch_size) - skip
    for piece in epoch_order(rows, seed=seed, epoch=epoch, start=skip * batch_size, **local):
        held = np.concatenate([held, piece])
        while left and len(held) >= batch_size:
            yield held[:batch_size]
            held, left = held[batch_size:], left - 1
    if left and len(held):
        yield held


def prefetched(make: Callable[[np.ndarray], Batch], orders: Iterator[np.ndarray], ahead: int = 2) -> Iterator[Batch]:
    """Make batches in one thread ahead of their use; an error comes out where its batch would have."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(ahead)
    stop = threading.Event()

    def work() -> None:
        try:
            for rows in orders:
                batch = make(rows)
                while not stop.is_set():
                    try:
                        ready.put(batch, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name="fuseline-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=5)
