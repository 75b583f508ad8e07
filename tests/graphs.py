"""Graphs made by code: one whose edges alone reveal a label, and triples that a rule explains."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

CLASSES = ("amber", "blue", "coral", "dun")


def write_club(folder: Path, rows: int = 400, *, seed: int = 0, hubs: int = 40, strangers: int = 40) -> Path:
    """People, and the clubs that they belong to; table.csv, triples.csv and later.csv in `folder`.

    Each of `hubs` clubs has a colour, one of four, which no file says. A person's label is the colour of three of the
    four clubs that they are a member of; the fourth has any colour. Beside it each `admires` two clubs of any colour:
    only the relation tells such an edge from a membership. Ids are shuffled, so that neither they nor their order tell
    anything; the column `noise` is noise. Every person has one row and so no person of a test row was trained on.
    `strangers` more people have edges, and rows in later.csv only. The best possible accuracy is 1.
    """
    rng = np.random.default_rng(seed)
    colour = rng.permutation(np.arange(hubs) % len(CLASSES))
    people = [f"p{i}" for i in rng.permutation(rows + strangers)]
    label = rng.integers(0, len(CLASSES), rows + strangers)
    triples = []
    for person, own in zip(people, label, strict=True):
        inside = rng.choice(np.flatnonzero(colour == own), 3, replace=False)
        other = rng.choice(np.setdiff1d(np.arange(hubs), inside))
        triples += [(person, "member", f"club {c}") for c in (*inside, other)]
        triples += [(person, "admires", f"club {c}") for c in rng.choice(hubs, 2, replace=False)]
    folder.mkdir(parents=True, exist_ok=True)
    heads, relations, tails = zip(*[triples[i] for i in rng.permutation(len(triples))], strict=True)
    pl.DataFrame({"head": heads, "relation": relations, "tail": tails}).write_csv(folder / "triples.csv")
    noise = rng.normal(size=len(people)).round(3)
    table = pl.DataFrame({"who": people, "noise": noise, "colour": [CLASSES[k] for k in label]})
    table[:rows].write_csv(folder / "table.csv")
    table[rows:].write_csv(folder / "later.csv")
    return folder / "table.csv"


def torus(sides: tuple[int, ...] = (24, 25), *, share: float = 0.7, seed: int = 0) -> tuple[np.ndarray, int, int]:
    """Triples (E, 3) that rules explain, how many entities and how many relations: link prediction can be learned.

    Entities are the places of a torus of `sides`, in shuffled order; a relation is a step: +1, -1, +3 along each side,
    one along all of them, and a last one, of several tails, to every place a step along each side away (the corners).
    Of all true triples a random `share` is kept, in random order.
    """
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.arange(n) for n in sides], indexing="ij"), -1).reshape(-1, len(sides))
    steps = [[np.eye(len(sides), dtype=int)[k] * by] for k in range(len(sides)) for by in (1, -1, 3)]
    steps += [[np.ones(len(sides), dtype=int)], list(np.array(list(product((1, -1), repeat=len(sides)))))]
    number = rng.permutation(len(places))
    triples = []
    for relation, step in ((relation, step) for relation, several in enumerate(steps) for step in several):
        ends = np.ravel_multi_index(((places + step) % sides).T, sides)
        triples.append(np.stack([number, np.full(len(places), relation), number[ends]], axis=1))
    every = rng.permutation(np.concatenate(triples))
    return every[: int(share * len(every))], len(places), len(steps)
