"""Which row trains, validates and tests. Dimensions: N rows, G groups, C classes, P parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from fuseline.data.allot import allot_groups, allot_rows, joint
from fuseline.data.guess import SPLIT_WORDS, is_blank, key_of
from fuseline.data.moments import moments
from fuseline.data.table import Table, cells
from fuseline.errors import FuselineError, closest
from fuseline.recipe import SplitSpec, Stratify

TRAIN, VAL, TEST, UNUSED = 0, 1, 2, -1
NAMES = ("train", "val", "test")
BINS = 10
"""quantile bins that numeric targets are stratified by"""


@dataclass
class Split:
    """`part` (N,) int8: 0 train, 1 val, 2 test, -1 unused. `notes`: what should be said aloud."""

    part: np.ndarray
    notes: list[str] = field(default_factory=list)

    def rows(self, part: int) -> np.ndarray:
        """The row numbers of a part, rising."""
        return np.flatnonzero(self.part == part)


def make_split(
    table: Table,
    spec: SplitSpec,
    *,
    target_column: str | None,
    stratify: Stratify,
    spread: Mapping[str, Stratify] | None = None,
) -> Split:
    """Divide the rows by the rule of `spec`. A function of the table and the spec alone; reads only their columns.

    - random: by a seeded permutation.
    - stratified: every class (every tenth of a numeric target) in the same shares; a class of one row trains.
    - group: rows with the same value of ``spec.group`` stay together, classes as balanced as that allows; a row
      without a group is a group of its own.
    - time: later rows test, earlier ones train; rows of one moment stay together.
    - given: as ``spec.column`` says; where it names no row for validation, some of the training rows.

    Rows without a target (or, by time, without a moment) are unused.

    Args:
        table: N rows.
        spec: the recipe's split. `folds` is left aside: see :func:`make_folds`.
        target_column: None: rows count as used whatever they hold.
        stratify: by the target's classes, by quantiles of its numbers, or not at all.
        spread: without a target column, those of several tasks: the classes of each are spread, absence being one.

    Raises:
        FuselineError: ``missing_column``, ``no_target``, ``too_few_rows``, ``too_few_groups``, ``bad_split``,
            ``bad_cell`` (with row and column).
    """
    work = _Work(table, spec, target_column, stratify, spread or {})
    match spec.kind:
        case "random":
            work.mix(work.used, work.shares, by_class=False)
        case "stratified":
            work.mix(work.used, work.shares, by_class=True)
        case "group":
            work.mix_groups(work.used, work.shares)
        case "time":
            work.cut_time()
        case "given":
            work.follow_column()
    return work.done()


def make_folds(
    table: Table,
    spec: SplitSpec,
    *,
    target_column: str | None,
    stratify: Stratify,
    spread: Mapping[str, Stratify] | None = None,
) -> list[Split]:
    """`spec.folds` splits whose test parts are disjoint and together all used rows; `spec.test` is left aside.

    Within each, `spec.val` of the other rows validate, by the same rule. By time the rows are cut into one more piece
    than folds: each fold tests on a piece and trains on all before it, and later rows are unused.

    Raises as :func:`make_split`; ``bad_split`` for less than two folds and for a given split.
    """
    if spec.folds < 2:
        raise FuselineError("bad_split", f"{spec.folds} folds are no cross-validation", "set split.folds to 2 or more")
    if spec.kind == "given":
        raise FuselineError("bad_split", "a given split has no folds", "set split.folds to 0, or another split.kind")
    work = _Work(table, spec, target_column, stratify, spread or {})
    if spec.kind == "time":
        return work.time_folds()
    fold = np.full(table.n_rows, -1, dtype=np.int64)
    even = [1 / spec.folds] * spec.folds
    if spec.kind == "group":
        fold[work.used] = work.by_group(work.used, even, spec.seed)
    else:
        fold[work.used] = work.by_class(work.used, even, spec.seed, spec.kind == "stratified")
    missing = [k for k in range(spec.folds) if not (fold == k).any()]
    if missing:
        raise _too_few(spec, len(work.used), f"{spec.folds} folds")
    splits = []
    for k in range(spec.folds):
        one = _Work.like(work, spec.seed + 1 + k)
        rest = work.used[fold[work.used] != k]
        shares = [1 - spec.val, spec.val]
        if spec.kind == "group":
            one.mix_groups(rest, shares)
        else:
            one.mix(rest, shares, by_class=spec.kind == "stratified")
        one.part[fold == k] = TEST
        splits.append(one.done())
    return splits


class _Work:
    """The columns that a split needs, read once, and the parts that are being filled."""

    def __init__(
        self,
        table: Table,
        spec: SplitSpec,
        target_column: str | None,
        stratify: Stratify,
        spread: Mapping[str, Stratify],
    ) -> None:
        needed = {"group": spec.group, "time": spec.time, "given": spec.column}.get(spec.kind)
        table.require([c for c in (needed, target_column) if c is not None])
        self.table, self.spec, self.target_column, self.stratify = table, spec, target_column, stratify
        self.seed = spec.seed
        self.part = np.full(table.n_rows, UNUSED, dtype=np.int8)
        self.notes: list[str] = []
        self.labels: np.ndarray | None = None
        """(N,) class numbers, -1 without a target, or (N, T) of several tasks; None where nothing is stratified"""
        used = np.ones(table.n_rows, dtype=bool)
        if target_column is not None:
            self.labels, used = _labels(table, target_column, stratify)
            lost = int((~used).sum())
            if lost == table.n_rows:
                raise FuselineError(
                    "no_target", "no row has a target", "choose a column with values", column=target_column
                )
            if lost:
                self.notes.append(f"{lost} of {table.n_rows} rows have no {target_column} and are left out")
        elif ways := [_labels(table, column, how)[0] for column, how in spread.items() if how != "none"]:
            self.labels = np.stack(ways, axis=1)
        self.used = np.flatnonzero(used)
        self.shares = [1 - spec.val - spec.test, spec.val, spec.test]
        self.groups: np.ndarray | None = None
        if spec.kind == "group":
            assert spec.group is not None
            self.groups = self._read_groups(spec.group)

    @classmethod
    def like(cls, other: _Work, seed: int) -> _Work:
        """The same columns, another seed, empty parts."""
        work = object.__new__(cls)
        work.__dict__.update(other.__dict__)
        work.seed, work.notes = seed, list(other.notes)
        work.part = np.full(other.table.n_rows, UNUSED, dtype=np.int8)
        return work

    def _read_groups(self, column: str) -> np.ndarray:
        """(N,) group numbers."""
        codes = codes_of(self.table.column(column))
        alone = np.flatnonzero(codes < 0)
        codes[alone] = codes.max(initial=-1) + 1 + np.arange(len(alone))
        count = len(np.unique(codes[self.used]))
        lost = int(np.isin(alone, self.used).sum())
        if lost:
            self.notes.append(f"{lost} rows have no {column}: each counts as a group of its own")
        if count == 1:
            raise FuselineError(
                "too_few_groups", f"every row has the same {column}", "choose another split.kind", column=column
            )
        return codes

    def by_class(self, rows: np.ndarray, shares: list[float], seed: int, by_class: bool) -> np.ndarray:
        labels = joint(self.labels[rows]) if by_class and self.labels is not None else np.zeros(len(rows), np.int64)
        return allot_rows(labels, np.array(shares), _random(seed))

    def by_group(self, rows: np.ndarray, shares: list[float], seed: int) -> np.ndarray:
        assert self.groups is not None
        labels = self.labels[rows] if self.labels is not None else np.zeros(len(rows), np.int64)
        return allot_groups(self.groups[rows], labels, np.array(shares), _random(seed))

    def mix(self, rows: np.ndarray, shares: list[float], *, by_class: bool) -> None:
        self.part[rows] = self.by_class(rows, shares, self.seed, by_class)
        self._check(shares)
        if by_class and self.labels is not None and self.stratify == "classes":
            sizes = np.bincount(self.labels[rows])  # stratified by one target: (N,)
            single = int((sizes == 1).sum())
            if single and len(sizes) > 1:
                self.notes.append(f"{single} classes of {self.target_column} have one row only: it is trained on")

    def mix_groups(self, rows: np.ndarray, shares: list[float]) -> None:
        self.part[rows] = self.by_group(rows, shares, self.seed)
        self._check(shares)
        self._say_missing_classes()

    def _check(self, shares: list[float]) -> None:
        """Every part that was asked for has a row."""
        for number, share in enumerate(shares):
            if share > 0 and not (self.part == number).any():
                raise _too_few(self.spec, len(self.used), "train, val and test" if len(shares) > 2 else "train and val")

    def _say_missing_classes(self) -> None:
        if self.labels is None or self.stratify != "classes":
            return
        classes = set(np.unique(self.labels[self.used]).tolist())
        for number, name in enumerate(NAMES):
            rows = self.part == number
            lost = len(classes - set(np.unique(self.labels[rows]).tolist())) if rows.any() else 0
            if lost:
                self.notes.append(f"{name} holds no row of {lost} of {len(classes)} classes of {self.target_column}")

    def _in_time(self) -> tuple[np.ndarray, np.ndarray]:
        """(used rows in order of time, their moments)."""
        assert self.spec.time is not None
        when = moments(self.table.column(self.spec.time))[self.used]
        lost = int(np.isnan(when).sum())
        if lost:
            self.notes.append(f"{lost} rows have no {self.spec.time} and are left out")
        order = np.argsort(when, kind="stable")[: len(when) - lost]
        rows, when = self.used[order], when[order]
        if len(rows) and when[0] == when[-1]:
            raise FuselineError(
                "too_few_rows",
                f"every row has the same {self.spec.time}",
                "choose another split.kind",
                column=self.spec.time,
            )
        return rows, when

    def _cuts(self, when: np.ndarray, shares: list[float]) -> list[int]:
        """(P + 1) places in the ordered moments, between parts near `shares`: none parts equal moments, and every part
        with a share has a row."""
        between = np.flatnonzero(when[1:] != when[:-1]) + 1
        left = sum(share > 0 for share in shares) - 1  # cuts still to be placed
        if len(between) < left:
            raise _too_few(self.spec, len(self.used), f"{left + 1} parts that share no moment")
        cuts, reached, low = [0], 0.0, 0
        for share in shares:
            reached += share
            if share <= 0 or left == 0:
                cuts.append(len(when) if share > 0 else cuts[-1])
                continue
            nearest = int(np.argmin(np.abs(between - reached * len(when))))
            at = int(np.clip(nearest, low, len(between) - left))
            cuts.append(int(between[at]))
            low, left = at + 1, left - 1
        return cuts

    def cut_time(self) -> None:
        rows, when = self._in_time()
        if self.spec.val_from or self.spec.test_from:
            first, second = self._given_cuts(when)
        else:
            _, first, second, _ = self._cuts(when, self.shares)
        self.part[rows[:first]] = TRAIN
        self.part[rows[first:second]] = VAL
        self.part[rows[second:]] = TEST
        self._say_missing_classes()

    def _given_cuts(self, when: np.ndarray) -> tuple[int, int]:
        """Places of the first validation and the first test moment."""
        assert self.spec.time is not None
        series = self.table.column(self.spec.time)
        test = len(when) if self.spec.test_from is None else np.searchsorted(when, _bound(self.spec.test_from, series))
        if self.spec.val_from is not None:
            val = int(np.searchsorted(when, _bound(self.spec.val_from, series)))
        else:  # the share of what comes before the test rows
            val = self._cuts(when[:test], [1 - self.spec.val, self.spec.val])[1] if self.spec.val else int(test)
        if not 0 < val <= test:
            raise FuselineError(
                "bad_split",
                f"split.val_from {self.spec.val_from} and test_from {self.spec.test_from} leave no row to train on",
                f"the moments rise from {series.drop_nulls().min()!s} to {series.drop_nulls().max()!s}",
                column=self.spec.time,
            )
        return val, int(test)

    def time_folds(self) -> list[Split]:
        rows, when = self._in_time()
        pieces = self.spec.folds + 1
        cuts = self._cuts(when, [1 / pieces] * pieces)
        splits = []
        for k in range(1, pieces):
            one = _Work.like(self, self.seed)
            before = cuts[k]
            _, first, _ = self._cuts(when[:before], [1 - self.spec.val, self.spec.val])
            one.part[rows[:first]] = TRAIN
            one.part[rows[first:before]] = VAL
            one.part[rows[before : cuts[k + 1]]] = TEST
            one._say_missing_classes()
            splits.append(one.done())
        return splits

    def follow_column(self) -> None:
        spec = self.spec
        if spec.column is None:  # other files hold the other parts
            self.part[self.used] = TRAIN
        else:
            given = given_parts(self.table.column(spec.column), spec.column)
            self.part[self.used] = given[self.used]
            lost = int((given[self.used] == UNUSED).sum())
            if lost:
                self.notes.append(f"{lost} rows have no {spec.column} and are left out")
            if not (self.part == TRAIN).any():
                raise FuselineError("bad_split", f"{spec.column} names no row `train`", "", column=spec.column)
            if not (self.part == TEST).any():
                self.notes.append(f"{spec.column} names no row `test`: nothing is held back for the last measurement")
        if spec.val > 0 and spec.val_path is None and not (self.part == VAL).any():
            rows = np.flatnonzero(self.part == TRAIN)
            share = spec.val
            self.part[rows] = self.by_class(rows, [1 - share, share], self.seed, True)
            self._check([1 - share, share])
            self.notes.append(f"{int((self.part == VAL).sum())} rows of train validate: the given split names none")
        self._say_missing_classes()

    def done(self) -> Split:
        return Split(self.part, self.notes)


def codes_of(series: pl.Series) -> np.ndarray:
    """(N,) int64: the rank of each value's text among the different ones, -1 where absent."""
    if series.dtype != pl.String:
        series = pl.Series(series.name, [None if is_blank(v) else key_of(v) for v in cells(series)], dtype=pl.String)
    text = series.str.strip_chars()
    ranks = pl.select(pl.when(text != "").then(text)).to_series().rank("dense")
    return ranks.cast(pl.Int64).fill_null(0).to_numpy() - 1


