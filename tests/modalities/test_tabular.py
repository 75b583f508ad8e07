import datetime
import decimal
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.tabular import Record, Tabular

NO_FILES = MediaRoot(None)
COLUMNS = {"age": "number", "sex": "category", "smokes": "boolean", "admitted": "date"}
ROWS = [
    {"age": 54, "sex": "M", "smokes": "yes", "admitted": "2020-03-01"},
    {"age": "61.5", "sex": "F", "smokes": 0, "admitted": datetime.date(2020, 4, 2)},
    {"age": None, "sex": "M", "smokes": None, "admitted": None},
    {"age": 33, "sex": None, "smokes": False, "admitted": "2.5.2020"},
]


def fit(columns: dict[str, str], rows: Any, **options: Any) -> Tabular:
    return Tabular.fit(Tabular.Config.model_validate(options), columns, rows, NO_FILES)


def column(kind: str, cells: list[Any], **options: Any) -> Tabular:
    return fit({"x": kind}, [{"x": c} for c in cells], **options)


def read(tabular: Tabular, cell: Any) -> Record | None:
    return tabular.parse({"x": cell}, NO_FILES)


def number(tabular: Tabular, cell: Any) -> float | None:
    record = read(tabular, cell)
    return None if record is None else float(record.numbers[0])


def category(tabular: Tabular, cell: Any) -> int | None:
    record = read(tabular, cell)
    return None if record is None else int(record.categories[0])


def fails(tabular: Tabular, cell: Any) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        read(tabular, cell)
    assert (caught.value.code, caught.value.column) == ("bad_cell", "x")
    return caught.value


def test_a_row_of_every_kind() -> None:
    tabular = fit(COLUMNS, ROWS)
    days = ("admitted.days", "admitted.year_sin", "admitted.year_cos", "admitted.weekday_sin", "admitted.weekday_cos")
    assert tabular.number_names == ("age", *days)
    assert tabular.category_names == ("sex", "smokes")
    assert tabular.cardinalities == (4, 4)
    assert tabular.mean[0] == pytest.approx(np.mean([54, 61.5, 33]))
    assert tabular.std[0] == pytest.approx(np.std([54, 61.5, 33]))
    batch = tabular.collate([tabular.parse(row, NO_FILES) for row in ROWS] + [None])
    assert batch["numbers"][:, 0].tolist() == [54, 61.5, 0, 33, 0]
    assert batch["numbers_present"].tolist() == [[True] * 6, [True] * 6, [False] * 6, [True] * 6, [False] * 6]
    assert batch["categories"].tolist() == [[2, 3], [3, 2], [2, 0], [0, 2], [0, 0]]
    assert np.isfinite(batch["numbers"]).all()
    for name, spec in tabular.arrays().items():
        assert batch[name].dtype == spec.dtype
        assert batch[name].shape[1:] == spec.shape[1:]
    assert set(tabular.arrays()) == set(batch)


def test_a_row_is_absent_where_every_cell_is() -> None:
    tabular = fit(COLUMNS, ROWS)
    assert tabular.parse({}, NO_FILES) is None
    absent = {"age": float("nan"), "sex": " ", "smokes": None, "admitted": ""}
    assert tabular.parse(absent, NO_FILES) is None
    assert tabular.parse({**absent, "age": "NaN"}, NO_FILES) is None
    assert tabular.parse({**absent, "sex": "unheard of"}, NO_FILES) is not None
    assert tabular.parse({**absent, "age": 0}, NO_FILES) is not None


def test_only_numbers_or_only_categories() -> None:
    numbers = column("number", [1, 2])
    assert set(numbers.arrays()) == set(numbers.collate([None])) == {"numbers", "numbers_present"}
    categories = column("category", ["a"])
    assert set(categories.arrays()) == set(categories.collate([None])) == {"categories"}
    assert categories.quantiles.shape == (0, 48)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (3, 3.0),
        (" -2.5e3 ", -2500.0),
        ("+7", 7.0),
        (".5", 0.5),
        (True, 1.0),
        (np.float32(1.5), 1.5),
        (decimal.Decimal("0.25"), 0.25),
        (1e300, np.float32(1e30)),
        ("-1e200", -np.float32(1e30)),
        ("nan", None),
        (np.float64("nan"), None),
        (None, None),
    ],
)
def test_numbers(cell: Any, value: float | None) -> None:
    assert number(column("number", [1, 2]), cell) == value


@pytest.mark.parametrize(
    ("cell", "words", "hint"),
    [
        ("12,5 mg", "'12,5 mg' is no number", "units"),
        ("12 %", "no number", "units"),
        ("1,234.5", "no number", "write '1234.5'"),
        ("1,234,567", "no number", "write '1234567'"),
        ("12,5", "no number", "'12.5' or '125'"),
        ("high", "'high' is no number", "table.absent"),
        ("1_000", "no number", "units"),
        ("١٢", "no number", "text"),
        ("inf", "infinite", "empty"),
        (float("-inf"), "infinite", "empty"),
        ("1e999", "infinite", "empty"),
        pytest.param(10**400, "no number", "cut", id="huge"),
        ([1], "no number", "one number"),
        ("x" * 500, "…", ""),
    ],
)
def test_bad_numbers(cell: Any, words: str, hint: str) -> None:
    error = fails(column("number", [1, 2]), cell)
    assert words in error.message
    assert hint in error.hint
    assert len(error.message) < 120


