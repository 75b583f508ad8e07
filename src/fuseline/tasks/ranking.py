"""How high the right candidate stands: recall at k, reciprocal rank, nDCG. Dimensions: N rows, Q queries, E embedding.

Candidates with equal similarity have no order. Every figure is its mean over all orders that the ties allow, so that a
model which gives everything one vector scores chance and neither 0 nor 1 (McSherry & Najork 2008).
"""

from __future__ import annotations

import numpy as np

AT = (1, 5, 10)
"""the k of recall at k"""
CUT = 10
"""of nDCG"""
DIGITS = 6
"""of a similarity: what differs by less is a tie, since a matrix product rounds equal vectors differently"""
CELLS = 4_000_000
"""similarities held at once"""
NAMES = (*(f"recall_at_{k}" for k in AT), "mrr", f"ndcg_at_{CUT}")


def place(
    query_NE: np.ndarray, candidate_NE: np.ndarray, same_query_N: np.ndarray, same_candidate_N: np.ndarray
) -> dict[str, np.ndarray]:
    """Row i of `query_NE` asks for row i of `candidate_NE`, out of all N. Returns NAMES and `rank` -> (N,).

    `same_*_N`: what tells contents apart. Rows that ask the same, or hold the same candidate, are right answers of each
    other, too. With several right answers, `recall_at_k` is 1 where at least one is among the first k (what recall at k
    means in the literature of images and captions), `mrr` and `rank` are of the first one, and nDCG is of all.
    """
    rows = len(query_NE)
    parts: list[dict[str, np.ndarray]] = []
    step = max(1, CELLS // max(1, rows))
    for start in range(0, rows, step):
        some = slice(start, start + step)
        scores_QN = np.round(query_NE[some].astype(np.float64) @ candidate_NE.astype(np.float64).T, DIGITS)
        right_QN = same_query_N[some, None] == same_query_N[None]
        right_QN |= same_candidate_N[some, None] == same_candidate_N[None]
        parts.append(_placed(scores_QN, right_QN))
    if not parts:
        return {name: np.empty(0) for name in (*NAMES, "rank")}
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _placed(scores_QN: np.ndarray, right_QN: np.ndarray) -> dict[str, np.ndarray]:
    """Every query has at least one right candidate."""
    best_Q1 = np.where(right_QN, scores_QN, -np.inf).max(axis=1, keepdims=True)
    above_Q = (scores_QN > best_Q1).sum(axis=1)
    tied_QN = scores_QN == best_Q1
    ties_Q, rights_Q = tied_QN.sum(axis=1), (tied_QN & right_QN).sum(axis=1)
    out = {f"recall_at_{k}": _hit(k - above_Q, ties_Q, rights_Q) for k in AT}
    out["mrr"] = _reciprocal(above_Q, ties_Q, rights_Q)
    out[f"ndcg_at_{CUT}"] = _gain(scores_QN, right_QN, above_Q, ties_Q)
    out["rank"] = above_Q + (ties_Q + 1) / (rights_Q + 1)
    return out


def _hit(drawn_Q: np.ndarray, ties_Q: np.ndarray, rights_Q: np.ndarray) -> np.ndarray:
    """Chance that the first `drawn` of `ties` in random order hold one of `rights`: 1 - C(t - r, m) / C(t, m)."""
    drawn_Q = np.clip(drawn_Q, 0, ties_Q)
    none_Q = np.ones(len(drawn_Q))
    for i in range(int(rights_Q.max(initial=0))):
        more_Q = i < rights_Q
        none_Q = np.where(more_Q, none_Q * np.maximum(ties_Q - drawn_Q - i, 0) / np.maximum(ties_Q - i, 1), none_Q)
    return 1 - none_Q


def _reciprocal(above_Q: np.ndarray, ties_Q: np.ndarray, rights_Q: np.ndarray) -> np.ndarray:
    """Mean of 1 / (above + X), X the place of the first of `rights` among `ties` in random order."""
    out = 1 / (above_Q + 1.0)
    for q in np.flatnonzero(ties_Q > rights_Q):
        ties, rights = int(ties_Q[q]), int(rights_Q[q])
        x = np.arange(1, ties - rights + 2)
        # P(X = 1) = r / t, P(X = x + 1) = P(X = x) · (t - x - r + 1) / (t - x)
        chance = rights / ties * np.cumprod(np.r_[1.0, (ties - x[:-1] - rights + 1) / (ties - x[:-1])])
        out[q] = (chance / (above_Q[q] + x)).sum()
    return np.asarray(out)


def _gain(scores_QN: np.ndarray, right_QN: np.ndarray, above_Q: np.ndarray, ties_Q: np.ndarray) -> np.ndarray:
    """nDCG (Järvelin & Kekäläinen 2002) of gains 0 and 1, discount 1 / log2(1 + place) down to place CUT."""
    discount = np.zeros(scores_QN.shape[1])
    discount[:CUT] = 1 / np.log2(np.arange(2, 2 + CUT))[: len(discount)]
    sums = np.r_[0.0, np.cumsum(discount)]
    wanted_Q = right_QN.sum(axis=1)
    out = (sums[above_Q + ties_Q] - sums[above_Q]) / ties_Q / sums[1]
    for q in np.flatnonzero(wanted_Q > 1):
        values, counts = np.unique(scores_QN[q], return_counts=True)
        ends = np.cumsum(counts[::-1])[::-1]  # candidates at this value or above
        at = np.searchsorted(values, scores_QN[q][right_QN[q]])
        means = (sums[ends] - sums[ends - counts]) / counts
        out[q] = means[at].sum() / sums[wanted_Q[q]]
    return np.asarray(out)
