"""Batches of rows of like length, since a batch is padded to its longest and padding costs as much as text or sound.

Rows are sorted by length only within a pool of neighbouring batches of the epoch's random order, with noise in the
lengths, and the batches of a pool come in random order: no two epochs have the same batches, and short rows are not
learned before long ones. All is a function of (seed, epoch, pool), so that a resumed run and every process of a team
see the same batches.

Dimensions: N rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from fuseline.data.order import epoch_order
from fuseline.modalities import Modality
from fuseline.modalities.rows import lengths_of

POOL = 32
"""batches whose rows are sorted together"""
NOISE = 0.1
"""a length is multiplied by 1 ± this, drawn anew in every epoch"""
WORTH = 0.1
"""`auto`: share of all padded length that must be saved"""
LOOKED_AT = 2 * POOL
"""batches from which that share is estimated"""


def length_of(modalities: Mapping[str, Modality], values: Mapping[str, Any | None]) -> float:
    """How long a row is: each input's length as a share of its longest, added up."""
    return float(lengths_of(modalities, values).sum())


def bucketed(
    batches: Iterator[np.ndarray], length_N: np.ndarray, seed: int, epoch: int, pool: int
) -> Iterator[np.ndarray]:
    """`batches` of an epoch from pool `pool` on, their rows dealt anew within each pool; as many, of the same sizes."""
    while own := list(islice(batches, POOL)):
        random = np.random.default_rng([seed, epoch, pool, 7])
        rows = np.concatenate(own)
        noisy = length_N[rows] * random.uniform(1 - NOISE, 1 + NOISE, len(rows))
        # A short last batch must not always hold the longest rows.
        sizes = random.permutation([len(batch) for batch in own])
        dealt = np.split(rows[np.argsort(noisy, kind="stable")], np.cumsum(sizes)[:-1])
        yield from (dealt[i] for i in random.permutation(len(dealt)))
        pool += 1


def saved(rows: np.ndarray, length_N: np.ndarray, batch_size: int, seed: int) -> float:
    """The share of all padded length that buckets would save in the first batches: 0 where nothing is padded."""
    first = next(epoch_order(rows, seed=seed, epoch=0))[: LOOKED_AT * batch_size]
    plain = [first[at : at + batch_size] for at in range(0, len(first), batch_size)]
    costs = [
        sum(len(batch) * float(length_N[batch].max()) for batch in batches)
        for batches in (plain, bucketed(iter(plain), length_N, seed, 0, 0))
    ]
    return 1 - costs[1] / costs[0] if costs[0] else 0.0