def test_number_statistics_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(1e6, 3, 15_000)
    tabular = column("number", values.tolist())
    assert tabular.mean[0] == pytest.approx(values.mean())
    assert tabular.std[0] == pytest.approx(values.std(), rel=1e-6)
    wanted = np.quantile(values, np.linspace(0, 1, 48))
    assert tabular.quantiles[0] == pytest.approx(wanted, abs=0.2)
    assert (np.diff(tabular.quantiles[0]) > 0).all()


def test_quantiles_of_a_long_stream_come_from_a_fair_sample() -> None:
    values = np.arange(120_000) % 60_000 / 600
    one, two = (column("number", values.tolist()) for _ in range(2))
    assert one.quantiles[0] == pytest.approx(np.linspace(0, 100, 48), abs=1.5)
    assert (one.quantiles == two.quantiles).all()
    assert (one.quantiles[0, 0], one.quantiles[0, -1]) == (0, np.float32(values.max()))


@pytest.mark.parametrize("cells", [[5, 5, 5], [0.1] * 7, [1e30] * 3, [], [None], ["broken"], [0] * 99 + [1]])
def test_constant_and_empty_columns_are_harmless(cells: list[Any]) -> None:
    tabular = column("number", cells)
    assert (np.diff(tabular.quantiles[0]) > 0).all()
    assert tabular.quantiles.shape == (1, 48)
    assert np.isfinite((np.float32(7) - tabular.mean) / tabular.std).all()
    assert (tabular.std == 1).all() or len(cells) == 100
    assert bool(tabular.notes) == (cells in ([], [None], ["broken"]))


def test_categories_by_frequency() -> None:
    cells = ["b"] * 3 + ["a"] * 3 + ["c"] * 5 + ["rare"]
    tabular = column("category", cells, max_categories=3)
    assert tabular.values == {"x": ["c", "a", "b"]}
    assert tabular.cardinalities == (5,)
    assert [category(tabular, c) for c in ("c", "a", " b ", "rare", "new", None)] == [2, 3, 4, 1, 1, None]
    assert column("category", cells, min_count=4).values == {"x": ["c"]}


def test_one_value_in_several_spellings() -> None:
    tabular = column("category", [1, 2, True, "é", 0.5])
    for cell in (1, 1.0, "1", np.int64(1), " 1 "):
        assert category(tabular, cell) == category(tabular, "1") != 1
    assert category(tabular, np.bool_(True)) == category(tabular, "true") != 1
    assert category(tabular, "e\u0301") == category(tabular, "é") != 1
    assert category(tabular, np.float64(0.5)) == category(tabular, "0.5") != 1
    assert category(tabular, 1e300) == 1
    for cell in (["a"], {"a": 1}, b"a", np.array(["a"])):
        assert "no category" in fails(tabular, cell).message


