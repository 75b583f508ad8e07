"""Dealing rows and groups of rows out to parts. Dimensions: N rows, G groups, C classes, P parts, T ways to class."""

from __future__ import annotations

import numpy as np

GREEDY_GROUPS = 20_000


def allot_rows(labels: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Part of each row, (N,) int64, with every class near `shares` and every part near its size.

    Part 0 gets a row of every class, and every other part with a share gets a row while there are rows enough.

    Args:
        labels: (N,) class of each row, non-negative.
        shares: (P,) that sum to 1.
        random: the order in which a class's rows are dealt.
    """
    out = np.zeros(len(labels), dtype=np.int64)
    if not len(labels):
        return out
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # shuffled within each class
    classes, sizes = np.unique(labels, return_counts=True)
    counts_CP = _counts(sizes, shares, random.permutation(len(classes)))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for c in range(len(classes)):
        out[order[starts[c] : starts[c + 1]]] = np.repeat(np.arange(len(shares)), counts_CP[c])
    return out


def _counts(sizes: np.ndarray, shares: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(C, P) rows of each class for each part. Rounding errors are carried from class to class, so that the parts'
    totals come out right too."""
    counts = np.zeros((len(sizes), len(shares)), dtype=np.int64)
    carried = np.zeros(len(shares))
    for c in order:
        want = sizes[c] * shares + carried
        counts[c] = np.maximum(np.floor(want + 1e-9), 0)
        # Ties go to part 0: a class of one row trains.
        rest = want - counts[c]
        rest[0] += 1e-6
        while counts[c].sum() < sizes[c]:
            best = int(np.argmax(np.where(shares > 0, rest, -np.inf)))
            counts[c, best] += 1
            rest[best] -= 1
        while counts[c].sum() > sizes[c]:
            worst = int(np.argmin(np.where(counts[c] > 0, rest, np.inf)))
            counts[c, worst] -= 1
            rest[worst] += 1
        if counts[c, 0] == 0:
            giver = int(np.argmax(counts[c]))
            counts[c, giver] -= 1
            counts[c, 0] += 1
        carried = want - counts[c]
    # A part that rounding left empty gets a row of the largest class that can spare one.
    for part in np.flatnonzero((counts.sum(0) == 0) & (shares > 0)):
        for giver in np.argsort(-counts.sum(0), kind="stable"):
            c = int(np.argmax(counts[:, giver]))
            if counts[:, giver].sum() > 1 and counts[c, giver] > (1 if giver == 0 else 0):
                counts[c, giver] -= 1
                counts[c, part] += 1
                break
    return counts


def allot_groups(groups: np.ndarray, labels: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Part of each row, (N,) int64, never parting a group, with classes and sizes as near to `shares` as that allows.

    Greedy, after scikit-learn's StratifiedGroupKFold, for parts of any size: groups come in random order (the largest
    first where some are large), and each goes where it lowers Σ (rows - wanted)² / wanted over classes and parts most.
    Beyond 20,000 groups each counts as its commonest class and is dealt like a row, weighing as many rows as it has.

    Args:
        groups: (N,) group of each row.
        labels: (N,) class of each row, or (N, T) in each of T ways to class it, which are spread each for itself.
        shares: (P,) that sum to 1.
        random: the order of the groups.
    """
    if not len(groups):
        return np.zeros(0, dtype=np.int64)
    _, group = np.unique(groups, return_inverse=True)
    G = int(group.max()) + 1
    if G > GREEDY_GROUPS:
        return _dealt(group, joint(labels), shares, random)[group]
    ways = []
    for column_N in labels.reshape(len(labels), -1).T:
        _, label = np.unique(column_N, return_inverse=True)
        own_GC = np.zeros((G, int(label.max()) + 1), dtype=np.float64)
        np.add.at(own_GC, (group, label), 1)
        ways.append(own_GC)
    rows_GC = np.concatenate(ways, axis=1)
    sizes = ways[0].sum(1)
    open_parts = np.flatnonzero(shares > 0)
    order = random.permutation(G)
    if sizes.max() > 0.25 * shares[open_parts].min() * sizes.sum():
        order = order[np.argsort(-sizes[order], kind="stable")]
    # Wanted rows by part and class; the part's size counts as one more class.
    more_GC = np.concatenate([rows_GC, sizes[:, None]], axis=1)
    want_PC = shares[open_parts, None] * more_GC.sum(0)
    have_PC = np.zeros_like(want_PC)
    part = np.zeros(G, dtype=np.int64)
    for g in order:
        row_C = more_GC[g]
        cost_P = (((have_PC + row_C - want_PC) ** 2 - (have_PC - want_PC) ** 2) / want_PC).sum(1)
        best = int(np.argmin(cost_P))
        have_PC[best] += row_C
        part[g] = open_parts[best]
    _fill_empty(part, sizes, open_parts)
    return part[group]


def joint(labels: np.ndarray) -> np.ndarray:
    """(N,) one class number for each different row of `labels`, (N,) or (N, T)."""
    return np.unique(labels.reshape(len(labels), -1), axis=0, return_inverse=True)[1].reshape(-1)


def _fill_empty(part: np.ndarray, sizes: np.ndarray, open_parts: np.ndarray) -> None:
    """Give each empty part the smallest group of the part that has most groups, while one has two."""
    for empty in open_parts:
        if (part == empty).any():
            continue
        counts = np.bincount(part, minlength=int(open_parts.max()) + 1)
        giver = int(np.argmax(counts))
        if counts[giver] < 2:
            return
        own = np.flatnonzero(part == giver)
        part[own[np.argmin(sizes[own])]] = empty


def _dealt(group: np.ndarray, label: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(G,) parts for very many groups: by class, shuffled, cut where their rows reach the shares."""
    G, C = int(group.max()) + 1, int(label.max()) + 1
    pairs, counts = np.unique(group * C + label, return_counts=True)
    order = np.lexsort((-counts, pairs // C))
    owners = pairs[order] // C
    first = np.concatenate([[True], owners[1:] != owners[:-1]])
    common = np.zeros(G, dtype=np.int64)
    common[owners[first]] = pairs[order][first] % C
    sizes = np.bincount(group, minlength=G)
    part = np.zeros(G, dtype=np.int64)
    bounds = np.cumsum(shares)[:-1]
    for c in np.unique(common):
        own = random.permutation(np.flatnonzero(common == c))
        middle = np.cumsum(sizes[own]) - sizes[own] / 2
        part[own] = np.searchsorted(bounds, middle / sizes[own].sum(), side="right")
    return part
