"""Which rows to take together. Dimensions: N rows, L rows that are labelled, E embedding, C classes, B rows of a block.

Embeddings may lie on disk: every function reads them block by block, once a row that is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 16_384


def highest(scores_N: np.ndarray, n: int) -> np.ndarray:
    """Places of the n highest scores, best first; of equals the first. NaN is never chosen."""
    known = np.flatnonzero(~np.isnan(scores_N))
    return np.asarray(known[np.argsort(-scores_N[known], kind="stable")[:n]])


def k_center(x_NE: np.ndarray, n: int, labelled_LE: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """k-center greedy (Sener & Savarese 2018, algorithm 1): again and again the row that is farthest from all rows that
    are labelled or chosen. Without labelled rows the first one is the nearest to the mean.

    Returns places (n,) in order, and how far each was from what was there before it (infinite for the first of all).
    """
    gap_N = np.full(len(x_NE), np.inf)
    if labelled_LE is not None and len(labelled_LE):
        for at, block in _blocks(labelled_LE):
            for row in range(len(block)):
                _nearer(gap_N, x_NE, labelled_LE[at + row])
    places, gaps = [], []
    open_N = np.ones(len(x_NE), bool)
    for _ in range(min(n, len(x_NE))):
        if np.isinf(gap_N[0]):
            mean_E = sum((b.sum(axis=0) for _, b in _blocks(x_NE)), np.zeros(x_NE.shape[1])) / len(x_NE)
            start_N = np.full(len(x_NE), np.inf)
            _nearer(start_N, x_NE, mean_E)
            place = int(start_N.argmin())
        else:
            place = int(np.where(open_N, gap_N, -1.0).argmax())
        places.append(place)
        gaps.append(float(np.sqrt(gap_N[place])))
        open_N[place] = False
        _nearer(gap_N, x_NE, x_NE[place])
    return np.array(places, np.int64), np.array(gaps)


def _nearer(gap_N: np.ndarray, x_NE: np.ndarray, centre_E: np.ndarray) -> None:
    """Shorten the squared distances to those from `centre_E`, in place."""
    centre_E = np.asarray(centre_E, np.float64)
    for at, block in _blocks(x_NE):
        own_B = ((block - centre_E) ** 2).sum(axis=1)
        np.minimum(gap_N[at : at + len(block)], own_B, out=gap_N[at : at + len(block)])


def badge(
    chances_NC: np.ndarray, x_NE: np.ndarray, n: int, rng: np.random.Generator, *, several: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """BADGE (Ash et al. 2020, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds"): k-means++
    seeding (Arthur & Vassilvitskii 2007) of the rows' gradients of the last layer's weights, as if the likeliest class
    were the true one: g = (p - onehot(argmax p)) ⊗ x. Long gradients are unsure rows, distant ones unlike rows.

    g has C·E numbers and is never made: ‖g_i - g_j‖² = ‖r_i‖²‖x_i‖² + ‖r_j‖²‖x_j‖² - 2 (r_i·r_j)(x_i·x_j).
    As in the authors' code the first row is the one of the longest gradient, and each next one is drawn by its squared
    distance from the nearest chosen.

    Returns places (n,) in order, and the length of each one's gradient.
    """
    rows = len(x_NE)
    length_N = np.empty(rows)
    for at, block in _blocks(x_NE):
        r_BC = residual(chances_NC[at : at + len(block)], several=several)
        length_N[at : at + len(block)] = (r_BC**2).sum(axis=1) * (block**2).sum(axis=1)
    gap_N = np.full(rows, np.inf)
    places: list[int] = []
    open_N = np.ones(rows, bool)
    for _ in range(min(n, rows)):
        if not places:
            place = int(length_N.argmax())
        else:
            weight_N = np.where(open_N, gap_N, 0.0)
            total = float(weight_N.sum())
            left = np.flatnonzero(open_N)
            place = int(rng.choice(rows, p=weight_N / total)) if total > 0 else int(rng.choice(left))
        places.append(place)
        open_N[place] = False
        r_C = residual(np.asarray(chances_NC[place : place + 1]), several=several)[0]
        x_E = np.asarray(x_NE[place], np.float64)
        for at, block in _blocks(x_NE):
            here = slice(at, at + len(block))
            dot_B = (residual(chances_NC[here], several=several) @ r_C) * (block @ x_E)
            own_B = np.maximum(length_N[here] + length_N[place] - 2 * dot_B, 0.0)
            own_B[own_B < 1e-9 * (length_N[here] + length_N[place])] = (
                0.0  # what is left of equal gradients is rounding
            )
            np.minimum(gap_N[here], own_B, out=gap_N[here])
    chosen = np.array(places, np.int64)
    return chosen, np.sqrt(length_N[chosen])


def residual(chances_NC: np.ndarray, *, several: bool) -> np.ndarray:
    """p less the answer that the model gives: (N, C)."""
    p_NC = np.array(chances_NC, np.float64)
    if several:
        return p_NC - (p_NC >= 0.5)
    p_NC[np.arange(len(p_NC)), p_NC.argmax(axis=1)] -= 1
    return p_NC


def _blocks(x_NE: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for at in range(0, len(x_NE), BLOCK):
        yield at, np.asarray(x_NE[at : at + BLOCK], np.float64)
