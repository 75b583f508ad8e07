"""OpenTelemetry spans of every request (needs opentelemetry-sdk, the extra `otel`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fuseline.errors import FuselineError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from fuseline.serve.calls import Call, Event, ModelInfo

NO_ERROR = ("ok", "cancelled")


class Traces:
    """An observer that tells each request as a span `predict`, with `queue` and `compute` inside.

    The spans are made when the request has ended, with the times it took; `compute` is laid at the end. The request id
    is an attribute, so that a caller's own trace finds it.

    Args:
        provider: default: the process's own, which OpenTelemetry's environment variables set up.

    Raises FuselineError ``missing_extra`` without opentelemetry.
    """

    name = "traces"

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError:
            raise FuselineError(
                "missing_extra", "traces need opentelemetry-sdk", "pip install 'fuseline[otel]'"
            ) from None
        self._trace = trace
        self._tracer = trace.get_tracer("fuseline", tracer_provider=provider)

    def wants(self, call: Call) -> bool:
        return False

    def loaded(self, info: ModelInfo) -> None: ...

    def unloaded(self, model: str, version: str) -> None: ...

    def ended(self, event: Event) -> None:
        end = time.time_ns()
        start = end - int(event.seconds * 1e9)
        attributes: dict[str, Any] = {
            "fuseline.model": event.call.model,
            "fuseline.version": event.version,
            "fuseline.request_id": event.call.id,
            "fuseline.door": event.call.door,
            "fuseline.code": event.code,
            "fuseline.rows": len(event.call.rows),
        }
        span = self._tracer.start_span(
            "predict", kind=self._trace.SpanKind.SERVER, start_time=start, attributes=attributes
        )
        if event.code not in NO_ERROR:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, event.code))
        if event.reply is not None and span.is_recording():
            context = self._trace.set_span_in_context(span)
            computed = max(start, end - int(event.reply.compute_seconds * 1e9))
            queued = max(start, computed - int(event.reply.queue_seconds * 1e9))
            for name, begin, finish in (("queue", queued, computed), ("compute", computed, end)):
                child = self._tracer.start_span(name, context=context, start_time=begin)
                if name == "compute":
                    child.set_attribute("fuseline.batch_rows", list(event.reply.batch_sizes))
                child.end(end_time=finish)
        span.end(end_time=end)

    def status(self) -> dict[str, Any]:
        return {}
