from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseline.data.order import epoch_order


@given(
    n=st.integers(0, 300),
    block=st.integers(1, 40),
    window=st.integers(1, 5),
    full_below=st.sampled_from([0, 100]),
    start=st.integers(0, 320),
    seed=st.integers(0, 3),
)
def test_every_row_once_and_any_start(n: int, block: int, window: int, full_below: int, start: int, seed: int) -> None:
    rows = np.arange(n) * 3

    def order(at: int) -> list[int]:
        pieces = epoch_order(rows, seed=seed, epoch=2, block=block, window=window, full_below=full_below, start=at)
        return [int(r) for piece in pieces for r in piece]

    assert sorted(order(0)) == rows.tolist()
    assert order(start) == order(0)[start:]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    rows = np.arange(1000)
    one = np.concatenate(list(epoch_order(rows, seed=1, epoch=1, block=50, window=4, full_below=0)))
    assert (one == np.concatenate(list(epoch_order(rows, seed=1, epoch=1, block=50, window=4, full_below=0)))).all()
    assert (one != np.concatenate(list(epoch_order(rows, seed=1, epoch=2, block=50, window=4, full_below=0)))).any()
    assert (one != np.concatenate(list(epoch_order(rows, seed=2, epoch=1, block=50, window=4, full_below=0)))).any()


def test_a_piece_touches_at_most_a_window_of_blocks() -> None:
    pieces = list(epoch_order(np.arange(10_010), seed=0, epoch=0, block=100, window=8, full_below=0))
    assert len(pieces) > 10
    assert all(len(set((piece // 100).tolist())) <= 8 for piece in pieces)
    # and the blocks of a piece are no neighbours
    assert np.ptp(pieces[0] // 100) > 20
