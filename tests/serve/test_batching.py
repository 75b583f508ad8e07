"""The choice of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuseline.modalities.rows import Parsed
from fuseline.serve.batching import Appetite, Item, choose


def items(*lengths: float) -> list[Item]:
    return [Item(Parsed(), np.array([x]), 0.0, float(i), None) for i, x in enumerate(lengths)]  # type: ignore[arg-type]


def chosen(waiting: list[Item], *limits: Any) -> list[float]:
    return [float(i.lengths_M[0]) for i in choose(waiting, *limits)]


def test_the_longest_waiting_row_is_always_in() -> None:
    assert chosen(items(1.0, 0.1, 0.1, 0.1), 2, 100)[0] == 1.0


def test_rows_of_like_length_go_together() -> None:
    assert sorted(chosen(items(0.5, 0.1, 0.52, 0.9, 0.48), 3, 100)) == [0.48, 0.5, 0.52]


def test_rows_that_would_only_be_padding_wait_for_their_like() -> None:
    assert sorted(chosen(items(0.1, 0.1, 1.0, 0.9), 4, 100)) == [0.1, 0.1]


@pytest.mark.parametrize(("most", "count"), [(1, 1), (3, 3), (10, 5)])
def test_no_more_rows_than_allowed(most: int, count: int) -> None:
    assert len(choose(items(*[0.5] * 5), most, 100)) == count


def test_cost_counts_the_padding() -> None:
    assert chosen(items(0.8, 0.8, 0.8, 1.0), 10, 3.0) == [0.8, 0.8, 0.8]


def test_one_row_goes_whatever_it_costs() -> None:
    assert chosen(items(1.0, 1.0), 10, 0.5) == [1.0]


def settled(seconds_a_row: dict[int, float]) -> list[int]:
    """The sizes asked for once an appetite has seen how long batches of every size take."""
    appetite, asked = Appetite(32), []
    for _ in range(200):
        size = appetite.rows()
        asked.append(size)
        appetite.saw(items(*[0.5] * size), seconds_a_row[size] * size)
    return asked[100:]


def test_a_small_graph_gets_large_batches() -> None:
    assert settled({1: 8, 2: 4, 4: 2, 8: 1, 16: 0.5, 32: 0.25}).count(32) > 90


def test_a_large_graph_gets_small_batches() -> None:
    asked = settled({1: 1.2, 2: 1.0, 4: 1.1, 8: 2, 16: 3, 32: 4})
    assert asked.count(2) > 90
    assert set(asked) == {1, 2, 4}, "its neighbours are looked at again, no others"


def test_what_is_equally_quick_goes_in_small_batches() -> None:
    assert settled({1: 1, 2: 1, 4: 1, 8: 1, 16: 1, 32: 1}).count(1) > 90
