"""The order of training is a function of (seed, step) alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fuseline.lab.training.bucket import POOL, saved
from fuseline.lab.training.reader import Batch
from fuseline.lab.training.stream import Stream, epoch_batches, prefetched, steps_per_epoch
from fuseline.lab.training.team import Team


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (7, 8), (8, 8), (12, 8), (13, 8), (100, 8), (257, 32)])
def test_an_epoch_has_its_steps_and_no_row_twice(rows: int, size: int) -> None:
    batches = list(epoch_batches(np.arange(rows) * 3, size, seed=1, epoch=2, skip=0))
    assert len(batches) == steps_per_epoch(rows, size)
    seen = np.concatenate(batches)
    assert len(np.unique(seen)) == len(seen)
    assert set(seen) <= set(np.arange(rows) * 3)
    assert len(seen) >= rows - size / 2


def test_starting_late_gives_the_same_batches() -> None:
    rows = np.arange(1000)
    for block in (None, 64):
        whole = list(epoch_batches(rows, 16, seed=3, epoch=1, skip=0, block=block))
        for skip in (1, 7, len(whole) - 1):
            late = list(epoch_batches(rows, 16, seed=3, epoch=1, skip=skip, block=block))
            assert len(late) == len(whole) - skip
            for a, b in zip(late, whole[skip:], strict=True):
                np.testing.assert_array_equal(a, b)


def test_epochs_and_seeds_differ() -> None:
    rows = np.arange(64)
    orders = [np.concatenate(list(epoch_batches(rows, 8, s, e, 0))) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not any((orders[i] == orders[j]).all() for i, j in ((0, 1), (0, 2), (1, 2)))


class Rows:
    """A reader of a table on disk in blocks of 100 rows, the last of them short."""

    def __init__(self) -> None:
        self.table = SimpleNamespace(block_rows=100, n_rows=750)

    def holds(self, rows: np.ndarray) -> bool:
        return True

    def batch(self, rows: np.ndarray) -> Batch:
        empty = torch.zeros(0)
        return Batch({}, empty, None, rows)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_each_of_a_team_reads_its_own_blocks_and_none_waits_for_more(size: int) -> None:
    """Blocks of unlike size, a last batch that is short: all make as many steps, and no row is lost or read twice."""
    rows = np.setdiff1d(np.arange(750), np.arange(120, 190))  # one block has few training rows
    given = {"batch_size": 48, "seed": 1, "interval_steps": 14, "total_steps": 14, "interval": lambda: 0}
    alone = list(Stream(Rows(), rows, **given))  # type: ignore[arg-type]
    team = [list(Stream(Rows(), rows, **given, team=Team(rank, size))) for rank in range(size)]  # type: ignore[arg-type]
    assert {len(batches) for batches in team} == {len(alone)} == {14}
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in team]
        assert sorted(np.concatenate([p.rows for p in parts])) == sorted(whole.rows)
        assert np.mean([p.weight for p in parts]) == pytest.approx(1.0)
        assert len(np.unique(whole.rows // 100)) == 8
        for part in parts:
            assert len(np.unique(part.rows // 100)) <= 8 // size + 2


def test_prefetching_keeps_the_order_and_passes_errors_on() -> None:
    orders = [np.array([i]) for i in range(20)]
    assert [int(b) for b in prefetched(lambda rows: rows[0], iter(orders))] == list(range(20))  # type: ignore[arg-type,return-value]

    def broken(rows: np.ndarray) -> int:
        if rows[0] == 3:
            raise ValueError("row 3")
        return int(rows[0])

    batches = prefetched(broken, iter(orders))  # type: ignore[arg-type]
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="row 3"):
        next(batches)


def test_buckets_keep_every_row_and_sort_within_a_pool() -> None:
    rows = np.arange(1000)
    lengths = np.random.default_rng(0).uniform(0.05, 1, 1000).astype(np.float32)
    plain = list(epoch_batches(rows, 8, seed=3, epoch=1, skip=0))
    whole = list(epoch_batches(rows, 8, seed=3, epoch=1, skip=0, length_N=lengths))
    assert len(whole) == len(plain) == steps_per_epoch(1000, 8)
    assert sorted(map(len, whole)) == sorted(map(len, plain))
    np.testing.assert_array_equal(np.sort(np.concatenate(whole)), np.sort(np.concatenate(plain)))

    def padded(batches: list[np.ndarray]) -> float:
        return sum(len(b) * float(lengths[b].max()) for b in batches)

    assert padded(whole) < 0.75 * padded(plain)
    assert lengths[whole[0]].max() < 2 * lengths[whole[0]].min() + 0.1
    # Not from short to long: the model must not forget the short ones.
    means = np.array([lengths[b].mean() for b in whole])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


@pytest.mark.parametrize("block", [None, 64])
def test_buckets_started_late_are_the_same(block: int | None) -> None:
    rows, lengths = np.arange(1000), np.random.default_rng(0).uniform(0, 1, 1000).astype(np.float32)
    whole = list(epoch_batches(rows, 8, seed=3, epoch=1, skip=0, block=block, length_N=lengths))
    for skip in (1, POOL - 1, POOL, POOL + 5, len(whole) - 1):
        late = list(epoch_batches(rows, 8, seed=3, epoch=1, skip=skip, block=block, length_N=lengths))
        assert len(late) == len(whole) - skip
        for a, b in zip(late, whole[skip:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_buckets_differ_between_epochs() -> None:
    rows, lengths = np.arange(64), np.linspace(0, 1, 64, dtype=np.float32)
    first, second = (list(epoch_batches(rows, 8, 0, e, 0, length_N=lengths)) for e in (0, 1))
    assert {frozenset(b.tolist()) for b in first} != {frozenset(b.tolist()) for b in second}


def test_what_buckets_save_is_estimated() -> None:
    rows = np.arange(512)
    mixed = np.where(rows % 2, 1.0, 0.1).astype(np.float32)
    assert 0.35 < saved(rows, mixed, 16, seed=0) < 0.5
    assert saved(rows, np.ones(512, np.float32), 16, seed=0) == 0
    assert saved(rows, np.zeros(512, np.float32), 16, seed=0) == 0
