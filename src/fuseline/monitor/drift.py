"""The tests behind drift, in numpy alone. Checked against scipy and river in the tests.

Dimensions: N rows of both samples together, P permutations, D width of an embedding, K categories or bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MIN_EXPECTED = 5.0
"""Cochran (1954): below so many expected rows a category is pooled with the other rare ones"""


def psi(reference_K: np.ndarray, now_K: np.ndarray) -> float:
    """Population stability index: sum of (q - p) ln(q / p) over bins, Jeffreys' (1946) divergence of two histograms.

    Args:
        reference_K: counts of the reference, one a bin.
        now_K: counts of the rows looked at, in the same bins.

    Half a row is added to every bin, so that an empty one is no infinity. By convention 0.1 is a moderate shift and
    0.25 a large one (Siddiqi 2006); for two normal distributions a mean's shift of s deviations gives s squared.
    """
    p_K = (reference_K + 0.5) / (reference_K.sum() + 0.5 * len(reference_K))
    q_K = (now_K + 0.5) / (now_K.sum() + 0.5 * len(now_K))
    return float(((q_K - p_K) * np.log(q_K / p_K)).sum())


def psi_beyond_chance(reference_K: np.ndarray, now_K: np.ndarray) -> float:
    """PSI less what equal distributions give on average by chance, (K - 1)(1/n + 1/m) (Yurdakul 2018); at least 0."""
    chance = (len(reference_K) - 1) * (1 / max(1.0, reference_K.sum()) + 1 / max(1.0, now_K.sum()))
    return max(0.0, psi(reference_K, now_K) - float(chance))


def ks_distance(at: np.ndarray, share: np.ndarray, values: np.ndarray, *, strictly: bool = False) -> float:
    """Kolmogorov-Smirnov distance, looked at only where the reference's distribution is known exactly.

    Args:
        at: rising points.
        share: the reference's share of values that are at most (`strictly`: below) each point.
        values: the rows looked at.
        strictly: which of the two shares is meant.

    Between the points nothing is guessed: steps of whole numbers and atoms make no false distance, and the distance is
    never larger than that of the full samples, so that its p-value stays on the safe side.
    """
    now = np.searchsorted(np.sort(values), at, side="left" if strictly else "right") / len(values)
    return float(np.abs(now - share).max(initial=0.0))


def ks_p(distance: float, n: int, m: int) -> float:
    """Chance of such a distance between two samples of one distribution, of `n` and `m` rows.

    The one-sample law at the effective size n m / (n + m), as scipy's ks_2samp does for large samples. Its upper tail
    is twice the one-sided tail of Birnbaum and Tingey (1951), all of whose terms are positive; above 0.3 it is
    Kolmogorov's series with Stephens' (1970) correction.
    """
    size = max(1, round(n * m / (n + m)))
    if distance <= 0:
        return 1.0
    if distance >= 1:
        return 0.0
    root = math.sqrt(size)
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0
    k = np.arange(1, 101)
    series = float(2 * ((-1.0) ** (k - 1) * np.exp(-2 * k**2 * scaled**2)).sum())
    if series > 0.3:
        return min(1.0, series)
    j = np.arange(int(size * (1 - distance)) + 1)
    left = 1 - distance - j / size
    keep = left > 0  # a last term of 0 has no logarithm
    j, left = j[keep], left[keep]
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])
    log_choose = log_factorial[size] - log_factorial[j] - log_factorial[size - j]
    logs = log_choose + (j - 1) * np.log(distance + j / size) + (size - j) * np.log(left)
    return min(1.0, 2 * distance * float(np.exp(logs).sum()))


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Q(freedom / 2, statistic / 2), the regularised upper incomplete gamma function, which for halves of whole
    numbers is a finite sum (Abramowitz and Stegun 26.4.4 and 26.4.5)."""
    y = statistic / 2
    if freedom < 1 or y <= 0:
        return 1.0
    first = 0.0 if freedom % 2 == 0 else 0.5
    steps = np.arange(freedom // 2) + first
    start = 0.0 if freedom % 2 == 0 else math.erfc(math.sqrt(y))
    logs = np.array([s * math.log(y) - y - math.lgamma(s + 1) for s in steps.tolist()])
    return min(1.0, start + float(np.exp(logs).sum()))


class ChiSquare(NamedTuple):
    statistic: float
    freedom: int
    p: float


def pool(reference_K: np.ndarray, now_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Categories with less than `MIN_EXPECTED` expected rows in either sample are counted together; the pool joins the
    smallest category left where it is too small itself."""
    total_K = reference_K + now_K
    smaller = min(reference_K.sum(), now_K.sum()) / max(1.0, total_K.sum())
    rare_K = total_K * smaller < MIN_EXPECTED
    a = np.append(reference_K[~rare_K], reference_K[rare_K].sum())
    b = np.append(now_K[~rare_K], now_K[rare_K].sum())
    if (a[-1] + b[-1]) * smaller < MIN_EXPECTED and len(a) > 1:
        home = int((a[:-1] + b[:-1]).argmin())
        a[home], b[home] = a[home] + a[-1], b[home] + b[-1]
        a, b = a[:-1], b[:-1]
    return a, b


def chi_square(reference_K: np.ndarray, now_K: np.ndarray) -> ChiSquare:
    """Pearson's test that two samples of counts have the same shares (a 2 x K table, K - 1 degrees of freedom)."""
    table = np.stack([reference_K, now_K]).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return ChiSquare(0.0, 0, 1.0)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    freedom = table.shape[1] - 1
    return ChiSquare(statistic, freedom, chi_square_tail(statistic, freedom))


def share_p(reference_hits: int, reference_rows: int, hits: int, rows: int) -> float:
    """Fisher's exact test (1922) that two shares are equal, two-sided: the chance of every table that is no more
    likely than this one. Exact for few rows, where the normal two-proportion test is not."""
    if not rows or not reference_rows:
        return 1.0
    total, all_hits = reference_rows + rows, reference_hits + hits
    # The hypergeometric law of `hits`, 40 deviations around its mean: beyond that every chance is 0.
    mean, share = rows * all_hits / total, all_hits / total
    reach = 40 * math.sqrt(rows * share * (1 - share) * reference_rows / max(1, total - 1)) + 40
    low = max(0, all_hits - reference_rows, math.floor(mean - reach))
    high = min(rows, all_hits, math.ceil(mean + reach))
    if not low <= hits <= high:
        return 0.0
    k = np.arange(low, high + 1)
    logs = _log_choose(all_hits, k) + _log_choose(total - all_hits, rows - k)
    logs -= logs.max()
    chances = np.exp(logs)
    here = chances[hits - low]
    return min(1.0, float(chances[chances <= here * (1 + 1e-9)].sum() / chances.sum()))


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    lg = np.frompyfunc(math.lgamma, 1, 1)
    return np.asarray(math.lgamma(n + 1) - lg(k + 1.0) - lg(n - k + 1.0), dtype=np.float64)


class Discrepancy(NamedTuple):
    value: float
    """squared maximum mean discrepancy, unbiased: below 0 by chance where the samples agree"""
    threshold: float
    """what a share `level` of the shuffles exceeds"""
    p: float


def rbf(points_ND: np.ndarray) -> np.ndarray:
    """exp(-|x - y|^2 / 2 s^2) between all rows (N, N), s the median distance between two rows (Gretton et al. 2012)."""
    points_ND = np.asarray(points_ND, dtype=np.float64)
    norms = (points_ND**2).sum(axis=1)
    squares = np.maximum(norms[:, None] + norms[None, :] - 2 * points_ND @ points_ND.T, 0)
    median = float(np.median(squares[np.triu_indices(len(points_ND), 1)]))
    return np.asarray(np.exp(-squares / (2 * median if median > 0 else 1.0)))


def mmd(reference_ND: np.ndarray, now_ND: np.ndarray, *, level: float, seed: int = 0) -> Discrepancy:
    """Maximum mean discrepancy with an RBF kernel: the unbiased estimator MMD_u^2 of Gretton et al. (2012, eq. 3), and
    its threshold and p-value from shuffling which row belongs to which sample.

    Args:
        reference_ND: the reference's embeddings, at least 2 rows.
        now_ND: the embeddings looked at, at least 2 rows.
        level: chance of a false alarm that the threshold is for. 2 / level shuffles, at least 500: less where it is
            soon clear that the samples agree (Besag and Clifford 1991).
        seed: of the shuffles.
    """
    m, n = len(reference_ND), len(now_ND)
    kernel = rbf(np.concatenate([reference_ND, now_ND]))
    np.fill_diagonal(kernel, 0.0)
    kernel = kernel.astype(np.float32)
    rows_N, total = kernel.sum(axis=1, dtype=np.float64), float(kernel.sum(dtype=np.float64))

    def value(chosen_PN: np.ndarray) -> np.ndarray:
        inside = np.einsum("pn,pn->p", chosen_PN @ kernel, chosen_PN, dtype=np.float64)
        row = chosen_PN @ rows_N
        across, outside = row - inside, total - 2 * row + inside
        return np.asarray(inside / (m * (m - 1)) + outside / (n * (n - 1)) - 2 * across / (m * n))

    truth_1N = np.zeros((1, m + n), np.float32)
    truth_1N[0, :m] = 1
    seen = float(value(truth_1N)[0])
    rng = np.random.default_rng(seed)
    wanted, shuffled = max(500, math.ceil(2 / level)), np.empty(0)
    while len(shuffled) < wanted:
        more = min(60 if not len(shuffled) else 250, wanted - len(shuffled))
        chosen_PN = rng.permuted(np.repeat(truth_1N, more, axis=0), axis=1)
        shuffled = np.append(shuffled, value(chosen_PN))
        if (shuffled >= seen).sum() >= 20:
            break
    p = float((1 + (shuffled >= seen).sum()) / (1 + len(shuffled)))
    return Discrepancy(seen, float(np.quantile(shuffled, 1 - level)), p)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values: alarming where one is at most a keeps the chance of *any* false alarm at most a,
    however the tests hang together (a patient's age and breaths do)."""
    order = np.argsort(p, kind="stable")
    out, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(order.tolist()):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        out[i] = worst
    return out