def _labels(table: Table, column: str, stratify: Stratify) -> tuple[np.ndarray, np.ndarray]:
    """(N,) class numbers or quantile bins, and (N,) whether there is a target.

    Numbers that are none are a class of their own: the task names them. Of lists, the rarest label counts.
    """
    series = table.column(column)
    if stratify == "none":
        used = ~np.array([is_blank(v) for v in cells(series)])
        return np.where(used, 0, -1), used
    if stratify == "numbers":
        blank = series.is_null().to_numpy()
        text = series.dtype == pl.String
        numbers = (series.str.strip_chars() if text else series).cast(pl.Float64, strict=False).to_numpy().copy()
        # A whitespace-only text or a NaN is no target either.
        blank |= np.array([is_blank(v) for v in series.to_list()]) if text else np.isnan(numbers)
        good = np.isfinite(numbers)
        labels = np.zeros(len(numbers), dtype=np.int64)
        if good.any():
            edges = np.unique(np.quantile(numbers[good], np.linspace(0, 1, BINS + 1)[1:-1]))
            labels[good] = 1 + np.searchsorted(edges, numbers[good], side="right")
        labels[blank] = -1
        return labels, ~blank
    if isinstance(series.dtype, pl.List):
        values = series.to_list()
        counts: dict[str, int] = {}
        for cell in values:
            for label in cell or ():
                counts[key_of(label)] = counts.get(key_of(label), 0) + 1
        rarest = [
            None if cell is None else min((key_of(v) for v in cell), key=lambda k: (counts[k], k), default="(none)")
            for cell in values
        ]
        series = pl.Series(column, rarest, dtype=pl.String)
    labels = codes_of(series)
    return labels, labels >= 0