def test_very_many_categories_take_bounded_memory() -> None:
    def rows() -> Iterator[dict[str, str]]:
        for i in range(210_000):
            yield {"x": f"id-{i}" if i % 2 else f"often-{i % 20}"}

    tracemalloc.start()
    tabular = fit({"x": "category"}, rows(), max_categories=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(tabular.values["x"]) == {f"often-{i}" for i in range(0, 20, 2)}
    assert peak < 80e6


@pytest.mark.parametrize("word", ["true", "T", "Yes", "y", "1", 1, 1.0, True, np.bool_(True), " TRUE "])
def test_true(word: Any) -> None:
    assert category(column("boolean", []), word) == 3


@pytest.mark.parametrize("word", ["false", "f", "NO", "n", "0", 0, 0.0, False, np.int8(0)])
def test_false(word: Any) -> None:
    assert category(column("boolean", []), word) == 2


@pytest.mark.parametrize("word", ["maybe", 2, "10", -1, "truely!", [True], "yes please"])
def test_neither(word: Any) -> None:
    assert "neither yes nor no" in fails(column("boolean", [True]), word).message


@pytest.mark.parametrize(
    "cell",
    [
        "2020-03-01",
        "2020-3-1",
        "2020/03/01",
        "01.03.2020",
        "20200301",
        20200301,
        "1 Mar 2020",
        "01-Mar-2020",
        "March 1, 2020",
        "Mar 1 2020",
        datetime.date(2020, 3, 1),
        datetime.datetime(2020, 3, 1),
        np.datetime64("2020-03-01"),
    ],
)
def test_dates(cell: Any) -> None:
    record = read(column("date", ["2020-01-01"]), cell)
    assert record is not None
    day = datetime.date(2020, 3, 1)
    turn = 2 * np.pi * 60 / 365.25
    wanted = [(day - datetime.date(2000, 1, 1)).days, np.sin(turn), np.cos(turn)]
    assert record.numbers[:3] == pytest.approx(wanted, abs=1e-6)
    assert record.numbers[3:] == pytest.approx([np.sin(2 * np.pi * 6 / 7), np.cos(2 * np.pi * 6 / 7)], abs=1e-6)


@pytest.mark.parametrize(
    ("cell", "hour"),
    [
        ("2020-03-01T18:00", 18),
        ("2020-03-01 18:00:00.250", 18),
        ("2020-03-01T18:00:00Z", 18),
        ("2020-03-01T18:00:00+02:00", 18),
        ("1.3.2020 6:00 pm", 18),
        ("2020-03-01 12:00 AM", 0),
        (datetime.datetime(2020, 3, 1, 18, tzinfo=datetime.UTC), 18),
        ("2020-03-01", None),
    ],
)
def test_hours_where_training_had_them(cell: Any, hour: int | None) -> None:
    tabular = column("date", ["2020-01-01 07:30", "2020-01-02"])
    assert tabular.number_names[-2:] == ("x.hour_sin", "x.hour_cos")
    record = read(tabular, cell)
    assert record is not None
    if hour is None:
        assert np.isnan(record.numbers[-2:]).all()
    else:
        turn = 2 * np.pi * hour / 24
        assert record.numbers[-2:] == pytest.approx([np.sin(turn), np.cos(turn)], abs=1e-6)
    assert column("date", ["2020-01-01 00:00:00", datetime.datetime(2020, 1, 1)]).number_names[-1] == "x.weekday_cos"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("2026-13-45", "month must be in 1..12"),
        ("2023-02-29", "day"),
        ("2020-03-01 25:00", "hour"),
        ("tomorrow", "is no date"),
        ("1 Foo 2020", "no month is called Foo"),
        ("01/02/2020", "day/month or month/day"),
        ("0000-01-01", "year"),
        (3.5, "is no date"),
        (["2020-01-01"], "is no date"),
        ("2020-03-01 13:00 pm", "hour"),
    ],
)
def test_bad_dates(cell: Any, words: str) -> None:
    assert words in fails(column("date", ["2020-01-01"]), cell).message


@pytest.mark.parametrize(("order", "month"), [("dmy", 2), ("mdy", 1)])
def test_slashes_are_read_as_told(order: str, month: int) -> None:
    tabular = column("date", ["01/02/2020"], slash_dates=order)
    assert tabular.notes == ()
    days = number(tabular, "01/02/2020")
    day = datetime.date(2020, month, 1 if month == 2 else 2)
    assert days == (day - datetime.date(2000, 1, 1)).days


def test_names_that_look_like_parts_do_not_mix() -> None:
    columns = {"d": "date", "d.days": "number"}
    tabular = fit(columns, [{"d": "2000-01-02", "d.days": 7}])
    record = tabular.parse({"d": "2000-01-03", "d.days": 9}, NO_FILES)
    assert record is not None
    assert (record.numbers[0], record.numbers[-1]) == (2, 9)
    assert (tabular.mean[0], tabular.mean[-1]) == (1, 7)


def test_state_goes_through_json() -> None:
    tabular = fit(COLUMNS, [*ROWS, {"admitted": "2020-01-01 10:00"}], quantiles=12, slash_dates="mdy")
    again = Tabular.from_state(json.loads(json.dumps(tabular.state(), sort_keys=True, allow_nan=False)))
    rows = [*ROWS, {"age": -1e9, "sex": "X", "smokes": "t", "admitted": "12/31/1999 23:59"}, {}]
    one = tabular.collate([tabular.parse(r, NO_FILES) for r in rows])
    two = again.collate([again.parse(r, NO_FILES) for r in rows])
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}
    assert again.state() == tabular.state()
    for name in ("mean", "std", "quantiles"):
        assert (getattr(again, name) == getattr(tabular, name)).all()
    for name in ("columns", "number_names", "category_names", "cardinalities", "values", "notes"):
        assert getattr(again, name) == getattr(tabular, name)


def test_summary_digest_and_size() -> None:
    tabular = fit(COLUMNS, ROWS)
    row = {"age": 54.1, "sex": "M", "smokes": "no", "admitted": "2000-01-11"}
    record = tabular.parse(row, NO_FILES)
    assert record is not None
    assert tabular.summary(record) == {"age": 54.1, "sex": "M", "smokes": "false", "admitted": 10.0}
    assert tabular.size(record) == 8
    partly = tabular.parse({"sex": "never seen"}, NO_FILES)
    assert partly is not None
    assert tabular.summary(partly) == {"sex": "(other)"}
    assert tabular.digest(record) == tabular.digest(tabular.parse(dict(row), NO_FILES))  # type: ignore[arg-type]
    assert tabular.digest(record) != tabular.digest(partly)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(FuselineError) as caught:
        column("numeric", [1])
    assert caught.value.code == "unknown_kind"
    assert "boolean, category, date, number" in caught.value.hint
