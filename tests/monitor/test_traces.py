from __future__ import annotations

import sys

import pytest
import watched
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fuseline.errors import FuselineError
from fuseline.monitor.traces import Traces


@pytest.fixture
def spans() -> tuple[Traces, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Traces(provider), exporter


def test_a_request_is_a_span_with_its_queue_and_compute_inside(spans: tuple[Traces, InMemorySpanExporter]) -> None:
    traces, exporter = spans
    traces.ended(watched.events(1, seed=1)[0])
    by = {s.name: s for s in exporter.get_finished_spans()}
    assert set(by) == {"predict", "queue", "compute"}
    root = by["predict"]
    assert root.attributes is not None
    assert root.attributes["fuseline.request_id"] == "r0"
    assert root.end_time - root.start_time == 20_000_000
    assert by["compute"].end_time - by["compute"].start_time == 10_000_000
    assert by["queue"].end_time == by["compute"].start_time
    for name in ("queue", "compute"):
        assert by[name].parent.span_id == root.context.span_id
        assert root.start_time <= by[name].start_time <= by[name].end_time <= root.end_time
    assert root.status.status_code is StatusCode.UNSET
    assert "secret" not in str([s.to_json() for s in by.values()])


def test_a_failure_is_an_error_and_a_gone_caller_is_not(spans: tuple[Traces, InMemorySpanExporter]) -> None:
    traces, exporter = spans
    traces.ended(watched.event([], code="deadline"))
    traces.ended(watched.event([], code="cancelled"))
    codes = [s.status.status_code for s in exporter.get_finished_spans()]
    assert codes == [StatusCode.ERROR, StatusCode.UNSET]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(FuselineError, match="otel"):
        Traces()
