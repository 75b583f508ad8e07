"""The city: its warnings by hand, its page's program with a forecaster that the test knows, its rules in promtool."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from examples.city import data
from examples.city.app import City, Feed, make_app
from examples.city.measure import _last
from examples.city.replay import Replay, quantiles_of
from examples.city.run import HERE, map_of, recipe_of
from examples.city.warn import JAM, SMOG, levels, proof
from examples.stages import Stages
from fuseline import FuselineError, load_recipe

SENSORS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    said = data.bring(folder / "data", None, sensors=SENSORS, days=2, years=1)
    assert "made city of 8 sensors" in said
    return folder


@pytest.fixture(scope="module")
def replay(folder: Path) -> Replay:
    recipe = load_recipe(recipe_of("traffic", folder, epochs=1))
    return Replay(recipe, datetime.datetime(2012, 3, 2, 6))


def test_levels_are_the_quantiles_that_cross() -> None:
    low = np.array([[60.0, 30, 20, 20], [60, 60, 60, 20]])
    middle, high = low + np.array([5, 10, 10, 10]), low + np.array([9, 20, 30, 12])
    level, step = levels(low, middle, high, JAM)
    assert level.tolist() == [0, 1, 2, 3]
    assert step.tolist() == [0, 1, 1, 1]
    later = np.array([[200.0], [100.0], [160.0]])
    level, step = levels(later - 60, later, later + 60, SMOG)
    assert (level.tolist(), step.tolist()) == ([2], [1])  # the median first crosses in the first step
    level, step = levels(later - 10, later, later + 5, SMOG)
    assert (level.tolist(), step.tolist()) == ([3], [1])


def test_precision_and_recall_by_hand() -> None:
    truth = np.array([[[20.0, 60, 20, np.nan]], [[60.0, 20, 20, 60]]])  # 2 rows, 1 step, 4 sensors
    now = np.array([[60.0, 60, 20, 60], [60, 60, 60, np.nan]])  # the third was in a jam already, in the first row
    level = np.array([[3, 2, 3, 3], [0, 0, 1, 0]])
    found = proof(truth, now, level, JAM)
    assert found["events"] == 3
    assert found["calm"] == 6 / 8
    assert found["alarm"] == {"said": 1, "precision": 1.0, "recall": 1 / 3}
    assert found["warning"] == {"said": 2, "precision": 0.5, "recall": 1 / 3}
    assert found["watch"] == {"said": 3, "precision": 2 / 3, "recall": 2 / 3}
    nothing = proof(truth[:0], now[:0].reshape(0, 4), level[:0], JAM)["alarm"]
    assert nothing == {"said": 0, "precision": None, "recall": None}


def test_the_last_known_number() -> None:
    past = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, np.nan]])
    assert np.array_equal(_last(past), [2.0, np.nan, 3.0], equal_nan=True)


def test_a_made_city_is_the_same_again_and_has_jams(folder: Path, tmp_path: Path) -> None:
    data.bring(tmp_path, None, sensors=SENSORS, days=2, years=1)
    for file in data.FILES:
        assert (tmp_path / file).read_bytes() == (folder / "data" / file).read_bytes()
    speeds = np.loadtxt(folder / "data" / data.SPEED, delimiter=",", skiprows=1)
    assert speeds.shape == (2 * data.STEPS_A_DAY, SENSORS)
    assert 0.001 < (speeds < JAM.bound).mean() < 0.3
    with pytest.raises(FuselineError, match=r"speed\.csv"):
        data.bring(tmp_path, tmp_path / "nowhere")


def test_silent_sensors_send_nothing_and_the_others_what_they_had(replay: Replay) -> None:
    silent = np.zeros(SENSORS, dtype=bool)
    silent[[1, 3]] = True
    row = replay.row(5, silent)
    json.dumps(row)  # what a caller can send
    sent = np.array(row["speed"], dtype=float)
    assert np.isnan(sent[:, silent]).all()
    assert np.array_equal(sent[:, ~silent], replay.past(5)[:, ~silent])
    assert replay.row(5, np.ones(SENSORS, dtype=bool))["speed"] is None
    assert not np.isnan(replay.past(5)).any(), "silencing changed the recording"
    assert np.array_equal(replay.truth(5)[0], replay.past(6)[-1])


class Forecaster:
    """Answers the last number, ±5, as the model server would; fails when told to."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.broken = False

    def __call__(self, model: str, row: dict[str, Any]) -> dict[str, Any]:
        if self.broken:
            raise FuselineError("worker_died", "the process that computed it ended", "send it again")
        self.rows.append(row)
        last = np.array(row["speed"], dtype=float)[-1]
        last = np.where(np.isnan(last), 50.0, last)
        names = [str(i) for i in range(len(last))]

        def said(more: float) -> dict[str, list[float]]:
            return {n: [float(v) + more] * 12 for n, v in zip(names, last, strict=True)}

        quantiles = {"0.1": said(-5), "0.5": said(0), "0.9": said(5)}
        return {"value": said(0), "details": {"quantiles": quantiles}, "used": ["speed"], "absent": []}


