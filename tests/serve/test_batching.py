"""The choice of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuseline.modalities.rows import Parsed
from fuseline.serve.batching import Item, choose


def items(*lengths: float) -> list[Item]:
    return [Item(Parsed(), np.array([x]), 0.0, float(i), None) for i, x in enumerate(lengths)]  # type: ignore[arg-type]


def chosen(waiting: list[Item], *limits: Any) -> list[float]:
    return [float(i.lengths_M[0]) for i in choose(waiting, *limits)]


def test_the_longest_waiting_row_is_always_in() -> None:
    assert chosen(items(1.0, 0.1, 0.1, 0.1), 2, 100)[0] == 1.0


def test_rows_of_like_length_go_together() -> None:
    assert sorted(chosen(items(0.5, 0.1, 0.52, 0.9, 0.48), 3, 100)) == [0.48, 0.5, 0.52]


@pytest.mark.parametrize(("most", "count"), [(1, 1), (3, 3), (10, 5)])
def test_no_more_rows_than_allowed(most: int, count: int) -> None:
    assert len(choose(items(*[0.5] * 5), most, 100)) == count


def test_cost_counts_the_padding() -> None:
    assert chosen(items(0.2, 0.2, 0.2, 1.0), 10, 2.0) == [0.2, 0.2, 0.2]


def test_one_row_goes_whatever_it_costs() -> None:
    assert chosen(items(1.0, 1.0), 10, 0.5) == [1.0]
