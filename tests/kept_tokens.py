"""Made tokens of a frozen encoder, for the tests of what keeps them."""

from __future__ import annotations

import numpy as np

from fuseline.lab.training.cache import Kept

NANS = Kept(np.array([[np.nan, -np.inf]], np.float32), np.array([True]))


def key(i: int) -> bytes:
    return i.to_bytes(32, "big")


def kept(i: int) -> Kept:
    """Of i + 1 tokens, with arrays beside them of other kinds and shapes: whole numbers, one number, none at all."""
    rng = np.random.default_rng(i)
    aside = {"last": rng.integers(0, 9, (2, 3)), "length": np.array(i), "none": np.zeros((0, 4), np.float32)}
    return Kept(rng.normal(size=(i + 1, 5)).astype(np.float32), rng.random(i + 1) < 0.5, aside)


def plain(i: int) -> Kept:
    rng = np.random.default_rng(i)
    return Kept(rng.normal(size=(i % 50 + 1, 64)).astype(np.float32), np.ones(i % 50 + 1, bool))


def assert_same(a: Kept | None, b: Kept) -> None:
    assert a is not None
    assert a.aside.keys() == b.aside.keys()
    pairs = [(a.values_TD, b.values_TD), (a.mask_T, b.mask_T), *((a.aside[k], b.aside[k]) for k in b.aside)]
    for got, wanted in pairs:
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
