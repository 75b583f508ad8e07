from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.recipe import read_options
from fuseline.tasks import task_class
from fuseline.tasks.regression import Regression, RegressionConfig

ONE = Regression.fit(RegressionConfig(target="price"), {"price": [1, "2.5", None, float("nan"), 4.0]})
TWO = Regression.fit(RegressionConfig(targets=("a", "b")), {"a": [0.0, 2.0, None], "b": [100, 300, 500]})


def test_fit_ignores_absent_targets():
    assert ONE.mean == (2.5,)
    assert ONE.std == (pytest.approx(np.std([1, 2.5, 4])),)
    assert TWO.mean == (1.0, 300.0)


def test_state_survives_json():
    again = task_class("regression").from_state(json.loads(json.dumps(TWO.state())))
    assert again.state() == TWO.state()
    assert again.columns == ("a", "b")
    assert again.metric == "nrmse"


@pytest.mark.parametrize("cell", [3, 3.0, "3", " 3.0 ", np.int64(3), np.float32(3), Decimal(3)])
def test_encodes_numbers(cell):
    encoded = ONE.encode({"price": cell})
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [3.0]


def test_encodes_absent_targets_among_many():
    assert ONE.encode({"price": None}) is None
    assert ONE.encode({}) is None
    assert TWO.encode({"a": None, "b": float("nan")}) is None
    np.testing.assert_array_equal(TWO.encode({"a": 1, "b": None}), np.float32([1, np.nan]))


@pytest.mark.parametrize("cell", ["dear", "3,5", True, float("inf"), 1e300, "1e999", [1], {"a": 1}, b"1x", 10**400])
def test_what_is_no_number_is_an_error_that_names_the_column(cell):
    with pytest.raises(FuselineError) as caught:
        ONE.encode({"price": cell})
    assert (caught.value.code, caught.value.column) == ("bad_cell", "price")


@pytest.mark.parametrize(
    ("cells", "code"), [([5, 5.0, "5"], "constant_target"), ([None, None], "no_target"), ([], "no_target")]
)
def test_targets_that_cannot_be_learned(cells, code):
    with pytest.raises(FuselineError) as caught:
        Regression.fit(RegressionConfig(target="price"), {"price": cells})
    assert (caught.value.code, caught.value.column) == (code, "price")


@pytest.mark.parametrize(
    "options", [{}, {"target": "a", "targets": ["b"]}, {"targets": ["a", "a"]}, {"target": "a", "los": "mse"}]
)
def test_broken_options(options):
    with pytest.raises(FuselineError) as caught:
        read_options(RegressionConfig, options, "task")
    assert caught.value.code == "bad_recipe"


def test_decodes_a_number_or_a_number_a_target():
    assert [d.value for d in ONE.decode({"prediction": np.float32([[1.5], [2]])})] == [1.5, 2.0]
    assert TWO.decode({"prediction": np.float32([[1, 2]])})[0].value == {"a": 1.0, "b": 2.0}


def test_scores_one_target():
    truth, answer = np.float32([[1], [2], [3], [6]]), np.float32([[1], [2], [5], [6]])
    scores = ONE.score(truth, {"prediction": answer}, bootstrap=200)
    assert {k: m.value for k, m in scores.metrics.items()} == pytest.approx({"rmse": 1.0, "mae": 0.5, "r2": 1 - 4 / 14})
    assert ONE.metric == "rmse"
    assert [m.higher_is_better for m in scores.metrics.values()] == [False, False, True]
    assert scores.metrics["rmse"].low <= 1 <= scores.metrics["rmse"].high
    assert scores.details["per_target"] == [
        {"target": "price", "mae": 0.5, "rmse": 1.0, "r2": pytest.approx(1 - 4 / 14), "rows": 4}
    ]
    json.dumps(scores.to_dict(), allow_nan=False)


def test_many_targets_are_watched_without_their_units():
    truth = np.float32([[0, 100], [2, 300], [1, np.nan]])
    scores = TWO.score(truth, {"prediction": truth * 0 + np.float32([[1, 300]] * 3)})
    a, b = np.sqrt(2 / 3), np.sqrt(200**2 / 2)
    assert np.isnan(scores.metrics["rmse"].value), "a prediction that is NaN makes nothing comparable"
    scores = TWO.score(truth, {"prediction": np.float32([[1, 300]] * 3)})
    assert scores.metrics["rmse"].value == pytest.approx((a + b) / 2)
    assert scores.metrics["nrmse"].value == pytest.approx((a / TWO.std[0] + b / TWO.std[1]) / 2)
    assert [t["rows"] for t in scores.details["per_target"]] == [3, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_model_has_no_scores(bad):
    scores = ONE.score(np.float32([[1], [2]]), {"prediction": np.float32([[bad], [2]])}, bootstrap=50)
    assert all(np.isnan(m.value) and m.low is None for m in scores.metrics.values())
    json.dumps(scores.details, allow_nan=False)


def test_no_rows():
    scores = ONE.score(np.zeros((0, 1), np.float32), {"prediction": np.zeros((0, 1), np.float32)}, bootstrap=50)
    assert scores.rows == 0
    assert np.isnan(scores.metrics["rmse"].value)
