"""Prometheus metrics of the service (needs prometheus-client, the extra `serve`).

Every set of labels is bounded: a model, version, column or code that is not known is counted as `other`, and what a
version left behind goes when it is unloaded.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import Gauge as PrometheusGauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from fuseline.monitor.compare import DriftResult
from fuseline.monitor.rules.rates import BUCKETS, CALLERS, FAULTS
from fuseline.monitor.seen import broken_inputs
from fuseline.monitor.series import Series
from fuseline.tasks.labels import amount_of, text_of

if TYPE_CHECKING:
    from fuseline.serve.calls import Call, Event, Gauge, ModelInfo

OTHER = "other"
MOST_LABELS = 50
DOORS = frozenset({"rest", "v2", "grpc", "ray", "warmup", "shadow"})
CODES = frozenset({"ok", *CALLERS, *FAULTS})
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The observer behind `/metrics` and the console's charts. One a process; own registry."""

    name = "metrics"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, ModelInfo]] = {}
        self._series: dict[str, Series] = {}
        self._restarts = 0
        self._drift: dict[str, set[tuple[str, str]]] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fuseline_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> PrometheusGauge:
            return PrometheusGauge(f"fuseline_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"fuseline_{name}", text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("requests_total", "requests by outcome", "model", "version", "door", "code")
        self.rows = counter("rows_total", "answered rows; error: unreadable", "model", "version", "outcome")
        self.request_seconds = histogram("request_seconds", "from the door to the answer", BUCKETS, "model", "door")
        self.queue_seconds = histogram("queue_seconds", "wait for a batch", BUCKETS, "model")
        self.compute_seconds = histogram("compute_seconds", "inside the graph", BUCKETS, "model")
        self.batch_rows = histogram("batch_rows", "rows of a batch, once a request in it", ROWS, "model")
        self.waiting_rows = gauge("waiting_rows", "rows accepted and not yet answered", "model")
        self.queue_limit_rows = gauge("queue_limit_rows", "rows that may wait before 429", "model")
        self.ready = gauge("ready", "1: answers requests", "model")
        self.workers = gauge("workers", "processes that compute")
        self.restarts = counter("worker_restarts_total", "workers that died and were started again")
        self.input_rows = counter("input_rows_total", "rows with and without an input", "model", "input", "presence")
        self.reference_absent = gauge("reference_absent_share", "share of training rows", "model", "input")
        self.decode_errors = counter("decode_errors_total", "cells that could not be read", "model", "column")
        self.predictions = counter("predictions_total", "answered labels", "model", "version", "label")
        self.drift_score = gauge("drift_score", "how far from the profile", "model", "feature", "test")
        self.drift_alarm = gauge("drift_alarm", "1: drifted, corrected for all tests", "model", "feature")
        self.drift_rows = gauge("drift_rows", "rows of the last drift check", "model")
        self.model_info = gauge("model_info", "a loaded version", "model", "version", "task", "fuseline")
        self.live_accuracy = gauge("live_accuracy", "share of right answers, by later labels", "model")
        self.values = _Values()
        self.registry.register(self.values)

    # Observer

    def wants(self, call: Call) -> bool:
        return False

    def loaded(self, info: ModelInfo) -> None:
        with self._lock:
            self._models.setdefault(info.name, {})[info.version] = info
            self._series.setdefault(info.name, Series())
        self.model_info.labels(info.name, info.version, info.task, info.fuseline).set(1)
        for code in FAULTS:  # a counter that appears at 1 has no rate: its first jump would be missed
            self.requests.labels(info.name, info.version, "rest", code)
        profile = info.profile or {}
        for name in info.inputs:
            entry = profile.get(name)
            if isinstance(entry, Mapping) and entry.get("rows"):
                self.reference_absent.labels(info.name, name).set(entry["absent"] / entry["rows"])
        if info.mode == "number":
            sketch = (profile.get("predictions") or {}).get("value") or {}
            self.values.open(info.name, sketch.get("quantiles") or ())

    def unloaded(self, model: str, version: str) -> None:
        with self._lock:
            versions = self._models.get(model, {})
            versions.pop(version, None)
            gone = not versions
            if gone:
                self._models.pop(model, None)
                self._series.pop(model, None)
                self._drift.pop(model, None)
        by_version: tuple[Counter | PrometheusGauge, ...] = (self.requests, self.rows, self.predictions)
        for metric in (*by_version, self.model_info):
            metric.remove_by_labels({"model": model, "version": version})
        if gone:
            self.values.close(model)
            for each in self._by_model():
                each.remove_by_labels({"model": model})

    def ended(self, event: Event) -> None:
        model, version = self._known(event.call.model, event.version)
        door = event.call.door if event.call.door in DOORS else OTHER
        self.requests.labels(model, version, door, event.code if event.code in CODES else OTHER).inc()
        self.request_seconds.labels(model, door).observe(event.seconds)
        reply = event.reply
        if reply is not None:
            self.queue_seconds.labels(model).observe(reply.queue_seconds)
            self.compute_seconds.labels(model).observe(reply.compute_seconds)
            for size in reply.batch_sizes:
                self.batch_rows.labels(model).observe(size)
        if event.call.door == "warmup":
            return
        answers = reply.answers if reply is not None else tuple(row.answer for row in event.rows)
        series = self._series.get(model)
        if series is not None and event.call.door != "shadow":
            with self._lock:
                series.add(self._clock(), event.code, event.seconds, len(answers))
        info = self._models.get(model, {}).get(version)
        if info is not None:
            for answer in answers:
                self._answer(info, answer, series if event.call.door != "shadow" else None)

    def status(self) -> dict[str, Any]:
        now = self._clock()
        with self._lock:
            return {"models": {model: series.to_dict(now) for model, series in self._series.items()}}

    # What others tell

    def update(self, gauges: Iterable[Gauge]) -> None:
        """The core's state of this moment: called before a scrape and by the console's poll."""
        gauges = list(gauges)
        for g in gauges:
            model, _ = self._known(g.model, "")
            self.waiting_rows.labels(model).set(g.waiting_rows)
            self.queue_limit_rows.labels(model).set(g.limit_rows)
            self.ready.labels(model).set(g.ready)
            series = self._series.get(model)
            if series is not None:
                series.waiting = g.waiting_rows
        if gauges:
            self.workers.set(max(g.workers for g in gauges))
            restarts = max(g.restarts for g in gauges)
            self.restarts.inc(max(0, restarts - self._restarts))
            self._restarts = restarts

    def drift(self, model: str, result: DriftResult) -> None:
        """The last drift check. Features that are no longer tested vanish."""
        seen: set[tuple[str, str]] = set()
        for f in result.findings:
            scores = {f.test: f.score} if f.psi is None or f.test == "chi2" else {f.test: f.score, "psi": f.psi}
            for test, score in scores.items():
                seen.add((f.feature, test))
                self.drift_score.labels(model, f.feature, test).set(score)
            self.drift_alarm.labels(model, f.feature).set(f.alarm)
        for feature, test in self._drift.get(model, set()) - seen:
            self.drift_score.remove_by_labels({"model": model, "feature": feature, "test": test})
            if feature not in {name for name, _ in seen}:
                self.drift_alarm.remove_by_labels({"model": model, "feature": feature})
        self._drift[model] = seen
        self.drift_rows.labels(model).set(result.rows)

    def accuracy(self, model: str, value: float) -> None:
        """The share of right answers, by labels that came later."""
        self.live_accuracy.labels(model).set(value)

    def render(self) -> tuple[bytes, str]:
        """The text format of Prometheus, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # Inside

    def _known(self, model: str, version: str) -> tuple[str, str]:
        versions = self._models.get(model)
        if versions is None:
            return OTHER, OTHER
        return model, version if version in versions else OTHER

    def _by_model(self) -> Iterable[Counter | PrometheusGauge | Histogram]:
        return (
            self.requests,
            self.rows,
            self.request_seconds,
            self.queue_seconds,
            self.compute_seconds,
            self.batch_rows,
            self.waiting_rows,
            self.queue_limit_rows,
            self.ready,
            self.input_rows,
            self.reference_absent,
            self.decode_errors,
            self.predictions,
            self.drift_score,
            self.drift_alarm,
            self.drift_rows,
            self.live_accuracy,
        )

    def _answer(self, info: ModelInfo, answer: Any, series: Series | None) -> None:
        failed = answer.error is not None
        self.rows.labels(info.name, info.version, "error" if failed else "ok").inc()
        if failed:
            column = answer.error.column
            known = any(c.name == column for c in info.columns)
            if column is not None:
                self.decode_errors.labels(info.name, column if known else OTHER).inc()
            return
        for name in broken_inputs(answer):
            columns = [c.name for c in info.columns if c.input == name]
            self.decode_errors.labels(info.name, columns[0] if len(columns) == 1 else name).inc()
        for presence, names in (("present", answer.used), ("absent", answer.absent)):
            for name in names:
                self.input_rows.labels(info.name, name if name in info.inputs else OTHER, presence).inc()
        value = answer.suggestion if answer.abstained else answer.value  # what the model says, given or not
        if answer.probabilities is not None:
            for label in value if isinstance(value, list) else [value]:
                text = text_of(label)
                text = text if text in info.classes[:MOST_LABELS] else OTHER
                self.predictions.labels(info.name, info.version, text).inc()
                if series is not None:
                    series.answers[text] += 1
        elif (amount := amount_of(value)) is not None:
            self.values.observe(info.name, amount)


class _Values(Collector):
    """`fuseline_prediction_value`: every model has the buckets of its own held-out answers, which the client's
    Histogram cannot: there all models would share one set."""

    def __init__(self) -> None:
        self._bounds: dict[str, list[float]] = {}
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()

    def open(self, model: str, quantiles: Sequence[float]) -> None:
        """Buckets stay where a model is loaded again: a histogram may not change its bounds."""
        with self._lock:
            if model not in self._bounds:
                self._bounds[model] = sorted({float(f"{q:.4g}") for q in quantiles}) or [0.0]
                self._counts[model] = [0] * (len(self._bounds[model]) + 1)
                self._sums[model] = 0.0

    def close(self, model: str) -> None:
        with self._lock:
            for held in (self._bounds, self._counts, self._sums):
                held.pop(model, None)

    def observe(self, model: str, value: float) -> None:
        with self._lock:
            if model in self._bounds:
                self._counts[model][bisect.bisect_left(self._bounds[model], value)] += 1
                self._sums[model] += value

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily("fuseline_prediction_value", "predicted numbers", labels=["model"])
        with self._lock:
            for model, bounds in self._bounds.items():
                total, buckets = 0, []
                for bound, count in zip([*map(str, bounds), "+Inf"], self._counts[model], strict=True):
                    total += count
                    buckets.append((bound, total))
                family.add_metric([model], buckets, self._sums[model])
        yield family
