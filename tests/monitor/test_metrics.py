from __future__ import annotations

from typing import Any

import pytest
import watched
from prometheus_client.parser import text_string_to_metric_families

from fuseline.monitor.compare import compare
from fuseline.monitor.metrics import Metrics
from fuseline.monitor.seen import OPEN, kept_stats, records, table
from fuseline.monitor.series import POINTS
from fuseline.monitor.window import Window
from fuseline.runtime import Answer
from fuseline.serve.calls import Gauge, RowSeen

PROMISED = {
    "fuseline_requests": {"model", "version", "door", "code"},
    "fuseline_rows": {"model", "version", "outcome"},
    "fuseline_request_seconds": {"model", "door"},
    "fuseline_queue_seconds": {"model"},
    "fuseline_compute_seconds": {"model"},
    "fuseline_batch_rows": {"model"},
    "fuseline_waiting_rows": {"model"},
    "fuseline_queue_limit_rows": {"model"},
    "fuseline_ready": {"model"},
    "fuseline_workers": set(),
    "fuseline_worker_restarts": set(),
    "fuseline_input_rows": {"model", "input", "presence"},
    "fuseline_reference_absent_share": {"model", "input"},
    "fuseline_decode_errors": {"model", "column"},
    "fuseline_predictions": {"model", "version", "label"},
    "fuseline_prediction_value": {"model"},
    "fuseline_drift_score": {"model", "feature", "test"},
    "fuseline_drift_alarm": {"model", "feature"},
    "fuseline_drift_rows": {"model"},
    "fuseline_model_info": {"model", "version", "task", "fuseline"},
    "fuseline_live_accuracy": {"model"},
}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def scrape(metrics: Metrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    out: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                out.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return out


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return scrape(metrics)[name][tuple(sorted(labels.items()))]


def result_of(profile: dict[str, Any], change: Any = None) -> Any:
    info = watched.info(profile=profile)
    rows = [r for e in watched.events(60, seed=4, change=change) for r in records(e, info)]
    return compare(profile, Window.of(table(rows, kept_stats(profile, OPEN)), profile))


def number_model(name: str = "price", quantiles: tuple[float, ...] = (0.0, 10.0, 20.0)) -> Any:
    held = {"predictions": {"kind": "predictions", "rows": 9, "value": {"kind": "number", "quantiles": quantiles}}}
    return watched.info(name=name, task="regression", mode="number", classes=(), profile=held)


def test_every_promised_metric_has_its_labels(profile: dict[str, Any]) -> None:
    metrics = Metrics()
    metrics.loaded(watched.info(profile=profile))
    metrics.loaded(number_model())
    metrics.ended(watched.events(1, seed=1)[0])
    metrics.ended(watched.event([watched.failed()]))
    metrics.ended(watched.event([RowSeen(Answer(12.0, used=("note",)))], model="price"))
    metrics.update([Gauge("clinic", 3, 256, {"v1": 1.0}, True, 2, 1)])
    metrics.drift("clinic", result_of(profile))
    metrics.accuracy("clinic", 0.9)
    text, kind = metrics.render()
    assert "text/plain" in kind or "openmetrics" in kind
    families = {f.name: f for f in text_string_to_metric_families(text.decode())}
    assert set(families) >= set(PROMISED)
    for name, labels in PROMISED.items():
        samples = [s for s in families[name].samples if not s.name.endswith("_created")]
        assert samples, name
        for sample in samples:
            assert set(sample.labels) - {"le"} == labels, sample


def test_counts_follow_the_events(profile: dict[str, Any]) -> None:
    metrics = Metrics()
    metrics.loaded(watched.info(profile=profile))
    rows = list(watched.events(1, seed=1, size=4)[0].rows)
    metrics.ended(watched.event([*rows, watched.failed()]))
    metrics.ended(watched.event([], code="overloaded"))
    metrics.ended(watched.event([], code="deadline", door="v2"))
    assert value(metrics, "fuseline_requests_total", model="clinic", version="v1", door="rest", code="ok") == 1
    assert value(metrics, "fuseline_requests_total", model="clinic", version="v1", door="v2", code="deadline") == 1
    assert value(metrics, "fuseline_rows_total", model="clinic", version="v1", outcome="ok") == 4
    assert value(metrics, "fuseline_rows_total", model="clinic", version="v1", outcome="error") == 1
    assert value(metrics, "fuseline_decode_errors_total", model="clinic", column="picture") == 1
    present = sum("picture" in r.answer.used for r in rows)
    found = scrape(metrics)["fuseline_input_rows_total"]
    assert found.get((("input", "picture"), ("model", "clinic"), ("presence", "present")), 0) == present
    told = profile["note"]["absent"] / profile["note"]["rows"]
    assert value(metrics, "fuseline_reference_absent_share", model="clinic", input="note") == pytest.approx(told)
    assert value(metrics, "fuseline_compute_seconds_count", model="clinic") == 1
    assert value(metrics, "fuseline_batch_rows_sum", model="clinic") == 5


def test_a_broken_cell_taken_as_absent_is_a_decode_error(profile: dict[str, Any]) -> None:
    metrics = Metrics()
    metrics.loaded(watched.info(profile=profile))
    notes = ["picture taken as absent: no picture", "vitals taken as absent: odd", "nonsense taken as absent: x"]
    answer = Answer("yes", {"no": 0.1, "yes": 0.9}, None, ("note",), ("picture", "vitals"), notes)
    metrics.ended(watched.event([RowSeen(answer)]))
    columns = {dict(k)["column"] for k in scrape(metrics)["fuseline_decode_errors_total"]}
    assert columns == {"picture", "vitals"}


def test_what_callers_choose_makes_no_new_series(profile: dict[str, Any]) -> None:
    metrics = Metrics()
    metrics.loaded(watched.info(profile=profile, classes=tuple(f"c{i}" for i in range(80))))
    for i in range(100):
        metrics.ended(watched.event([], model=f"guess{i}", version=f"v{i}", code=f"code{i}", door=f"door{i}"))
        strange = Answer(f"c{i}", {"a": 1.0}, None, (f"in{i}",), ())
        metrics.ended(watched.event([RowSeen(strange), watched.failed(f"col{i}", "unknown_column")], version="v1"))
        metrics.ended(watched.event([], version=f"old{i}"))
    found = scrape(metrics)
    assert sum(value > 0 for value in found["fuseline_requests_total"].values()) == 3
    assert {dict(k)["model"] for k in found["fuseline_requests_total"]} == {"clinic", "other"}
    assert len(found["fuseline_predictions_total"]) == 51
    assert {dict(k)["column"] for k in found["fuseline_decode_errors_total"]} == {"other"}
    assert {dict(k)["input"] for k in found["fuseline_input_rows_total"]} == {"other"}
    assert set(metrics.status()["models"]) == {"clinic"}


def test_a_hundred_swaps_leave_no_series_behind(profile: dict[str, Any]) -> None:
    metrics = Metrics()
    for i in range(100):
        metrics.loaded(watched.info(f"v{i}", profile=profile))
        rows = list(watched.events(1, seed=1)[0].rows)
        metrics.ended(watched.event(rows, version=f"v{i}"))
        if i:
            metrics.unloaded("clinic", f"v{i - 1}")
        metrics.ended(watched.event(rows, version=f"v{i - 1}"))
    found = scrape(metrics)
    assert {dict(k)["version"] for k in found["fuseline_requests_total"]} == {"v99", "other"}
    assert len(found["fuseline_model_info"]) == 1
    assert metrics.status()["models"]["clinic"]["totals"]["requests"] == 200
    metrics.unloaded("clinic", "v99")
    metrics.ended(watched.event([], version="v99"))
    assert {dict(k)["model"] for k in scrape(metrics)["fuseline_requests_total"]} == {"other"}
    assert metrics.status()["models"] == {}


def test_restarts_count_upwards_only(profile: dict[str, Any]) -> None:
    metrics = Metrics()
    metrics.loaded(watched.info(profile=profile))
    for restarts in (0, 2, 2, 3):
        metrics.update([Gauge("clinic", 1, 8, {}, False, 2, restarts), Gauge("gone", 1, 8, {}, True, 2, restarts)])
    assert value(metrics, "fuseline_worker_restarts_total") == 3
    assert value(metrics, "fuseline_ready", model="clinic") == 0
    assert value(metrics, "fuseline_workers") == 2
    assert {dict(k)["model"] for k in scrape(metrics)["fuseline_waiting_rows"]} == {"clinic", "other"}


def test_each_models_numbers_have_their_own_buckets() -> None:
    metrics = Metrics()
    metrics.loaded(number_model("price", (0.0, 10.0, 20.0)))
    metrics.loaded(number_model("tiny", (0.1, 0.2)))
    for x in (-5.0, 5.0, 15.0, 99.0):
        metrics.ended(watched.event([RowSeen(Answer(x))], model="price"))
    metrics.ended(watched.event([RowSeen(Answer(0.15))], model="tiny"))
    buckets = scrape(metrics)["fuseline_prediction_value_bucket"]
    of = {m: {dict(k)["le"]: v for k, v in buckets.items() if dict(k)["model"] == m} for m in ("price", "tiny")}
    assert of["price"] == {"0.0": 1, "10.0": 2, "20.0": 3, "+Inf": 4}
    assert of["tiny"] == {"0.1": 0, "0.2": 1, "+Inf": 1}
    assert value(metrics, "fuseline_prediction_value_sum", model="price") == 114


def test_drift_gauges_follow_the_last_check(profile: dict[str, Any]) -> None:
    metrics = Metrics()
    metrics.loaded(watched.info(profile=profile))

    def dark(row: dict[str, Any]) -> dict[str, Any]:
        if "picture.brightness" in row["stats"]:
            row["stats"]["picture.brightness"] *= 0.6
        return row

    metrics.drift("clinic", result_of(profile, dark))
    assert value(metrics, "fuseline_drift_alarm", model="clinic", feature="picture.brightness") == 1
    assert value(metrics, "fuseline_drift_alarm", model="clinic", feature="note absent") == 0
    assert value(metrics, "fuseline_drift_score", model="clinic", feature="picture.brightness", test="psi") > 0.25
    assert value(metrics, "fuseline_drift_rows", model="clinic") == 300
    metrics.drift("clinic", compare(profile, Window(rows=1)))
    found = scrape(metrics)
    assert not found.get("fuseline_drift_alarm")
    assert not found.get("fuseline_drift_score")


def test_the_series_has_a_point_every_five_seconds(profile: dict[str, Any]) -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.loaded(watched.info(profile=profile))
    for i in range(10):
        metrics.ended(watched.event(list(watched.events(1, seed=1)[0].rows), seconds=0.01 * (i + 1)))
    metrics.ended(watched.event([], code="overloaded"))
    metrics.ended(watched.event([], code="internal"))
    metrics.ended(watched.event([], code="cancelled"))
    metrics.ended(watched.event([], door="warmup"))
    metrics.update([Gauge("clinic", 7, 256, {}, True, 1, 0)])
    clock.now += 12
    told = metrics.status()["models"]["clinic"]
    assert told["series"] == [[1000.0, 13, 1, 1, 50.0, 100.0, 7], [1005.0, 0, 0, 0, None, None, 7]]
    assert told["totals"] == {"requests": 13, "errors": 1, "rows": 50}
    assert sum(told["answers"].values()) == 50
    clock.now += 3 * 86400
    assert len(metrics.status()["models"]["clinic"]["series"]) == POINTS
