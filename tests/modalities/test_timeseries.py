from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.timeseries import TimeSeries, TimeSeriesConfig

MEDIA = MediaRoot(None)


def fitted(cells: list[Any], column: str = "flow", **options: Any) -> TimeSeries:
    return TimeSeries.fit(TimeSeriesConfig(**options), {column: ""}, [{column: c} for c in cells], MEDIA)


FLOW = fitted([[1.0, 2.0, 3.0, 4.0], [5.0, None], None])


@pytest.mark.parametrize(
    "cell",
    [
        [1, 2.5, None],
        "[1, 2.5, null]",
        [[1], [2.5], None],
        np.array([1, 2.5, np.nan], np.float32),
        (1, np.float64(2.5), float("nan")),
        {"time": [0, 60, 120], "value": [1, 2.5, None]},
        {"time": ["2024-01-01", "2024-01-02", "2024-01-03"], "value": [1, 2.5, None]},
    ],
)
def test_a_series_is_read_from_every_way_to_write_it(cell):
    value = FLOW.parse({"flow": cell}, MEDIA)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, np.float32([[1], [2.5], [np.nan]]))


@pytest.mark.parametrize("cell", [None, float("nan"), "", "  ", [], [None, None], "[null]", np.array([np.nan])])
def test_what_holds_no_number_is_absent(cell):
    assert FLOW.parse({"flow": cell}, MEDIA) is None
    assert FLOW.parse({}, MEDIA) is None


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("1;2;3", "JSON"),
        ("[1, [2, 3]]", "step 1 has 1"),
        ([1, "2"], "step 2"),
        ([1, True], "step 2"),
        ([1, 1e39], "step 2"),
        ([1, float("inf")], "step 2"),
        ([1, 10**400], "step 2"),
        ([[1, 2], [3, 4]], "training series had 1"),
        ([[1, 2], [3]], "step 2 has 1"),
        ([[], []], "without a number"),
        (7, "no series"),
        (b"12", "no series"),
        ({"a": 1}, "no series"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.array([np.inf]), "finite"),
        ({"time": [1], "value": [1, 2]}, "1 stamps for 2 steps"),
        ({"time": ["noon"], "value": [1]}, "'noon'"),
        ({"time": 1, "value": 2}, "no series"),
        ("[" * 5000, "JSON"),
    ],
)
def test_a_bad_cell_is_named(cell, words):
    with pytest.raises(FuselineError) as caught:
        FLOW.parse({"flow": cell}, MEDIA)
    assert (caught.value.code, caught.value.column) == ("bad_cell", "flow")
    assert words in caught.value.message


def test_what_has_been_ends_at_the_end_and_what_comes_starts_at_the_start():
    past, ahead = fitted([[1, 2, 3, 4]]), fitted([[1, 2, 3, 4]], column="flow@next")
    assert (past.ahead, ahead.ahead) == (False, True)
    for modality, short, long in ((past, [0, 0, 7, 8], [2, 3, 4, 5]), (ahead, [7, 8, 0, 0], [1, 2, 3, 4])):
        column = modality.columns[0]
        values = [modality.parse({column: c}, MEDIA) for c in ([7, 8], [1, 2, 3, 4, 5])]
        arrays = modality.collate([*values, None])
        np.testing.assert_array_equal(arrays["values"][:2, :, 0], [short, long])
        np.testing.assert_array_equal(arrays["known"][0, :, 0], np.array(short) > 0)
        assert not arrays["known"][2].any()
        assert values[1].facts == {"cut": 1.0}


def test_stamps_lie_on_an_even_grid_and_gaps_stay_gaps():
    cell = {"time": [0, 58, 121, 119, 300], "value": [1, 2, 3, 5, 6]}
    value = fitted([list(range(10))], step=60.0).parse({"flow": cell}, MEDIA)
    np.testing.assert_array_equal(value[:, 0], [1, 2, 4, np.nan, np.nan, 6])


def test_fit_learns_length_channels_and_scale_and_says_what_it_lacks():
    two = fitted([[[1, 10], [3, None]], None, "broken", [[5, 30]]])
    assert (two.length, two.size_C, two.channels) == (2, 2, ("1", "2"))
    assert two.mean == (3.0, 20.0)
    assert two.std == (pytest.approx(np.std([1, 3, 5])), 10.0)
    flat = fitted([[2, 2, 2]])
    assert flat.std == (1.0,)
    nothing = fitted([None, None])
    assert nothing.notes == ("flow holds no series in the training rows",)
    assert nothing.collate([None])["values"].shape == (1, 1, 1)


def test_state_goes_through_json():
    again = TimeSeries.from_state(json.loads(json.dumps(FLOW.state())))
    assert again.state() == FLOW.state()
    assert again.arrays() == FLOW.arrays()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=9))
def test_a_batch_holds_the_last_numbers_and_nothing_else(cell):
    value = FLOW.parse({"flow": cell}, MEDIA)
    arrays = FLOW.collate([None, value])
    kept = [None] * 4 if value is None else ([None] * 4 + cell)[-4:]
    assert arrays["known"][1, :, 0].tolist() == [n is not None for n in kept]
    np.testing.assert_array_equal(arrays["values"][1, :, 0], np.float32([0 if n is None else n for n in kept]))


def test_summary_names_the_channels_of_few():
    series = fitted([[[1, 10], [3, 20]]], channels=("in", "out"))
    found = series.summary(series.parse({"flow": [[1, 10], [3, None]]}, MEDIA))
    assert found == {
        "steps": 2.0, "gaps": 0.25, "mean_in": 2.0, "std_in": 1.0, "last_in": 3.0,
        "mean_out": 10.0, "std_out": 0.0, "last_out": 10.0,
    }  # fmt: skip


def test_cells_at_another_rate_are_brought_to_the_training_cells_step():
    hourly = {"time": [0, 3600, 7200, 10800], "value": [1, 2, 3, 4]}
    series = fitted([hourly, json.dumps(hourly), [1, 2, 3, 4], None])
    assert TimeSeries.from_state(json.loads(json.dumps(series.state()))).config.step == 3600
    slower = {"time": [0, 7200, 14400], "value": [1, 2, 3]}
    read = series.parse({"flow": slower}, MEDIA)
    np.testing.assert_array_equal(read[:, 0], np.float32([np.nan, 2, np.nan, 3]))
    assert fitted([[1, 2], [3, 4]]).config.step is None
    assert fitted([hourly], step=60).config.step == 60
