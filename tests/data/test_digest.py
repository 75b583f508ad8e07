"""Every change of a cell is seen, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuseline.data.digest import CellsDigest

LONG = np.zeros(5000, np.float32)


def digest(*cells: Any) -> str:
    out = CellsDigest()
    out.add(cells)
    return out.hex()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a",), ("b",)),
        (("ab", "c"), ("a", "bc")),
        (("1",), (1,)),
        ((1,), (1.0,)),
        ((None,), ("None",)),
        (("",), (None,)),
        ((b"ab", b"c"), (b"a", b"bc")),
        (([1, 2], [3]), ([1], [2, 3])),
        ((["a"],), ("a",)),
        (({"x": 1},), ({"y": 1},)),
        ((LONG,), (np.where(np.arange(5000) == 2500, 1, LONG).astype(np.float32),)),
        ((LONG,), (LONG.reshape(50, 100),)),
        ((LONG,), (LONG.astype(np.int32),)),
        (([LONG, "x"],), ([LONG + 1, "x"],)),
        (("a;'b'",), ("a", "b")),
    ],
)
def test_what_differs(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert digest(*one) != digest(*other)


def test_what_is_the_same() -> None:
    assert digest("a", 1, [b"x", LONG], "\ud800") == digest("a", 1, [b"x", LONG.copy()], "\ud800")
    assert digest(LONG[::2]) == digest(np.ascontiguousarray(LONG[::2]))
