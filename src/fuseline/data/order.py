"""The order of the rows in an epoch: random, yet local enough for a table on disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(
    rows: np.ndarray,
    *,
    seed: int,
    epoch: int,
    block: int = 4096,
    window: int = 8,
    full_below: int = 200_000,
    start: int = 0,
) -> Iterator[np.ndarray]:
    """All `rows` (N,) once, in pieces of at most ``block * window``, from position `start` of the order on.

    Up to `full_below` rows, or one window, they are permuted freely and come as one piece. Beyond, blocks of
    neighbouring rows are permuted, and the rows of every `window` blocks among themselves: a batch is then read from
    few blocks, and no more than a window of a table is needed in memory. Give ``block=table.block_rows`` and, for a
    table on disk, ``full_below=0``.

    The order is a function of (seed, epoch) and the arguments alone; starting late costs no more than the piece
    that `start` falls into.
    """
    assert block > 0
    assert window > 0
    assert start >= 0
    if len(rows) <= max(full_below, block * window):
        yield np.random.default_rng([seed, epoch]).permutation(rows)[start:]
        return
    blocks = np.random.default_rng([seed, epoch]).permutation(-(-len(rows) // block))
    done = 0
    for at in range(0, len(blocks), window):
        chosen = blocks[at : at + window]
        size = sum(min(block, len(rows) - b * block) for b in chosen.tolist())
        if done + size > start:
            piece = np.concatenate([rows[b * block : (b + 1) * block] for b in chosen.tolist()])
            mixed = np.random.default_rng([seed, epoch, 1 + at // window]).permutation(piece)
            yield mixed[max(0, start - done) :]
        done += size
