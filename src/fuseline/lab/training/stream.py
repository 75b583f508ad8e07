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
        length_N: np.ndarray | None = None,
    ) -> None:
        """`length_N`: of each row of the table, where batches shall be of rows of like length."""
        self.team = team or Team()
        self.length_N = length_N
        self.reader, self.rows, self.batch_size, self.seed = reader, rows, batch_size, seed
        self.interval_steps, self.total_steps, self.interval = interval_steps, total_steps, interval
        self.steps_per_epoch = steps_per_epoch(len(rows), batch_size)
        # Blocks only where rows must be fetched from disk: a full permutation mixes better.
        self.block = reader.table.block_rows if reader.table.block_rows < reader.table.n_rows else None

    def __len__(self) -> int:
        return min(self.interval_steps, self.total_steps - self.interval() * self.interval_steps)

    def __iter__(self) -> Iterator[Batch]:
        first = self.interval() * self.interval_steps
        orders = self._rows(first, first + len(self))
        if self.reader.holds(self.rows):
            # All in memory: a thread would only take the interpreter and a core from the model.
            return (self._batch(rows) for rows in orders)
        return prefetched(self._batch, orders)

    def _batch(self, rows: np.ndarray) -> Batch:
        mine = self.team.share(rows)
        batch = self.reader.batch(mine)
        batch.weight = self.team.weight(len(mine), len(rows))
        return batch

    def _rows(self, first: int, last: int) -> Iterator[np.ndarray]:
        step = first
        while step < last:
            epoch, skip = divmod(step, self.steps_per_epoch)
            for rows in epoch_batches(self.rows, self.batch_size, self.seed, epoch, skip, self.block, self.length_N):
                yield rows
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
