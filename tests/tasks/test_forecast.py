from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.timeseries import TimeSeries, TimeSeriesConfig
from fuseline.recipe import read_options
from fuseline.tasks import series
from fuseline.tasks.forecast import Forecast, ForecastConfig

CELLS = [[1.0, 2.0, 4.0], [2.0, None, 8.0], None, "[3, 3, 3]"]


def task_of(cells: list[Any] = CELLS, **options: Any) -> Forecast:
    return Forecast.fit(ForecastConfig(target="x@next", **options), {"x@next": cells})


TASK = task_of()
TRUTH = np.stack([TASK.encode({"x@next": c}) for c in (CELLS[0], CELLS[1], CELLS[3])])
ANSWER = np.stack([TRUTH * 0 + 1, TRUTH * 0 + 3, TRUTH * 0 + 4], axis=-1)
ANSWER = np.where(np.isnan(ANSWER), 3.0, ANSWER)
OUTPUTS = {"forecast": ANSWER, "naive": np.full((3, 3, 1), 2.0), "seasonal": np.full((3, 3, 1), 3.0)}


def test_fit_learns_steps_and_scale():
    assert (TASK.steps, TASK.size, TASK.columns) == (3, 1, ("x@next",))
    known = np.array([1, 2, 4, 2, 8, 3, 3, 3])
    assert TASK.mean == (pytest.approx(known.mean()),)
    assert TASK.std == (pytest.approx(known.std()),)
    assert TASK.mase_scale == (pytest.approx(np.mean([1, 2, 0, 0])),)
    again = Forecast.from_state(json.loads(json.dumps(TASK.state())))
    assert again.state() == TASK.state()


def test_encode_keeps_gaps_cuts_and_fills():
    np.testing.assert_array_equal(TASK.encode({"x@next": [5, None]})[:, 0], np.float32([5, np.nan, np.nan]))
    np.testing.assert_array_equal(TASK.encode({"x@next": [1, 2, 3, 4]})[:, 0], np.float32([1, 2, 3]))
    assert TASK.encode({"x@next": None}) is None
    assert TASK.encode({"x@next": [None, None, None, 5]}) is None, "nothing is known of the steps that are forecast"
    with pytest.raises(FuselineError, match="2 numbers"):
        TASK.encode({"x@next": [[1, 2]]})


def test_metrics_are_numpys_on_known_numbers():
    found = TASK.score(TRUTH, OUTPUTS, bootstrap=50)
    known = ~np.isnan(TRUTH)
    truth, middle = TRUTH[known].astype(float), ANSWER[..., 1][known]
    gaps = np.abs(truth - middle)
    value = {name: m.value for name, m in found.metrics.items()}
    assert value["mae"] == pytest.approx(gaps.mean())
    assert value["rmse"] == pytest.approx(np.sqrt((gaps**2).mean()))
    assert value["mape"] == pytest.approx(100 * (gaps / truth).mean())
    assert value["smape"] == pytest.approx(200 * (gaps / (truth + middle)).mean())
    assert value["mase"] == pytest.approx(gaps.mean() / TASK.mase_scale[0])
    assert value["coverage"] == pytest.approx(
        ((truth >= ANSWER[..., 0][known]) & (truth <= ANSWER[..., 2][known])).mean()
    )
    assert value["naive_mae"] == pytest.approx(np.abs(truth - 2).mean())
    assert value["seasonal_mae"] == pytest.approx(np.abs(truth - 3).mean())
    assert found.metrics["mae"].low is not None
    steps = found.details["per_step"]
    assert [s["step"] for s in steps] == [1, 2, 3]
    assert steps[1]["mae"] == pytest.approx(np.mean([1, 0]))


def test_pinball_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, answers = rng.normal(size=(5, 4, 2)), rng.normal(size=(5, 4, 2, 3))
    mine = series.pinball(truth, answers, np.array([0.1, 0.5, 0.9])).mean()
    parts = [
        sklearn.mean_pinball_loss(truth.ravel(), answers[..., i].ravel(), alpha=a)
        for i, a in enumerate((0.1, 0.5, 0.9))
    ]
    assert mine == pytest.approx(np.mean(parts))


def test_weights_count_rows():
    twice = TASK.measure(TRUTH, OUTPUTS)(np.array([[2.0, 0.0, 1.0]]))
    rows = [0, 0, 2]
    again = TASK.score(TRUTH[rows], {k: v[rows] for k, v in OUTPUTS.items()}).metrics
    for name, value in twice.items():
        assert value[0] == pytest.approx(again[name].value)


def test_a_diverged_model_has_no_metrics():
    bad = {**OUTPUTS, "forecast": np.full_like(ANSWER, np.nan)}
    found = TASK.score(TRUTH, bad, bootstrap=20)
    assert np.isnan(found.metrics["mae"].value)
    assert found.details["notes"]


def test_answers_say_the_median_and_the_quantiles():
    [first, *_] = TASK.decode(OUTPUTS)
    assert first.value == [3.0, 3.0, 3.0]
    assert first.details["quantiles"]["0.1"] == [1.0, 1.0, 1.0]
    two = task_of([[[1, 2], [3, 4]]], channels=("in", "out"))
    [answer] = two.decode({"forecast": np.arange(12.0).reshape(1, 2, 2, 3)})
    assert answer.value == {"in": [1.0, 7.0], "out": [4.0, 10.0]}


def test_the_past_is_found_by_name_and_must_fit():
    def past(column: str, cells: list[Any]) -> TimeSeries:
        return TimeSeries.fit(TimeSeriesConfig(), {column: ""}, [{column: c} for c in cells], MediaRoot(None))

    inputs = {"p": past("x", [[1, 2]]), "other": past("y", [[[1, 2], [3, 4]]])}
    assert TASK.history(inputs) == "p"
    task_of().check(inputs)
    assert task_of().history({"other": inputs["other"]}) is None
    for options in ({"input": "other"}, {"input": "none"}):
        with pytest.raises(FuselineError) as caught:
            task_of(**options).check(inputs)
        assert caught.value.code == "bad_recipe"


@pytest.mark.parametrize("quantiles", [[0.9, 0.5], [0.1, 0.9], [0.0, 0.5], [0.5, 0.5], []])
def test_quantiles_rise_and_hold_the_median(quantiles):
    with pytest.raises(FuselineError) as caught:
        read_options(ForecastConfig, {"target": "x", "quantiles": quantiles}, "task")
    assert caught.value.code == "bad_recipe"


@pytest.mark.parametrize(
    ("cells", "code"), [([None], "no_target"), ([], "no_target"), ([[1], [[1, 2]]], "bad_cell"), (["x"], "bad_cell")]
)
def test_targets_that_cannot_be_learned(cells, code):
    with pytest.raises(FuselineError) as caught:
        task_of(cells)
    assert (caught.value.code, caught.value.column) == (code, "x@next")
