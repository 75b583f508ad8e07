from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from fuseline.data.split import Split, make_split
from fuseline.data.table import Table
from fuseline.data.windows import Windows, as_read, keep_apart, open_table, which
from fuseline.errors import FuselineError
from fuseline.recipe import SplitSpec, TableSpec, WindowSpec, parse_recipe

INPUTS = {"inputs": {"both": {"modality": "timeseries"}}, "task": {"kind": "forecast", "target": "x@next"}}


def windows(frame: pl.DataFrame | dict[str, Any], **options: Any) -> Windows:
    spec = {"history": 3, "horizon": 2, **options}
    return Windows(Table.open(pl.DataFrame(frame)), WindowSpec.model_validate(spec))


def column(table: Table, name: str) -> list[Any]:
    cells = [row[name] for row in Table.rows(table.take(np.arange(table.n_rows), [name]))]
    return [c.tolist() if isinstance(c, np.ndarray) else c for c in map(_gaps, cells)]


def _gaps(cell: Any) -> Any:
    """Where some cell of the column is absent, the others come as lists."""
    return np.array(cell, dtype=float) if isinstance(cell, list) else cell


NAN = pytest.approx(np.nan, nan_ok=True)


def test_rows_are_steps_where_no_column_says_the_time():
    table = windows({"speed": [1, 2, 3, 4, 5]})
    assert table.columns == ["time", "speed", "speed@next", "speed@now"]
    assert column(table, "speed") == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert column(table, "speed@next") == [[4, 5], [5, NAN], None]
    assert column(table, "speed@now") == [3, 4, 5]
    assert column(table, "time") == [2.0, 3.0, 4.0]


def test_moments_gaps_and_double_rows():
    hours = [0, 1, 3, 3, 4]
    frame = {"at": [f"2024-01-01 0{h}:00" for h in hours], "x": [10, 11, 12, 13, 14]}
    table = windows(frame, time="at")
    assert column(table, "x") == [[10, 11, NAN], [11, NAN, 13], [NAN, 13, 14]]
    assert column(table, "x@now") == [None, 13, 14]
    assert column(table, "time")[0] == datetime.datetime(2024, 1, 1, 2)
    assert [n for n in table.notes if "share a step" in n]
    assert [n for n in table.notes if "1 steps have no row" in n]
    assert table.store.step == 3600.0


def test_rows_need_not_be_in_order_and_entities_are_apart():
    frame = {"t": [2, 1, 0, 0, 1, 2, 3], "id": list("bbbaaaa"), "x": [12, 11, 10, 0, 1, 2, 3]}
    table = windows(frame, time="t", entity="id")
    assert column(table, "id") == ["a", "a", "b"]
    assert column(table, "x") == [[0, 1, 2], [1, 2, 3], [10, 11, 12]]
    assert column(table, "x@next") == [[3, NAN], None, None]


def test_parts_of_a_date_make_a_moment_and_a_wrong_one_is_named():
    frame = {"year": [2010] * 4, "month": [1] * 4, "day": [1, 2, 3, 4], "x": [1, 2, 3, 4]}
    table = windows(frame, time=["year", "month", "day"])
    assert table.store.step == 86_400.0
    frame["day"][2] = 32
    with pytest.raises(FuselineError) as caught:
        windows(frame, time=["year", "month", "day"])
    assert (caught.value.code, caught.value.row, caught.value.column) == ("bad_cell", 2, "year")


def test_series_of_several_columns_and_of_words():
    table = windows({"a": [1, 2, 3, 4], "wind": ["N", "S", None, "N"]}, series={"both": ["a", "wind"]})
    assert table.store.channels("both") == ("a", "wind=N", "wind=S")
    assert column(table, "both")[0] == [[1, 1, 0], [2, 0, 1], [3, NAN, NAN]]


def test_all_columns_are_those_that_no_other_series_takes():
    table = windows({"a": [1.0] * 4, "b": [2.0] * 4, "c": [3.0] * 4}, series={"mine": ["b"], "rest": "*"})
    assert table.store.channels("rest") == ("a", "c")
    assert column(table, "mine@next")[0] == [[2.0], [NAN]]


