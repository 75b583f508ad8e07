"""Every test against scipy, river, or its own definition."""

from __future__ import annotations

import numpy as np
import pytest
import river.drift
import river.stats
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from fuseline.monitor import drift

counts = st.lists(st.integers(0, 500), min_size=2, max_size=12).map(lambda x: np.array(x, float))


@given(counts, st.randoms())
def test_psi_is_both_relative_entropies(reference: np.ndarray, random: object) -> None:
    now = np.roll(reference, 1) + 1
    p = (reference + 0.5) / (reference + 0.5).sum()
    q = (now + 0.5) / (now + 0.5).sum()
    assert drift.psi(reference, now) == pytest.approx(scipy.stats.entropy(p, q) + scipy.stats.entropy(q, p), rel=1e-9)
    assert drift.psi(reference, reference) == 0


def test_psi_of_shifted_normals_is_the_squared_shift() -> None:
    edges = np.linspace(-6, 6, 400)
    for shift in (0.1, 0.316, 1.0):
        shares = [np.diff(scipy.stats.norm.cdf(edges, m)) * 1e7 for m in (0, shift)]
        assert drift.psi(*shares) == pytest.approx(shift**2, rel=0.01)


def test_psi_beyond_chance_is_about_nothing_where_nothing_changed() -> None:
    rng = np.random.default_rng(0)
    share = np.full(10, 0.1)
    raw, kept = [], []
    for _ in range(300):
        a, b = rng.multinomial(1000, share).astype(float), rng.multinomial(200, share).astype(float)
        raw.append(drift.psi(a, b))
        kept.append(drift.psi_beyond_chance(a, b))
    assert np.mean(raw) == pytest.approx(9 * (1 / 1000 + 1 / 200), rel=0.15)
    assert np.mean(kept) < 0.02


@pytest.mark.parametrize(("n", "m"), [(30, 50), (200, 1200), (2000, 5000), (10**6, 5000), (1, 1)])
def test_the_tail_of_kolmogorov_and_smirnov_is_scipys(n: int, m: int) -> None:
    size = max(1, round(n * m / (n + m)))
    for distance in np.linspace(0.001, 0.999, 300):
        expected = scipy.stats.kstwo.sf(distance, size)
        got = drift.ks_p(float(distance), n, m)
        if expected < 0.2:
            assert got == pytest.approx(expected, rel=4e-3, abs=1e-290)
        elif size > 10:
            assert got == pytest.approx(expected, abs=0.03)
    assert drift.ks_p(0.0, n, m) == 1
    assert drift.ks_p(1.0, n, m) == 0


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_distance_at_every_value_is_that_of_scipy_and_river(shift: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=300).round(1), rng.normal(shift, size=200).round(1)
    at = np.unique(np.concatenate([a, b]))
    share = np.searchsorted(np.sort(a), at, side="right") / len(a)
    scipys = scipy.stats.ks_2samp(a, b, method="asymp")
    assert drift.ks_distance(at, share, b) == pytest.approx(scipys.statistic, abs=1e-12)
    below = np.searchsorted(np.sort(a), at, side="left") / len(a)
    assert drift.ks_distance(at, below, b, strictly=True) == pytest.approx(scipys.statistic, abs=0.05)
    rivers = river.stats.KolmogorovSmirnov(statistic="ks")
    c, d = a[:200] + 1e-4 * rng.random(200), b + 1e-4 * rng.random(200)
    for x, y in zip(c, d, strict=True):
        rivers.update(x, y)
    every = np.unique(np.concatenate([c, d]))
    ours = drift.ks_distance(every, np.searchsorted(np.sort(c), every, side="right") / len(c), d)
    assert ours == pytest.approx(rivers.get(), abs=1e-9)


def test_rivers_window_detector_agrees_on_when_a_mean_moved() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.normal(size=200), rng.normal(1.5, size=60)
    detector = river.drift.KSWIN(alpha=1e-4, window_size=120, stat_size=40, seed=1)
    fired = []
    for i, x in enumerate([*before, *after]):
        detector.update(x)
        if detector.drift_detected:
            fired.append(i)
    assert fired
    assert fired[0] >= 200
    at = np.sort(before)
    share = np.arange(1, 201) / 200
    assert drift.ks_p(drift.ks_distance(at, share, after[:40]), 40, 200) < 1e-4
    assert drift.ks_p(drift.ks_distance(at, share, rng.normal(size=40)), 40, 200) > 1e-3


