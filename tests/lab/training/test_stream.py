"""The order of training is a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np
import pytest

from fuseline.lab.training.bucket import POOL, saved
from fuseline.lab.training.stream import epoch_batches, prefetched, steps_per_epoch


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