def _bound(text: str, series: pl.Series) -> float:
    """A moment of the recipe in the column's own units."""
    found = float(moments(pl.Series("split.val_from, split.test_from", [text]))[0])
    if series.dtype == pl.Date:
        return found / 86_400
    if isinstance(series.dtype, pl.Datetime):
        return found * {"ms": 1e3, "us": 1e6, "ns": 1e9}[series.dtype.time_unit]
    return found


def given_parts(series: pl.Series, column: str) -> np.ndarray:
    """(N,) part that each cell of a split's column names, -1 where it is blank."""
    out = np.full(len(series), UNUSED, dtype=np.int8)
    for row, cell in enumerate(cells(series)):
        if is_blank(cell):
            continue
        word = str(cell).strip().casefold()
        if word not in SPLIT_WORDS:
            near = closest(word, SPLIT_WORDS)
            hint = (f"did you mean {near!r}? " if near else "") + "cells say train, val or test"
            raise FuselineError("bad_cell", f"{str(cell)[:60]!r} is no part of a split", hint, row=row, column=column)
        out[row] = SPLIT_WORDS[word]
    return out


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed % 2**63)


def _too_few(spec: SplitSpec, rows: int, parts: str) -> FuselineError:
    if spec.kind == "group":
        return FuselineError(
            "too_few_groups", f"too few groups of {spec.group} for {parts}", "lower split.val or split.test, or set 0"
        )
    return FuselineError(
        "too_few_rows", f"{rows} rows are too few for {parts}", "lower split.val or split.test, or set them to 0"
    )