def test_few_points_never_give_more_distance() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        a, b = rng.gamma(2, size=400), rng.gamma(2, 1.2, size=150)
        at = np.quantile(a, np.linspace(0, 1, 30), method="inverted_cdf")
        share = np.searchsorted(np.sort(a), at, side="right") / len(a)
        full = scipy.stats.ks_2samp(a, b).statistic
        assert full - 0.05 <= drift.ks_distance(at, share, b) <= full + 1e-12


@given(st.floats(0, 400), st.integers(1, 60))
def test_the_chi_square_tail_is_scipys(statistic: float, freedom: int) -> None:
    assert drift.chi_square_tail(statistic, freedom) == pytest.approx(
        scipy.stats.chi2.sf(statistic, freedom), rel=1e-9, abs=1e-300
    )


@given(st.lists(st.integers(1, 400), min_size=2, max_size=9), st.lists(st.integers(1, 400), min_size=2, max_size=9))
def test_chi_square_is_scipys(a: list[int], b: list[int]) -> None:
    size = min(len(a), len(b))
    table = np.array([a[:size], b[:size]], float)
    expected = scipy.stats.chi2_contingency(table, correction=False)
    got = drift.chi_square(table[0], table[1])
    assert got.freedom == expected.dof
    assert got.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-300)


@given(counts, counts)
def test_pooling_keeps_every_row_and_leaves_no_rare_category(a: np.ndarray, b: np.ndarray) -> None:
    size = min(len(a), len(b))
    a, b = a[:size], b[:size]
    if not a.sum() or not b.sum():
        return
    x, y = drift.pool(a, b)
    assert (x.sum(), y.sum()) == (a.sum(), b.sum())
    smaller = min(a.sum(), b.sum()) / (a.sum() + b.sum())
    if len(x) > 1:
        assert ((x + y) * smaller >= drift.MIN_EXPECTED - 1e-9).all()


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_two_shares_as_fishers_exact_test(n: int, m: int, p: float, q: float) -> None:
    a, b = round(p * n), round(q * m)
    expected = scipy.stats.fisher_exact([[a, n - a], [b, m - b]])[1]
    assert drift.share_p(a, n, b, m) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_share_of_a_million_rows() -> None:
    assert drift.share_p(300_000, 10**6, 300_100, 10**6) > 0.5
    assert drift.share_p(300_000, 10**6, 310_000, 10**6) < 1e-40


def direct_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, pair by pair."""
    z = np.concatenate([x, y])
    d = np.array([[((a - b) ** 2).sum() for b in z] for a in z])
    s2 = np.median(d[np.triu_indices(len(z), 1)])
    k = np.exp(-d / (2 * s2))
    m, n = len(x), len(y)
    xx = sum(k[i, j] for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k[m + i, m + j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return float(xx + yy - 2 * k[:m, m:].mean())


def test_mmd_is_its_definition_and_repeats() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(20, 5)), rng.normal(0.5, size=(15, 5))
    got = drift.mmd(x, y, level=0.01)
    assert got.value == pytest.approx(direct_mmd(x, y), abs=1e-6)
    assert got == drift.mmd(x, y, level=0.01)


def test_mmd_alarms_as_often_as_its_level_says() -> None:
    rng = np.random.default_rng(5)
    p = np.array([drift.mmd(rng.normal(size=(40, 4)), rng.normal(size=(30, 4)), level=0.05).p for _ in range(200)])
    assert (p <= 0.05).mean() <= 0.1
    assert 0.3 < np.median(p) < 0.7
    wide = drift.mmd(rng.normal(size=(60, 4)), 2 * rng.normal(size=(60, 4)), level=0.01)
    assert wide.p < 0.01
    assert wide.value > wide.threshold


def test_mmd_of_equal_rows_is_no_alarm() -> None:
    same = np.ones((10, 3))
    assert drift.mmd(same, same, level=0.01).p == 1.0


def test_holm_by_hand_and_scipy_bounds() -> None:
    assert drift.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert drift.holm([]) == []
    assert drift.holm([0.9, 0.8]) == [1.0, 1.0]
    rng = np.random.default_rng(6)
    p = rng.random(40).tolist()
    adjusted = np.array(drift.holm(p))
    assert (adjusted >= p).all()
    assert (adjusted >= scipy.stats.false_discovery_control(p, method="bh") - 1e-12).all()