def test_the_calendar_is_known_ahead_of_the_last_row():
    table = windows({"x": [1.0] * 30}, step="1h", start="2024-01-01")
    ahead = np.array(column(table, "calendar@next")[-1])
    assert ahead.shape == (2, 6)
    angle = 2 * np.pi * np.array([6, 7]) / 24  # the last row is 05:00
    np.testing.assert_allclose(ahead[:, 0], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(ahead[:, 1], np.cos(angle), atol=1e-6)
    assert "calendar" not in windows({"x": [1.0] * 5}).columns


def test_a_short_series_is_one_window_and_a_stride_leaves_out():
    assert column(windows({"x": [7, 8]}), "x") == [[NAN, 7, 8]]
    assert column(windows({"x": list(range(9))}, stride=3), "x@now") == [2, 5, 8]


@pytest.mark.parametrize(
    ("frame", "options", "code"),
    [
        ({"x": [1, 2]}, {"time": "when"}, "missing_column"),
        ({"x": [1, 2]}, {"step": "soon"}, "bad_recipe"),
        ({"x": [1, 2]}, {"step": "0h"}, "bad_recipe"),
        ({"x": [1, 2]}, {"series": {"y": ["z"]}}, "missing_column"),
        ({"x": [1, 2]}, {"series": {"x": ["x"]}}, "bad_recipe"),
        ({"t": [None, None], "x": [1, 2]}, {"time": "t"}, "too_few_rows"),
        ({"t": ["2024-01-01", "soon"], "x": [1, 2]}, {"time": "t"}, "bad_cell"),
        ({"t": [0.0, 1.0, 1e15], "x": [1, 2, 3]}, {"time": "t", "step": "1s"}, "too_large"),
    ],
)
def test_what_cannot_be_read_as_windows_says_why(frame, options, code):
    with pytest.raises(FuselineError) as caught:
        windows(frame, **options)
    assert caught.value.code == code


def test_a_number_that_is_none_is_named_with_its_row():
    table = windows({"x": [*map(str, range(9)), "ten"]})
    with pytest.raises(FuselineError) as caught:
        table.take(np.arange(2), ["x"])
    assert (caught.value.code, caught.value.row, caught.value.column) == ("bad_cell", 9, "x")


def test_training_windows_do_not_reach_into_what_is_tested():
    table = windows({"x": [float(i) for i in range(40)]})
    spec = SplitSpec(kind="time", time="time", val=0.2, test=0.2)
    [split] = keep_apart(table, spec, [make_split(table, spec, target_column="x@next", stratify="none")])
    now = np.array(column(table, "time"))
    for part, later in ((0, 1), (0, 2), (1, 2)):
        assert now[split.part == part].max() + 2 <= now[split.part == later].min()
    assert (split.part == -1).sum() == 2 * 1 + 1, "one window before each cut, and the last, which has nothing ahead"
    assert any("reach into a later part" in n for n in split.notes)


def test_windows_are_not_dealt_out_at_random():
    table = windows({"x": [float(i) for i in range(40)]})
    with pytest.raises(FuselineError) as caught:
        keep_apart(table, SplitSpec(kind="random"), [Split(np.zeros(table.n_rows, np.int8))])
    assert caught.value.code == "bad_split"


def test_given_moments_divide_the_rows_by_the_columns_own_units():
    days = pl.date_range(datetime.date(2020, 1, 1), datetime.date(2020, 2, 9), eager=True)
    frame = {"day": days, "x": np.arange(40.0)}
    spec = SplitSpec(kind="time", time="time", val_from="2020-01-20", test_from="2020-01-30")
    table = windows(frame, time="day")
    part = make_split(table, spec, target_column="x@now", stratify="none").part
    when = column(table, "time")
    assert min(t for t, p in zip(when, part, strict=True) if p == 1) == datetime.datetime(2020, 1, 20)
    assert min(t for t, p in zip(when, part, strict=True) if p == 2) == datetime.datetime(2020, 1, 30)
    for source, name in (
        (Table.open(pl.DataFrame(frame)), "day"),
        (Table.open(pl.DataFrame(frame).cast({"day": pl.String})), "day"),
    ):
        plain = make_split(source, spec.model_copy(update={"time": name}), target_column="x", stratify="none").part
        assert [int((plain == p).sum()) for p in range(3)] == [19, 10, 11]
    with pytest.raises(FuselineError) as caught:
        make_split(table, spec.model_copy(update={"val_from": "1990-01-01"}), target_column="x@now", stratify="none")
    assert caught.value.code == "bad_split"


def test_a_table_of_windows_is_left_as_it_is():
    spec = TableSpec.model_validate({"windows": {"time": "t", "history": 3, "horizon": 2}})
    ready = pl.DataFrame({"x": [[1.0, 2.0]], "x@next": [[3.0]]})
    assert not isinstance(open_table(ready, spec), Windows)
    long = open_table(pl.DataFrame({"t": [1, 2, 3], "x": [1, 2, 3]}), spec)
    assert isinstance(long, Windows)
    assert open_table(long, spec) is long


def test_no_rows_are_none():
    table = windows({"x": [1.0] * 5}, series={"all": "*"})
    frame = table.take(np.zeros(0, dtype=np.int64))
    assert frame.shape == (0, len(table.columns))


def test_another_table_is_read_as_the_training_table_was():
    hours = [f"2024-01-01 0{h}:00" for h in range(6)]
    trained = windows({"at": hours, "x": range(6), "wind": ["N", "S"] * 3}, time="at", series={"both": ["x", "wind"]})
    assert trained.store.channels("both") == ("x", "wind=N", "wind=S")
    recipe = parse_recipe({"table": {"windows": trained.store.spec.model_dump()}, **INPUTS})
    kept = as_read(recipe, trained).table
    other = open_table(pl.DataFrame({"at": hours[::2], "x": [0, 2, 4], "wind": ["S", "W", None]}), kept)
    assert isinstance(other, Windows)
    assert other.store.step == 3600.0, "not the two hours that this table has"
    assert column(other, "both")[-1] == [[2, NAN, NAN], [NAN, NAN, NAN], [4, NAN, NAN]]
    assert other.store.channels("both") == trained.store.channels("both")
    assert [n for n in other.store.notes if "1 cells of wind" in n]
    wordy = open_table(pl.DataFrame({"at": hours[:3], "x": ["low"] * 3, "wind": ["S"] * 3}), kept)
    with pytest.raises(FuselineError) as caught:
        column(wordy, "both")
    assert (caught.value.code, caught.value.row, caught.value.column) == ("bad_cell", 0, "x")


def test_several_series_taken_for_one_are_no_double_rows():
    frame = {"at": [0, 0, 1, 1, 2, 2], "id": list("ab") * 3, "x": range(6)}
    with pytest.raises(FuselineError, match=r"entity") as caught:
        windows(frame, time="at")
    assert caught.value.code == "bad_recipe"
    assert windows(frame, time="at", entity="id").n_rows == 2


def test_months_stay_apart_for_ever():
    months = pl.date_range(datetime.date(1990, 1, 31), datetime.date(2019, 12, 31), "1mo", eager=True)
    table = windows({"at": months, "x": np.arange(360.0)}, time="at")
    assert not table.notes
    assert column(table, "x@now") == list(range(2, 360))
    assert column(table, "time")[0].date() == datetime.date(1990, 3, 31), "the moment that the table has"


def test_windows_are_named_by_moment_and_series():
    table = windows({"at": ["2024-01-02", "2024-01-01"], "id": [7, 7], "x": [2, 1]}, time="at", entity="id", history=1)
    assert which(table, 0, 2).to_dicts() == [{"time": f"2024-01-0{d}T00:00:00.000000", "entity": "7"} for d in (1, 2)]
    assert which(Table.open(pl.DataFrame({"x": [1]})), 0, 1).is_empty()


@pytest.mark.parametrize(("strange", "row"), [("9024-01-01", 5), ("0124-01-01", 5)])
def test_a_moment_far_off_is_named(strange, row):
    hours = [f"2024-01-01 0{h}:00" for h in range(5)]
    with pytest.raises(FuselineError) as caught:
        windows({"at": [*hours, strange], "x": range(6)}, time="at")
    assert (caught.value.code, caught.value.row, caught.value.column) == ("too_large", row, "at")