@pytest.fixture
def city(folder: Path, replay: Replay) -> Iterator[tuple[City, Forecaster, TestClient]]:
    ask = Forecaster()
    city = City({"traffic": Feed("traffic", replay, JAM, "mph")}, ask, *map_of(folder))
    with TestClient(make_app(city, clock=False)) as client:
        yield city, ask, client


def test_the_page_gets_what_it_draws(city: tuple[City, Forecaster, TestClient]) -> None:
    own, ask, client = city
    own.tick()
    state = client.get("/state").json()
    feed = state["feeds"]["traffic"]
    past = np.array(feed["past"]).T
    assert np.allclose(past, np.array(ask.rows[0]["speed"]), atol=0.006)
    assert np.allclose(np.array(feed["middle"])[:, 0], past[-1], atol=0.006)
    expected = ["alarm" if v < 30 else "warning" if v < 35 else "watch" if v < 40 else "none" for v in past[-1]]
    assert feed["level"] == expected
    assert len(state["places"]) == SENSORS
    assert state["roads"]
    assert all(0 <= a < b < SENSORS for a, b in state["roads"])
    assert "script-src" not in client.get("/").headers["content-security-policy"]
    for name in ("/", "/city.js", "/city.css"):
        assert client.get(name).status_code == 200
    assert client.get("/../app.py").status_code == 404


def test_silence_and_pace_by_hand(city: tuple[City, Forecaster, TestClient]) -> None:
    own, ask, client = city
    assert client.post("/silence", json={"share": 0.5}).json() == {"silent": SENSORS // 2}
    own.tick()
    assert np.isnan(np.array(ask.rows[-1]["speed"], dtype=float)).any(axis=0).sum() == SENSORS // 2
    text = client.get("/metrics").text
    assert 'city_silent_share{kind="traffic"} 0.5' in text
    assert "city_warning_level" in text
    name = own.feeds["traffic"].replay.channels[2]
    assert client.post("/silence", json={"sensors": [name]}).json() == {"silent": 1}
    for bad in ({"share": 2}, {"share": "half"}, {"sensors": ["nobody"]}, {"sensors": [1]}, {}, [1]):
        assert client.post("/silence", json=bad).status_code == 400
    assert client.post("/silence", content=b"{").status_code == 400
    assert client.post("/pace", json={"seconds": 0}).json() == {"seconds": 0.0}
    for seconds in (-1, 0.01, 1e9, True, "now", None):
        assert client.post("/pace", json={"seconds": seconds}).status_code == 400


def test_without_an_answer_the_last_one_stays_and_it_is_said(city: tuple[City, Forecaster, TestClient]) -> None:
    own, ask, client = city
    own.tick()
    before = client.get("/state").json()["feeds"]["traffic"]
    ask.broken = True
    own.tick()
    after = client.get("/state").json()["feeds"]["traffic"]
    assert "the process that computed it ended" in after["failed"]
    assert {**after, "failed": ""} == before
    assert 'city_forecast_failures_total{kind="traffic"} 1.0' in client.get("/metrics").text
    ask.broken = False
    own.tick()
    assert client.get("/state").json()["feeds"]["traffic"]["failed"] == ""


def test_an_answers_quantiles() -> None:
    one = quantiles_of({"details": {"quantiles": {"0.1": [1, 2], "0.5": [3, 4], "0.9": [5, 6]}}})
    assert one.low.tolist() == [[1], [2]]


def test_the_interval_is_the_conformal_one_around_the_median() -> None:
    quantiles = {q: {"a": [n], "b": [n]} for q, n in (("0.1", 1), ("0.5", 3), ("0.9", 5))}
    interval = {"coverage": 0.8, "low": {"a": [0], "b": [3.5]}, "high": {"a": [9], "b": [4]}}
    one = quantiles_of({"details": {"quantiles": quantiles, "interval": interval}})
    assert (one.low.tolist(), one.middle.tolist(), one.high.tolist()) == ([[0, 3]], [[3, 3]], [[9, 4]])


def test_a_stage_is_done_once_and_an_interrupted_one_again(tmp_path: Path) -> None:
    calls: list[str] = []

    def fails() -> str:
        calls.append("fails")
        raise KeyboardInterrupt

    def works() -> str:
        calls.append("works")
        return "done"

    stages = Stages(tmp_path / "s", say=lambda words: None)
    with pytest.raises(KeyboardInterrupt):
        stages.do("x", fails)
    assert [stages.do("x", works), stages.do("x", works)] == ["done", "done"]
    assert calls == ["fails", "works"]


def test_the_citys_alerts_fire_and_stay_silent(tmp_path: Path, checked: Callable[..., str]) -> None:
    for name, place in (("city.yml", "rules"), ("city_test.yml", "tests")):
        (tmp_path / place).mkdir()
        shutil.copyfile(HERE / "rules" / name, tmp_path / place / name)
    assert "SUCCESS" in checked(tmp_path, "promtool", "test", "rules", "tests/city_test.yml")
