"""Splits: every row in exactly one part, groups whole, classes kept, order of time kept, the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.data import allot
from fuseline.data.split import Split, make_folds, make_split
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.recipe import SplitSpec


def _spec(kind: str, **options: Any) -> SplitSpec:
    return SplitSpec.model_validate({"kind": kind, **options})


def _split(rows: Any, spec: SplitSpec, target: str | None = "y", task: str = "classes") -> Split:
    return make_split(Table.open(rows), spec, target_column=target, stratify=task)


def _error(rows: Any, spec: SplitSpec, target: str | None = "y") -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        _split(rows, spec, target)
    return caught.value


def _y(n: int, classes: int = 3) -> dict[str, list[Any]]:
    return {"y": [f"класс {i % classes}" for i in range(n)]}


@given(
    labels=st.lists(st.sampled_from(["a", "b", "ц", "稀"]), min_size=10, max_size=120),
    kind=st.sampled_from(["random", "stratified"]),
    val=st.sampled_from([0.0, 0.15, 0.3]),
    test=st.sampled_from([0.0, 0.2, 0.5]),
    seed=st.integers(-2, 5),
)
def test_every_row_is_in_one_part_of_the_right_size(
    labels: list[str], kind: str, val: float, test: float, seed: int
) -> None:
    frame = pl.DataFrame({"y": labels})
    spec = _spec(kind, val=val, test=test, seed=seed)
    part = _split(frame, spec).part
    assert part.dtype == np.int8
    assert set(part.tolist()) <= {0, 1, 2}
    sizes = np.bincount(part, minlength=3)
    assert np.abs(sizes - len(labels) * np.array([1 - val - test, val, test])).max() <= 4
    assert (sizes[1] == 0) == (val == 0)
    assert (sizes[2] == 0) == (test == 0)
    if kind == "stratified":
        assert {labels[i] for i in np.flatnonzero(part == 0)} == set(labels)
    assert (part == _split(frame, spec).part).all()


@given(
    groups=st.lists(st.integers(0, 30) | st.none(), min_size=20, max_size=150),
    seed=st.integers(0, 5),
    many=st.booleans(),
)
def test_groups_are_never_split(groups: list[int | None], seed: int, many: bool) -> None:
    if len({g for g in groups if g is not None}) + groups.count(None) < 6:
        return
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"g": groups, "y": rng.choice(["a", "b"], len(groups))}, schema_overrides={"g": pl.Int64})
    table = Table.open(frame)
    spec = _spec("group", group="g", seed=seed)
    most = allot.GREEDY_GROUPS
    try:
        allot.GREEDY_GROUPS = 0 if many else most
        splits = [make_split(table, spec, target_column="y", stratify="classes")]
        if not many:
            folds = spec.model_copy(update={"folds": 3})
            splits += make_folds(table, folds, target_column="y", stratify="classes")
    except FuselineError as error:
        assert many or len(set(groups)) < 8, error  # noqa: PT017
        assert error.code == "too_few_groups"  # noqa: PT017
        return
    finally:
        allot.GREEDY_GROUPS = most
    for split in splits:
        assert (split.part >= 0).all()
        parts: dict[int, set[int]] = {}
        for group, part in zip(groups, split.part.tolist(), strict=True):
            if group is not None:
                parts.setdefault(group, set()).add(part)
        assert all(len(p) == 1 for p in parts.values())
        assert any("group of its own" in n for n in split.notes) == (None in groups)


def test_groups_are_balanced_in_size_and_class() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(200), rng.integers(1, 8, 200))
    sick = rng.random(200) < 0.2
    frame = pl.DataFrame({"patient": patients, "y": sick[patients]})
    for seed in range(3):
        part = _split(frame, _spec("group", group="patient", seed=seed)).part
        assert np.abs(np.bincount(part) / len(part) - [0.7, 0.15, 0.15]).max() < 0.02
        assert max(abs(sick[patients][part == p].mean() - sick[patients].mean()) for p in range(3)) < 0.03
    one, two = (_split(frame, _spec("group", group="patient", seed=s)).part for s in (1, 2))
    assert (one != two).any()


@pytest.mark.parametrize("kind", ["group", "stratified"])
def test_targets_of_several_tasks_are_spread_each(kind: str) -> None:
    """A rare second target, known of two thirds of the rows, is in every part in like shares."""
    rng = np.random.default_rng(3)
    rows = 400
    icu = np.where(rng.random(rows) < 0.2, "yes", "no")
    frame = pl.DataFrame(
        {
            "patient": np.arange(rows) // 2,
            "finding": rng.choice(["a", "b"], rows).tolist(),
            "icu": [None if i % 3 == 0 else v for i, v in enumerate(icu)],
        }
    )
    spec = SplitSpec(kind=kind, group="patient" if kind == "group" else None, val=0.2, test=0.2)  # type: ignore[arg-type]
    spread = {"finding": "classes", "icu": "classes"}
    split = make_split(Table.open(frame), spec, target_column=None, stratify="none", spread=spread)  # type: ignore[arg-type]
    assert split.notes == []
    for column in spread:
        whole = frame[column].value_counts(normalize=True)
        for part in range(3):
            own = dict(frame[split.rows(part).tolist()][column].value_counts(normalize=True).iter_rows())
            for value, share in whole.iter_rows():
                assert own[value] == pytest.approx(share, abs=0.02)


def test_many_groups_keep_the_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allot, "GREEDY_GROUPS", 100)
    groups = np.repeat(np.arange(3000), 2)
    frame = pl.DataFrame({"g": groups, "y": groups % 3})
    part = _split(frame, _spec("group", group="g")).part
    assert np.abs(np.bincount(part) / len(part) - [0.7, 0.15, 0.15]).max() < 0.01
    assert max(abs((groups[part == p] % 3 == 0).mean() - 1 / 3) for p in range(3)) < 0.01


def test_one_giant_group_trains() -> None:
    frame = pl.DataFrame({"g": [1] * 80 + list(range(2, 22)), "y": ["a", "b"] * 50})
    part = _split(frame, _spec("group", group="g")).part
    assert set(part[:80].tolist()) == {0}
    assert {1, 2} <= set(part[80:].tolist())


def test_rare_classes_stay_in_train_and_it_is_said() -> None:
    frame = pl.DataFrame({"y": ["a"] * 50 + ["b"] * 40 + ["rare", "rare", "one"]})
    for seed in range(20):
        split = _split(frame, _spec("stratified", seed=seed))
        assert split.part[-1] == 0
        assert 0 in split.part[-3:-1]
        assert any("one row only" in note for note in split.notes)


def test_many_tiny_classes_still_give_the_right_sizes() -> None:
    frame = pl.DataFrame({"y": [f"c{i // 3}" for i in range(300)]})
    sizes = np.bincount(_split(frame, _spec("stratified", val=0.2, test=0.2)).part)
    assert sizes.tolist() == [180, 60, 60]


def test_numbers_are_stratified_by_quantiles() -> None:
    rng = np.random.default_rng(0)
    y = np.exp(rng.normal(size=1000) * 3)
    table = Table.open(pl.DataFrame({"y": [f"{v!r}" for v in y.tolist()]}))
    part = make_split(table, _spec("stratified"), target_column="y", stratify="numbers").part
    top = y >= np.quantile(y, 0.9)
    assert [int(top[part == p].sum()) for p in range(3)] == [70, 15, 15]


def test_rows_without_a_target_are_unused_and_counted() -> None:
    frame = pl.DataFrame({"y": ["a", None, " ", "b"] * 10})
    split = _split(frame, _spec("stratified"))
    assert (split.part.reshape(10, 4)[:, 1:3] == -1).all()
    assert (split.part.reshape(10, 4)[:, [0, 3]] >= 0).all()
    assert split.notes == ["20 of 40 rows have no y and are left out"]
    numbers = Table.open(pl.DataFrame({"y": [1.0, float("nan"), None, 2.0] * 10}))
    part = make_split(numbers, _spec("stratified"), target_column="y", stratify="numbers").part
    assert (part.reshape(10, 4)[:, 1:3] == -1).all()


def test_lists_of_labels_are_stratified_by_the_rarest() -> None:
    frame = pl.DataFrame({"y": [["a"], ["a", "b"], [], ["a", "rare"]] * 10})
    part = _split(frame, _spec("stratified", val=0.2, test=0.2)).part
    assert [int((part.reshape(10, 4)[:, 3] == p).sum()) for p in range(3)] == [6, 2, 2]


@given(times=st.lists(st.integers(0, 25), min_size=15, max_size=80))
def test_time_never_goes_back_and_ties_stay_together(times: list[int]) -> None:
    frame = pl.DataFrame({"when": [f"2020-01-{1 + t:02}" for t in times], "y": ["a"] * len(times)})
    try:
        part = _split(frame, _spec("time", time="when")).part
    except FuselineError as error:
        assert len(set(times)) < 3
        assert error.code == "too_few_rows"  # noqa: PT017
        return
    ends = [[t for t, p in zip(times, part.tolist(), strict=True) if p == k] for k in range(3)]
    assert max(ends[0]) < min(ends[1])
    assert max(ends[1]) < min(ends[2])


@pytest.mark.parametrize(
    "cells",
    [
        ["3.2.2020", "1.2.2020", "2.2.2020 10:30"],
        ["2020-02-03T00:00Z", "2020-02-01", "2020-02-02T12:00+05:00"],
        ["3", "1e0", "2.5"],
        [3, 1, 2],
    ],
)
def test_moments_in_many_spellings(cells: list[Any]) -> None:
    split = _split([{"t": c, "y": "a"} for c in cells], _spec("time", time="t", val=0.34, test=0.33))
    assert split.part.tolist() == [2, 0, 1]


def test_bad_moments_name_row_and_column() -> None:
    error = _error([{"t": "2020-01-01", "y": 1}, {"t": "gestern", "y": 1}], _spec("time", time="t"))
    assert (error.code, error.row, error.column) == ("bad_cell", 1, "t")
    error = _error([{"t": "5", "y": 1}, {"t": "2020-01-01", "y": 1}], _spec("time", time="t"))
    assert (error.code, error.row) == ("bad_cell", 1)
    split = _split([{"t": t, "y": "a"} for t in (1, 2, None, 3, 4, 5, 6, 7)], _spec("time", time="t"))
    assert split.part[2] == -1
    assert "1 rows have no t" in split.notes[0]
    assert _error([{"t": 1, "y": "a"}] * 9, _spec("time", time="t")).code == "too_few_rows"


def test_given_parts_are_followed() -> None:
    words = ["Train", "training", " test ", "dev", "validation", None]
    split = _split([{"s": w, "y": "a"} for w in words], _spec("given", column="s"))
    assert split.part.tolist() == [0, 0, 2, 1, 1, -1]
    error = _error([{"s": "train", "y": 1}, {"s": "trian", "y": 1}], _spec("given", column="s"))
    assert (error.code, error.row, error.column) == ("bad_cell", 1, "s")
    assert "train" in error.hint
    assert _error([{"s": "test", "y": 1}], _spec("given", column="s")).code == "bad_split"
    cut = _split([{"s": "train", "y": "a"}] * 20 + [{"s": "test", "y": "a"}] * 5, _spec("given", column="s", val=0.2))
    assert np.bincount(cut.part).tolist() == [16, 4, 5]
    assert any("validate" in n for n in cut.notes)


def test_given_files_leave_this_table_for_training() -> None:
    rows = [{"y": "a"}] * 20
    assert np.bincount(_split(rows, _spec("given", test_path="t.csv", val=0.1)).part).tolist() == [18, 2]
    spec = _spec("given", test_path="t.csv", val_path="v.csv")
    assert set(_split(rows, spec).part.tolist()) == {0}


def test_without_a_target_every_row_is_used() -> None:
    part = _split([{"a": None}] * 20, _spec("random"), None).part
    assert np.bincount(part).tolist() == [14, 3, 3]


def test_impossible_splits_say_why() -> None:
    frame = pl.DataFrame(_y(30) | {"g": ["same"] * 30})
    assert _error(frame, _spec("group", group="g")).code == "too_few_groups"
    assert _error(frame, _spec("group", group="gg")).code == "missing_column"
    assert _error(frame, _spec("time", time="x")).code == "missing_column"
    assert _error(frame, _spec("random"), "z").code == "missing_column"
    two = pl.DataFrame(_y(30) | {"g": ["a", "b"] * 15})
    assert _error(two, _spec("group", group="g")).code == "too_few_groups"
    assert _error(pl.DataFrame(_y(1)), _spec("stratified")).code == "too_few_rows"
    assert _error(pl.DataFrame(_y(2)), _spec("random")).code == "too_few_rows"
    error = _error(pl.DataFrame({"y": [None, None]}, schema={"y": pl.String}), _spec("stratified"))
    assert (error.code, error.column) == ("no_target", "y")


def test_one_class_and_three_rows_are_no_error_here() -> None:
    assert sorted(_split([{"y": "a"}] * 3, _spec("stratified")).part.tolist()) == [0, 1, 2]
    assert sorted(_split([{"y": 3.5}] * 3, _spec("stratified"), "y", "numbers").part.tolist()) == [0, 1, 2]
    assert sorted(_split([{"y": "two"}] * 3, _spec("stratified"), "y", "numbers").part.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["random", "stratified", "group"])
def test_folds_test_every_row_once(kind: str) -> None:
    frame = pl.DataFrame(_y(103) | {"g": [i // 3 for i in range(103)]})
    spec = _spec(kind, folds=5, seed=3, **({"group": "g"} if kind == "group" else {}))
    splits = make_folds(Table.open(frame), spec, target_column="y", stratify="classes")
    assert (np.sum([s.part == 2 for s in splits], axis=0) == 1).all()
    for split in splits:
        sizes = np.bincount(split.part, minlength=3)
        assert abs(sizes[2] - 20.6) <= 3
        assert abs(sizes[1] - 0.15 * (103 - sizes[2])) <= 3
    again = make_folds(Table.open(frame), spec, target_column="y", stratify="classes")
    assert all((a.part == b.part).all() for a, b in zip(splits, again, strict=True))


def test_time_folds_train_on_the_past() -> None:
    frame = pl.DataFrame(_y(60) | {"t": list(range(60))[::-1]})
    splits = make_folds(Table.open(frame), _spec("time", time="t", folds=4), target_column="y", stratify="classes")
    assert len(splits) == 4
    when = np.arange(60)[::-1]
    for split in splits:
        assert when[split.part == 0].max() < when[split.part == 1].min()
        assert when[split.part == 1].max() < when[split.part == 2].min()
    assert (np.sum([s.part == 2 for s in splits], axis=0) <= 1).all()


def test_folds_that_cannot_be() -> None:
    table = Table.open(pl.DataFrame(_y(20) | {"g": ["a", "b", "c", "d"] * 5, "s": ["train", "test"] * 10}))

    def code(spec: SplitSpec) -> str:
        with pytest.raises(FuselineError) as caught:
            make_folds(table, spec, target_column="y", stratify="classes")
        return caught.value.code

    assert code(_spec("group", group="g", folds=5)) == "too_few_groups"
    assert code(_spec("random", folds=30)) == "too_few_rows"
    assert code(_spec("random", folds=1)) == "bad_split"
    assert code(_spec("given", column="s", folds=3)) == "bad_split"


def test_only_the_needed_columns_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table.open(pl.DataFrame(_y(30) | {"g": range(30), "big": ["x"] * 30}))
    read: list[str] = []
    column = Table.column
    monkeypatch.setattr(Table, "column", lambda self, name: (read.append(name), column(self, name))[1])
    make_split(table, _spec("group", group="g"), target_column="y", stratify="classes")
    assert set(read) == {"g", "y"}
